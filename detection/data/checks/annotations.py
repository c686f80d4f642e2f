"""The annotations: ids, what they refer to, boxes, areas and flags."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ...coco_json.columns import MISSING, boxes, column, numbers, repeated
from .kinds import Findings, name_annotation, show
from .masks import check_keypoints, check_segmentations
from .tables import Categories, Images, find, integer_column

EDGE = 1.0  # pixels by which a box may stand out of its image unnoticed
AREA_SLACK = 16.0  # square pixels by which areas may differ whatever their ratio
# Boxes, XYXY_BOXES or more, are taken for corners when they fit as corners and this share of them, two at least, cannot
# be [x, y, width, height].
XYXY_FIT, XYXY_BEYOND, XYXY_BOXES = 0.99, 0.2, 4


def check_annotations(records: list[dict], images: Images, categories: Categories, findings: Findings) -> None:
    """Note every fault of the annotations, and which images and categories have none."""
    if not records:
        findings.add_one("no-annotations", "'annotations' is empty")
    image_places = _check_references(records, "image_id", "unknown-image", images.ids, findings)
    category_places = _check_references(records, "category_id", "unknown-category", categories.ids, findings)
    _check_ids(records, findings)
    sizes = images.sizes_of(image_places)
    box_values, sound = _check_boxes(records, sizes, findings)
    _check_areas(records, box_values, sound, findings)
    _check_flags(records, findings)
    check_segmentations(records, sizes, findings)
    check_keypoints(records, category_places, categories, findings)
    _note_repeated(records, image_places, category_places, box_values, sound, findings)
    _note_unused(images, image_places, categories, category_places, findings)


def namer(records: list[dict], text: Callable[[dict], str]) -> Callable[[int], str]:
    """Return what describes an annotation by its index: its name, then `text(record)`."""
    return lambda index: f"{name_annotation(records[index], index)}: {text(records[index])}"


def _check_references(records: list[dict], key: str, kind: str, ids: np.ndarray, findings: Findings) -> np.ndarray:
    """Return the places in `ids` of what the annotations refer to; -1 where that is unknown."""
    wanted = integer_column(records, key, "annotation", findings)
    places = find(ids, wanted)
    unknown = np.flatnonzero(wanted.valid & (places < 0))
    findings.add(kind, unknown, namer(records, lambda record: f"{key} {show(record[key])} is not listed"))
    return places


def _check_ids(records: list[dict], findings: Findings) -> None:
    ids = integer_column(records, "id", "annotation", findings)
    places = np.flatnonzero(ids.valid)
    again = places[repeated(ids.values[places])]
    findings.add("duplicate-annotation-id", again, namer(records, lambda record: "the id stands twice"))
    zero = np.flatnonzero(ids.valid & (ids.values == 0))
    findings.add("annotation-id-zero", zero, namer(records, lambda record: "id 0"))


def _check_boxes(records: list[dict], sizes: np.ndarray, findings: Findings) -> tuple[np.ndarray, np.ndarray]:
    """Return the boxes (N, 4), NaN where malformed, and which of them have finite numbers and an area."""
    values = column(records, "bbox")
    absent = np.array([value is MISSING for value in values], bool)
    findings.add("missing-annotation-key", np.flatnonzero(absent), namer(records, lambda record: "no 'bbox'"))
    box_values, well_formed = boxes(values)
    finite = np.isfinite(box_values).all(axis=1)
    negative = (box_values[:, 2:] < 0).any(axis=1)
    sound = finite & (box_values[:, 2:] > 0).all(axis=1)
    outside, partly = stand_out(box_values, sizes)
    for kind, mask in (
        ("malformed-box", ~well_formed & ~absent),
        ("nan-box", well_formed & ~finite),
        ("negative-box", finite & negative),
        ("empty-box", finite & ~negative & ~sound),
        ("box-outside", sound & outside),
        ("box-partly-outside", sound & partly),
    ):
        findings.add(kind, np.flatnonzero(mask), _box_namer(records, sizes))
    if look_normalised(box_values[sound], sizes[sound]):
        findings.add("normalised-boxes", np.flatnonzero(sound), _box_namer(records, sizes))
    elif look_like_corners(box_values[sound], sizes[sound]):
        findings.add("xyxy-boxes", np.flatnonzero(sound & (outside | partly)), _box_namer(records, sizes))
    return box_values, sound


def _box_namer(records: list[dict], sizes: np.ndarray) -> Callable[[int], str]:
    def describe(index: int) -> str:
        width, height = sizes[index]
        image = f" in an image of {width:.0f} x {height:.0f}" if np.isfinite(width) else ""
        return f"{name_annotation(records[index], index)}: bbox {show(records[index]['bbox'])}{image}"

    return describe


def stand_out(box_values: np.ndarray, sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Say which boxes lie outside their image, and which others stand out of it by more than `EDGE`.

    Args:
        box_values: (N, 4), [x, y, width, height].
        sizes: (N, 2), width and height of the images; NaN where unknown, which gives neither.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        low, high = box_values[:, :2], box_values[:, :2] + box_values[:, 2:]
        known = np.isfinite(sizes).all(axis=1)
        outside = known & ((low >= sizes) | (high <= 0)).any(axis=1)
        partly = known & ~outside & ((low < -EDGE) | (high > sizes + EDGE)).any(axis=1)
    return outside, partly


def look_like_corners(box_values: np.ndarray, sizes: np.ndarray) -> bool:
    """Whether boxes, as a whole, are [x0, y0, x1, y1]: they fit so, and many fit no other way."""
    known = np.isfinite(sizes).all(axis=1)
    low, extent, sizes = box_values[known, :2], box_values[known, 2:], sizes[known]
    if len(low) < XYXY_BOXES:
        return False
    with np.errstate(over="ignore"):
        beyond = (low + extent > sizes + EDGE).any(axis=1)
    fit = ((extent > low) & (extent <= sizes + EDGE) & (low >= -EDGE)).all(axis=1).mean()
    return bool(beyond.sum() >= 2 and beyond.mean() >= XYXY_BEYOND and fit >= XYXY_FIT)


def look_normalised(box_values: np.ndarray, sizes: np.ndarray) -> bool:
    """Whether boxes, as a whole, are shares of their images' sides: none reaches further than one pixel, and not all
    numbers are whole."""
    known = np.isfinite(sizes).all(axis=1)
    box_values = box_values[known & (sizes > 2).all(axis=1)]
    if not len(box_values):
        return False
    shares = ((box_values >= 0) & (box_values <= 1)).all(axis=1).mean()
    return bool(shares >= XYXY_FIT and (box_values % 1 != 0).any())


def _check_areas(records: list[dict], box_values: np.ndarray, sound: np.ndarray, findings: Findings) -> None:
    values = column(records, "area")
    missing = np.array([value is MISSING or value is None for value in values], bool)
    areas = numbers(values)
    malformed = ~missing & ~np.isfinite(areas)
    bad = np.isfinite(areas) & (areas <= 0)
    masked = np.array([bool(record.get("segmentation")) for record in records], bool)
    with np.errstate(over="ignore", invalid="ignore"):
        unlike = sound & areas_differ(areas, box_values[:, 2] * box_values[:, 3], masked) & ~bad & ~missing & ~malformed
    findings.add("missing-area", np.flatnonzero(missing), namer(records, lambda record: "no 'area'"))
    describe = namer(records, lambda record: f"area {show(record['area'])}, bbox {show(record.get('bbox'))}")
    findings.add("malformed-area", np.flatnonzero(malformed), describe)
    findings.add("bad-area", np.flatnonzero(bad), describe)
    findings.add("area-mismatch", np.flatnonzero(unlike), describe)


def areas_differ(areas: np.ndarray, box_areas: np.ndarray, masked: np.ndarray) -> np.ndarray:
    """Whether an area is far above its box's, or far below it without a mask that explains it."""
    above = areas > 1.5 * box_areas + AREA_SLACK
    below = ~masked & (areas < 0.5 * box_areas - AREA_SLACK)
    return above | below


def _check_flags(records: list[dict], findings: Findings) -> None:
    values = column(records, "iscrowd")
    missing = [index for index, value in enumerate(values) if value is MISSING]
    findings.add("missing-iscrowd", missing, namer(records, lambda record: "no 'iscrowd'"))
    flagged = [value is MISSING or (type(value) is int and value in (0, 1)) for value in values]
    bad = [index for index, good in enumerate(flagged) if not good]
    findings.add("bad-iscrowd", bad, namer(records, lambda record: f"iscrowd {show(record['iscrowd'])}"))


def _note_repeated(
    records: list[dict],
    image_places: np.ndarray,
    category_places: np.ndarray,
    box_values: np.ndarray,
    sound: np.ndarray,
    findings: Findings,
) -> None:
    places = np.flatnonzero(sound & (image_places >= 0) & (category_places >= 0))
    # One hash a row keeps the search for equal rows to one sort of integers.
    rows = np.stack([image_places, category_places, *box_values.T], axis=1)[places] + 0.0
    hashes = np.zeros(len(rows), np.uint64)
    for values in np.ascontiguousarray(rows.T).view(np.uint64):
        hashes = (hashes ^ values) * np.uint64(0x9E3779B97F4A7C15)
        hashes ^= hashes >> np.uint64(29)
    again = places[repeated(hashes)]
    findings.add("duplicate-object", again, namer(records, lambda record: "image, category and bbox stand twice"))


def _note_unused(
    images: Images,
    image_places: np.ndarray,
    categories: Categories,
    category_places: np.ndarray,
    findings: Findings,
) -> None:
    unannotated = np.setdiff1d(np.arange(len(images.ids)), image_places)
    findings.add("unannotated-images", unannotated, lambda place: f"image {images.ids[place]}")
    unused = np.setdiff1d(np.arange(len(categories.ids)), category_places)
    names = [show(record.get("name")) for record in categories.records]
    findings.add("unused-category", unused, lambda place: f"category {categories.ids[place]} {names[place]}")
