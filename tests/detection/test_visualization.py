"""Drawing of objects, and sheets of pictures."""

from __future__ import annotations

import numpy as np
import pytest

from backbone.common.images import montage
from detection import visualization
from detection.visualization import class_color, draw_objects, text_color

CLASSES = ["cat", "dog"]
BOX = np.array([[20.0, 30.0, 60.0, 70.0]])


@pytest.fixture
def image() -> np.ndarray:
    return np.full((100, 120, 3), 128, dtype=np.uint8)


def changed(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Return where two images differ, (H, W) bool."""
    return (before != after).any(axis=2)


def test_neighbouring_classes_have_clearly_different_colours():
    colors = np.array([class_color(label) for label in range(81)])
    assert ((colors >= 0) & (colors <= 255)).all()
    assert np.abs(np.diff(colors, axis=0)).max(axis=1).min() > 60
    assert len({tuple(color) for color in colors.tolist()}) > 60
    assert class_color(3) == class_color(3)


def luminance(bgr: tuple[int, int, int]) -> float:
    """Return the relative luminance of WCAG 2."""
    linear = [c / 255 / 12.92 if c <= 10 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in bgr]
    return 0.0722 * linear[0] + 0.7152 * linear[1] + 0.2126 * linear[2]


def test_names_stand_out_from_the_colour_of_every_class():
    for label in range(200):
        behind = class_color(label)
        low, high = sorted((luminance(behind), luminance(text_color(behind))))
        assert (high + 0.05) / (low + 0.05) >= 4.5


def test_names_do_not_hide_each_other(monkeypatch):
    plates = []

    def kept(canvas, words, corner, behind, write=visualization.write):
        plates.append((*corner, corner[0] + words.shape[1], corner[1] + words.shape[0]))
        write(canvas, words, corner, behind)

    monkeypatch.setattr(visualization, "write", kept)
    rng = np.random.default_rng(0)
    corners = np.concatenate([np.tile([20.0, 30.0], (6, 1)), rng.uniform(0, 200, (30, 2))])
    boxes = np.concatenate([corners, corners + 60], axis=1)
    draw_objects(np.zeros((300, 300, 3), np.uint8), boxes, [0] * 36, ["cat"], scores=np.linspace(0.9, 0.5, 36))
    assert len(plates) > 20
    # The six objects at one place too.
    assert sum(abs(left - 20) <= 60 and abs(top - 30) <= 80 for left, top, _, _ in plates) >= 6
    taken = np.zeros((300, 300), dtype=int)
    for left, top, right, bottom in plates:
        taken[top:bottom, left:right] += 1
        assert 0 <= left < right <= 300
        assert 0 <= top < bottom <= 300
    assert taken.max() == 1


def test_box_is_drawn_in_its_colour_on_a_copy(image):
    before = image.copy()
    drawn = draw_objects(image, BOX, [1], CLASSES)
    assert np.array_equal(image, before)
    assert drawn.shape == image.shape
    assert drawn.dtype == np.uint8
    for y, x in ((30, 50), (70, 40), (50, 20), (50, 60)):
        assert tuple(drawn[y, x]) == class_color(1)
    assert not changed(image, drawn)[35:65, 25:55].any()
    assert not changed(image, drawn)[75:].any()
    # The name stands above the box.
    assert changed(image, drawn)[20:29, 22:40].any()


def test_nothing_to_draw(image):
    empty = np.zeros((0, 4), dtype=np.float32)
    assert np.array_equal(draw_objects(image, empty, [], CLASSES), image)
    masks = np.zeros((0, 100, 120), dtype=bool)
    assert np.array_equal(draw_objects(image, empty, [], CLASSES, scores=[], masks=masks), image)


def test_masks_are_blended(image):
    mask = np.zeros((1, 100, 120), dtype=bool)
    mask[0, 40:60, 30:50] = True
    drawn = draw_objects(image, BOX, [0], CLASSES, scores=[0.9], masks=mask)
    expected = 0.55 * 128 + 0.45 * np.array(class_color(0))
    assert np.abs(drawn[50, 40] - expected).max() <= 1
    assert not changed(image, drawn)[62:68, 25:55].any()


def test_the_surest_object_lies_on_top(image):
    boxes = np.repeat(BOX, 2, axis=0)
    for scores, top in (([0.9, 0.2], 0), ([0.2, 0.9], 1)):
        drawn = draw_objects(image, boxes, [0, 1], CLASSES, scores=scores)
        assert tuple(drawn[70, 40]) == class_color(top)


@pytest.mark.parametrize(
    "box", [[-50, -50, 500, 500], [0, 0, 119, 99], [118, 98, 120, 100], [5, 5, 5, 5], [-9e5, 3, 9e5, 4]]
)
@pytest.mark.parametrize("name", ["a long name that is wider than the image", "größe 图", ""])
def test_boxes_at_the_edges_and_names_of_any_kind(image, box, name):
    drawn = draw_objects(image, np.array([box], dtype=np.float32), [0], [name], scores=[1.0])
    assert drawn.shape == image.shape
    assert changed(image, drawn).any()


def test_label_without_a_name(image):
    assert changed(image, draw_objects(image, BOX, [7], CLASSES)).any()


def test_tiny_and_large_images():
    for shape in ((1, 1, 3), (8, 300, 3), (1500, 900, 3)):
        image = np.zeros(shape, dtype=np.uint8)
        assert draw_objects(image, BOX, [0], CLASSES, scores=[0.5]).shape == shape
    # Lines grow with the image, so that they can be seen when it is shown small.
    large = draw_objects(np.zeros((1500, 900, 3), np.uint8), BOX * 10, [0], CLASSES)
    assert changed(np.zeros_like(large), large)[500, 190:230].sum() >= 3


def test_montage_lays_pictures_out_in_rows():
    colors = [(255, 0, 0), (0, 255, 0), (0, 0, 255)]
    pictures = [np.full(size, color, np.uint8) for size, color in zip([(40, 20, 3), (20, 40, 3), (10, 10, 3)], colors)]
    sheet = montage(pictures, columns=2, width=30, gap=4)
    # Heights at a width of 30: 60 and 15, then 30.
    assert sheet.shape == (4 + 60 + 4 + 30 + 4, 4 + 2 * (30 + 4), 3)
    assert (sheet[4:64, 4:34] == colors[0]).all()
    assert (sheet[4:19, 38:68] == colors[1]).all()
    assert (sheet[68:98, 4:34] == colors[2]).all()
    painted = 60 * 30 + 15 * 30 + 30 * 30
    assert (sheet == 255).all(axis=2).sum() == sheet.shape[0] * sheet.shape[1] - painted


def test_montage_of_one_picture():
    sheet = montage([np.zeros((10, 20, 3), np.uint8)], columns=1, width=20, gap=0)
    assert sheet.shape == (10, 20, 3)
    assert not sheet.any()
