"""Every kind of fault in COCO-form records is provoked, found, and mended where it can be."""

from __future__ import annotations

import copy
from math import nan
from pathlib import Path

import numpy as np
import pytest
from damage import (
    CHANGES,
    HEIGHT,
    SHARED_DATA,
    WIDTH,
    Change,
    errors,
    first,
    kinds,
    sound_data,
)

from backbone.common.errors import DataError
from detection.data import checks


def test_sound_data_has_no_fault(sound_folder: Path) -> None:
    data = sound_data()
    assert checks.check_coco(data, sound_folder, source="a.json") == []
    assert checks.check_images(data, checks.inspect_images(data, sound_folder)) == []


@pytest.mark.parametrize(("kind", "change"), CHANGES, ids=[f"{kind}-{i}" for i, (kind, _) in enumerate(CHANGES)])
def test_change_is_found_and_mended(kind: str, change: Change, sound_folder: Path) -> None:
    data = sound_data()
    change(data)
    before = copy.deepcopy(data)
    faults = checks.check_coco(data, sound_folder, source="a.json")
    fault = next((fault for fault in faults if fault.kind == kind), None)
    assert fault is not None, faults
    assert fault.severity == checks.KINDS[kind].severity
    assert fault.count >= len(fault.examples) >= 1
    assert all(example and "\n" not in example for example in fault.examples)
    assert_mends(data, sound_folder, fault)
    assert repr(data) == repr(before)


def assert_mends(data: dict, folder: Path, fault: checks.Fault) -> None:
    facts = checks.inspect_images(data, folder) if isinstance(data.get("images"), list) else None
    if fault.severity == "error" and not fault.fixable:
        with pytest.raises(DataError):
            checks.mend(data, folder, source="a.json", facts=facts)
        return
    mended = checks.mend(data, folder, source="a.json", facts=facts)
    left = kinds(mended.left)
    assert not errors(mended.left)
    assert (fault.kind in left) == (not fault.fixable)
    again = checks.mend(mended.data, folder, source="b.json", facts=facts)
    assert again.actions == {}


@pytest.mark.parametrize("data", [[], None, 3, "text"])
def test_what_is_no_dict_is_said(data: object, sound_folder: Path) -> None:
    assert kinds(checks.check_coco(data, sound_folder, source="a.json")) == {"not-a-dict"}


def test_missing_folder_is_one_fault(tmp_path: Path) -> None:
    faults = checks.check_coco(sound_data(), tmp_path / "none", source="a.json")
    assert kinds(faults) == {"missing-folder"}
    with pytest.raises(DataError, match="no such folder"):
        checks.mend(sound_data(), tmp_path / "none", source="a.json")


def test_counts_and_first_examples(sound_folder: Path) -> None:
    data = sound_data()
    for record in data["annotations"]:
        record["bbox"] = [nan, 0, 1, 1]
    (fault,) = errors(checks.check_coco(data, sound_folder, source="a.json"))
    assert (fault.kind, fault.count, len(fault.examples)) == ("nan-box", 7, 5)
    assert fault.examples[0].startswith("annotation 10 of image 1: ")


def test_box_may_stand_out_by_one_pixel(sound_folder: Path) -> None:
    data = sound_data()
    first(data, bbox=[-1, -1, WIDTH + 2, HEIGHT + 2], area=WIDTH * HEIGHT)
    assert checks.check_coco(data, sound_folder, source="a.json") == []


def test_sound_compressed_run_lengths_pass(sound_folder: Path) -> None:
    mask_utils = pytest.importorskip("pycocotools.mask")
    data = sound_data()
    for seed, record in enumerate(data["annotations"]):
        mask = np.random.default_rng(seed).random((HEIGHT, WIDTH)) < 0.1
        rle = mask_utils.encode(np.asfortranarray(mask.astype(np.uint8)))
        record["segmentation"] = {"size": rle["size"], "counts": rle["counts"].decode()}
    assert checks.check_coco(data, sound_folder, source="a.json") == []


def test_full_coco_faults_are_no_errors(sound_folder: Path) -> None:
    """train2017 holds two boxes of height 0 with area 0 (annotations 918 and 2206849; cocodataset/cocoapi#355)."""
    data = sound_data()
    first(data, bbox=[29.65, 38.33, 1.03, 0.0], area=0.0, segmentation=[[29.65, 38.33, 29.65, 38.33, 30.7, 38.33]])
    faults = checks.check_coco(data, sound_folder, source="a.json")
    assert kinds(faults) == {"empty-box", "bad-area"}
    assert not errors(checks.as_for_official_sets(faults))


def test_raise_on_errors_is_one_line(sound_folder: Path) -> None:
    data = sound_data()
    checks.raise_on_errors(checks.check_coco(data, sound_folder, source="a.json"), "a.json")
    data["info"] = None
    first(data, bbox=[nan, 0, 1, 1])
    data["annotations"][2]["image_id"] = 77
    faults = checks.check_coco(data, sound_folder, source="a.json")
    with pytest.raises(DataError) as caught:
        checks.raise_on_errors(faults, "a.json", flags=f"--json a.json --images {sound_folder}")
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith("a.json: unknown-image: annotation 12 of image 77")
    assert "1 more error" in message
    assert f"run tools/check_data.py --json a.json --images {sound_folder} for the whole report" in message


@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize("task", ["instances", "person_keypoints"])
def test_real_coco_has_no_errors(task: str, split: str) -> None:
    root = SHARED_DATA / "coco"
    file = root / "annotations" / f"{task}_{split}2017.json"
    if not file.exists():
        pytest.skip(f"{file} is not there; SHARED_DATA names the folder of shared data")
    data, faults = checks.read_json(file)
    folder = root / f"{split}2017"
    faults += checks.faults_of(data, folder, str(file), checks.inspect_images(data, folder))
    assert {fault.severity for fault in faults} <= {"notice"}, faults
