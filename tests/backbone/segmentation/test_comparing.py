"""tools/evaluate.py with label images on both sides: no network, figures against a count pixel by pixel."""

from __future__ import annotations

import json
import re
import sys

import numpy as np
import pytest
import warm_commands
from browser import NAMES, Browser, find
from PIL import Image
from small_segmentation import CLASSES, ROOT, scene, write_folders, write_voc
from test_confusion import slow_metrics

from backbone.common.errors import DataError
from backbone.segmentation.comparing import compare
from backbone.segmentation.data.labels import write_label
from backbone.segmentation.label_command import data_of


def guess(label: np.ndarray, seed: int, void: bool = False) -> np.ndarray:
    """A prediction: a fifth of the pixels wrong, the void rim filled, or some pixels void."""
    random = np.random.default_rng(seed)
    found = np.where(random.random(label.shape) < 0.8, label, random.integers(0, 3, label.shape))
    found[found == 255] = 1
    if void:
        found[random.random(label.shape) < 0.05] = 255
    return found.astype(np.uint8)


@pytest.fixture
def root(tmp_path):
    return write_folders(tmp_path / "set")


def write_guesses(folder, indices=range(3), *, end="", void=False):
    """Write predictions of the set's part val, and return (prediction, truth) of each."""
    folder.mkdir()
    pairs = []
    for index in indices:
        label = scene(100 + index)[1]
        pairs.append((guess(label, index, void), label))
        write_label(folder / f"{index}{end}.png", pairs[-1][0])
    return pairs


def check(comparison, pairs) -> None:
    figures = comparison.to_json()["sem_seg"]
    expected = slow_metrics(pairs, CLASSES)
    assert figures.keys() == expected.keys() and comparison.classes == list(CLASSES)
    for name, value in expected.items():
        assert figures[name] == pytest.approx(value, nan_ok=True), name


@pytest.mark.parametrize("void", [False, True])
@pytest.mark.parametrize("truth", ["folder", "set"])
def test_figures(root, tmp_path, truth, void):
    pairs = write_guesses(tmp_path / "found", void=void)
    place = root if truth == "set" else root / "labels" / "val"
    comparison = compare(place, tmp_path / "found", data_of([]))
    check(comparison, pairs)
    # Pixels that are predicted as void are missed, and in a column of their own.
    assert comparison.counts.shape == ((3, 4) if void else (3, 3))
    assert comparison.counts.sum() == sum(int((label != 255).sum()) for _, label in pairs)
    # Images of a set are on the page; labels alone have theirs by --images.
    assert len(comparison.images) == (3 if truth == "set" else 0)
    comparison.write_page(tmp_path / "page.html", "A < B")
    page = (tmp_path / "page.html").read_text()
    assert "<h1>A &lt; B</h1>" in page and page.count('<figure class="shot"') == 3
    assert not re.findall(r"""(?:src|href)=["'](?!data:|#)""", page)
    order = np.argsort([slow_metrics([pair], CLASSES)["mIoU"] for pair in pairs], kind="stable")
    assert re.findall(r"<strong>\d\. (\d)\.png", page) == [str(index) for index in order]


def test_the_page_lives_in_a_browser(root, tmp_path):
    program = find()
    if program is None:
        pytest.skip(f"no browser: none of {', '.join(NAMES)} is installed")
    write_guesses(tmp_path / "found", void=True)
    compare(root, tmp_path / "found", data_of([])).write_page(tmp_path / "page.html", "Errors of " + "a" * 90)
    shown = "[...document.querySelectorAll('.shot:not([hidden])')].map(shot => shot.dataset.keys)"
    with Browser(program) as browser:
        browser.open((tmp_path / "page.html").as_uri(), width=400)
        assert browser.run("document.documentElement.dataset.ready") == "yes"
        assert browser.run("document.documentElement.scrollWidth <= innerWidth")
        assert [one for theme in ("light", "dark") for one in browser.low_contrast(theme)] == []
        for key in ("c1", "m0-2"):
            browser.run(f"document.querySelector('[data-find=\"{key}\"]').click()")
            keys = browser.run(shown)
            assert keys and all(key in one.split() for one in keys)
        browser.run("document.querySelector('.shot:not([hidden]) button').click()")
        assert browser.run("document.querySelector('dialog').open && !!document.querySelector('dialog svg image')")
        assert " taken for " in browser.run("document.querySelector('dialog .errors').textContent")
        first = browser.run("document.querySelector('dialog strong').textContent")
        browser.key("ArrowRight")
        assert browser.run("document.querySelector('dialog strong').textContent") != first
        assert browser.errors == [] and all(url.startswith("file:") for url in browser.requests)


def test_predictions_of_other_forms(root, tmp_path):
    pairs = write_guesses(tmp_path / "found")
    # Truth in other numbers and with a suffix, predictions by class, then in the same numbers.
    truth = tmp_path / "truth"
    truth.mkdir()
    (truth / "classes.txt").write_text("\n".join(CLASSES))
    numbers = np.arange(256, dtype=np.uint8) + 7
    for index, (found, label) in enumerate(pairs):
        Image.fromarray(numbers[label]).save(truth / f"{index}_gt.png")
        Image.fromarray(numbers[found]).save(tmp_path / f"{index}_same.png")
    data = data_of(["DATA.ID_MAP", "7: background, 8: round, 9: square, 6: void"])
    check(compare(truth, tmp_path / "found", data), pairs)
    check(compare(truth / "0_gt.png", tmp_path / "0_same.png", data, same_form=True), pairs[:1])
    # Colours, by the list of classes.
    colours = np.array([[0, 0, 0], [200, 10, 10], [10, 10, 200]], np.uint8)
    (truth / "classes.txt").write_text("background 0 0 0\nround 200 10 10\nsquare 10 10 200\n")
    for index, (found, _) in enumerate(pairs):
        Image.fromarray(colours[found]).save(tmp_path / "found" / f"{index}.png")
    check(compare(truth, tmp_path / "found", data), pairs)


def test_classes_without_names_are_called_by_their_numbers(tmp_path):
    (tmp_path / "a" / "b" / "truth").mkdir(parents=True)
    truth = tmp_path / "a" / "b" / "truth"
    pairs = write_guesses(tmp_path / "found", [0])
    write_label(truth / "0.png", pairs[0][1])
    comparison = compare(truth, tmp_path / "found", data_of([]))
    assert comparison.classes == ["0", "1", "2"] and "called by their numbers" in comparison.notes[0]
    check(compare(truth, tmp_path / "found", data_of([]), classes=CLASSES), pairs)


def test_a_split_of_voc(tmp_path):
    folder = write_voc(tmp_path) / "VOCdevkit" / "VOC2012"
    (tmp_path / "found").mkdir()
    for index in range(3):
        write_label(tmp_path / "found" / f"2012_1{index}.png", guess(scene(10 + index)[1], index))
    write_label(tmp_path / "found" / "2012_99.png", np.zeros((4, 4), np.uint8))
    comparison = compare(folder, tmp_path / "found", data_of([]), part="val")
    assert len(comparison.classes) == 21 and len(comparison.scores) == 3
    assert comparison.notes == [f"{tmp_path}/found: 1 file without truth left out, first {tmp_path}/found/2012_99.png"]


def test_what_does_not_fit_is_named(root, tmp_path):
    write_guesses(tmp_path / "found")
    truth, found, data = root / "labels" / "val", tmp_path / "found", data_of([])
    for change, message in (
        (lambda: write_label(found / "2.png", np.full((72, 60), 3, np.uint8)), "2.png: label 3 at x 0, y 0 is none of"),
        (lambda: write_label(found / "2.png", np.zeros((5, 6), np.uint8)), "2.png: is 6x5 pixels, its truth 60x72"),
        ((found / "1.png").unlink, r"holds no prediction for .*1.png \(1 of 3 images have none\)"),
    ):
        change()
        with pytest.raises(DataError, match=message):
            compare(truth, found, data)
    with pytest.raises(DataError, match="nowhere does not exist"):
        compare(root / "nowhere", found, data)
    (root / "empty").mkdir()
    with pytest.raises(DataError, match="empty: holds no label images"):
        compare(root / "empty", found, data)


def test_the_command(root, tmp_path):
    pairs = write_guesses(tmp_path / "found")

    def call(*flags):
        given = ("--gt", root / "labels" / "val", "--predictions", tmp_path / "found", *flags)
        return warm_commands.run([sys.executable, str(ROOT / "tools" / "evaluate.py"), *map(str, given)])

    done = call("--json", tmp_path / "o.json", "--report", tmp_path / "o.html", "--images", root / "images" / "val")
    assert done.returncode == 0 and "| mean Dice" in done.stdout, done.stderr
    figures = json.loads((tmp_path / "o.json").read_text())
    assert figures["sem_seg"]["mDice"] == pytest.approx(slow_metrics(pairs, CLASSES)["mDice"])
    assert figures["unit"].startswith("fraction") and (tmp_path / "o.html").read_text().count("data:image/jpeg") == 3
    for flags, message in (
        (("--iou-type", "segm"), "--iou-type is for boxes"),
        (("MODEL.NAME", "resnet50"), "MODEL.NAME: says nothing of label images"),
        (("--classes", "nowhere.txt"), "nowhere.txt does not exist"),
        (("--predictions", "nowhere"), "nowhere: does not exist; give a JSON file"),
    ):
        done = call(*flags)
        assert done.returncode == 2 and message in done.stderr and done.stderr.count("\n") == 1
