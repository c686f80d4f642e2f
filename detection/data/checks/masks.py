"""Segmentations (polygons and run lengths) and keypoints of annotations."""

from __future__ import annotations

import numpy as np

from ...coco_json.masks import all_finite, drawn, mask_faults, suspects, wrong_totals
from .kinds import Findings, name_annotation, show
from .tables import Categories


def check_segmentations(records: list[dict], sizes: np.ndarray, findings: Findings) -> None:
    """Note malformed polygons and run lengths; `sizes` (N, 2) are width and height of each annotation's image."""
    masks = [record.get("segmentation") for record in records]
    absent = [index for index, mask in enumerate(masks) if not mask]
    suspicious = suspects(masks)
    absent += [index for index in suspicious if drawn(masks[index]) is None]
    findings.add("missing-segmentation", sorted(absent), lambda index: name_annotation(records[index], index))
    faults: dict[str, list[int]] = {"bad-polygon": [], "short-polygon": [], "bad-rle": [], "crowd-polygons": []}
    for index in suspicious:
        for kind in mask_faults(masks[index], sizes[index]):
            faults[kind].append(index)
    faults["bad-rle"] = sorted({*faults["bad-rle"], *wrong_totals(masks)})
    faults["crowd-polygons"] = [
        index for index, mask in enumerate(masks) if type(mask) is list and mask and records[index].get("iscrowd") == 1
    ]
    for kind, places in faults.items():
        findings.add(kind, places, lambda index: _describe(records[index], index))


def _describe(record: dict, index: int) -> str:
    return f"{name_annotation(record, index)}: segmentation {show(record['segmentation'])}"


def check_keypoints(
    records: list[dict], category_places: np.ndarray, categories: Categories, findings: Findings
) -> None:
    """Note keypoints that are not x, y, visibility for each keypoint of the category."""
    if not categories.keypoints:
        return
    expected = np.array([categories.keypoints.get(int(id), 0) for id in categories.ids] + [0])[category_places]
    places = np.flatnonzero(expected).tolist()
    missing = [index for index in places if "keypoints" not in records[index]]
    findings.add("missing-keypoints", missing, lambda index: name_annotation(records[index], index))
    bad = [i for i in places if "keypoints" in records[i] and keypoints_fault(records[i]["keypoints"], expected[i])]

    def describe(index: int) -> str:
        values = records[index]["keypoints"]
        length = f"{len(values)} numbers" if isinstance(values, list) else show(values)
        return f"{name_annotation(records[index], index)}: {length} for {expected[index]} keypoints"

    findings.add("bad-keypoints", bad, describe)


def keypoints_fault(values: object, keypoints: int) -> bool:
    """Whether `values` is not a list of three finite numbers a keypoint."""
    return not isinstance(values, list) or len(values) != 3 * keypoints or not all_finite(values)
