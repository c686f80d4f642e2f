"""Mended copies: what becomes of records, and that damage of any kind leaves no errors."""

from __future__ import annotations

import copy
import random
from math import inf, nan
from pathlib import Path

import pytest
from damage import (
    BAD_IMAGES,
    HEIGHT,
    WIDTH,
    errors,
    first,
    image,
    jpeg,
    repeat,
    sound_data,
    twelve_corner_boxes,
    with_exif,
)

from detection.config import default_config
from detection.data import checks
from detection.engine.datasets import load_sets
from detection.evaluation import load_ground_truth


def test_joined_images_keep_their_annotations(sound_folder: Path) -> None:
    data = sound_data()
    repeat(data, "images", id=99)
    first(data, image_id=99)
    mended = checks.mend(data, sound_folder, source="a.json").data
    assert len(mended["images"]) == 6
    assert [record["image_id"] for record in mended["annotations"]] == [1, 2, 3, 4, 5, 6, 2]


def test_references_follow_ids_that_become_integers(sound_folder: Path) -> None:
    data = sound_data()
    image(data, id="first")
    first(data, image_id="first", category_id="2")
    mended = checks.mend(data, sound_folder, source="a.json").data
    assert mended["images"][0]["id"] == mended["annotations"][0]["image_id"] == 7
    assert mended["annotations"][0]["category_id"] == 2


def test_like_named_file_is_taken(folder: Path) -> None:
    (folder / "1.jpg").rename(folder / "1.JPG")
    data = sound_data()
    (fault,) = checks.check_coco(data, folder, source="a.json")
    assert "which has '1.JPG'" in fault.examples[0]
    mended = checks.mend(data, folder, source="a.json")
    assert mended.data["images"][0]["file_name"] == "1.JPG"
    assert mended.left == []


def test_two_records_that_would_get_one_file_are_both_named_and_not_mended(folder: Path) -> None:
    data = sound_data()
    image(data, file_name="set1\\5.jpg")
    data["images"][1]["file_name"] = "set2\\5.jpg"
    data["images"] = [record for record in data["images"] if record["file_name"] != "5.jpg"]
    mended = checks.mend(data, folder, source="a.json")
    assert [record["file_name"] for record in mended.data["images"]] == ["3.jpg", "4.jpg", "6.jpg"]
    assert mended.actions["images dropped: 'set1\\\\5.jpg' and 'set2\\\\5.jpg' would both be '5.jpg'"] == 2


def test_a_file_that_a_record_names_rightly_goes_to_no_other(folder: Path) -> None:
    data = sound_data()
    image(data, file_name="set1\\2.jpg")
    mended = checks.mend(data, folder, source="a.json")
    assert [record["file_name"] for record in mended.data["images"]] == [f"{id}.jpg" for id in range(2, 7)]
    assert "images dropped: 'set1\\\\2.jpg' and '2.jpg' would both be '2.jpg'" in mended.actions


POINTS = [[8, 6], [28, 6], [28, 16], [8, 16]]
FLAT = [8, 6, 28, 6, 28, 16, 8, 16]


@pytest.mark.parametrize("mask", [[POINTS], POINTS, FLAT, [FLAT], [FLAT, [1, 2, 3, 4]], [FLAT, [1, 2, 3, 4, 5, 6, 7]]])
def test_a_polygon_in_any_form_gives_the_box(sound_folder: Path, mask: list) -> None:
    data = sound_data()
    first(data, segmentation=mask, bbox=None, area=None)
    record = checks.mend(data, sound_folder, source="a.json").data["annotations"][0]
    assert record["segmentation"][0] == FLAT
    assert (record["bbox"], record["area"]) == ([8, 6, 20, 10], 200)


def test_run_lengths_give_the_box(sound_folder: Path) -> None:
    data = sound_data()
    counts = [8 * HEIGHT + 6, *(10, HEIGHT - 10) * 19, 10]
    first(data, segmentation={"size": [HEIGHT, WIDTH], "counts": [*counts, WIDTH * HEIGHT - sum(counts)]}, bbox="box")
    assert checks.mend(data, sound_folder, source="a.json").data["annotations"][0]["bbox"] == [8, 6, 20, 10]


def test_a_set_without_masks_is_said_to_be_fit_for_boxes_alone(sound_folder: Path) -> None:
    data = sound_data()
    for record in data["annotations"]:
        record["segmentation"] = []
    faults, counts = checks.check_coco(data, sound_folder, source="a.json"), checks.counts_of(data)
    assert checks.verdict(faults, counts).startswith("fit for use (boxes alone: no object has a mask): 0 errors")
    assert checks.as_record(counts, faults)["uses"] == {"boxes": True, "masks": False}
    data["annotations"][0]["segmentation"] = [FLAT]
    faults = checks.check_coco(data, sound_folder, source="a.json")
    assert checks.verdict(faults, counts).startswith("fit for use: 0 errors")


def test_corner_boxes_become_xywh(sound_folder: Path) -> None:
    data = sound_data()
    twelve_corner_boxes(data)
    mended = checks.mend(data, sound_folder, source="a.json").data
    assert mended["annotations"][0]["bbox"] == [30, 20, 20, 16]


def test_size_comes_from_the_rotated_file(folder: Path) -> None:
    (folder / "1.jpg").write_bytes(with_exif(jpeg(100, 80), 6))
    data = sound_data()
    mended = checks.mend(data, folder, source="a.json", facts=checks.inspect_images(data, folder)).data
    assert (mended["images"][0]["width"], mended["images"][0]["height"]) == (80, 100)


JUNK = [None, True, False, "", "x", "7", 0, 1, 2, -1, 3.0, 2.5, nan, inf, -inf, 2**70, 10**400, [], {}, [1, 2], "../x"]
JUNK += [[nan, 1, 2, 3], [1, 2, 3, 4], ["1", "2", "3", "4"], [5, 5, -2, 3], [-9, -9, 12, 99], [1e308, 0, 1e308, 1]]
JUNK += [[[1, 2, 3, 4, 5, 6]], [[1, 2, 3]], {"size": [HEIGHT, WIDTH], "counts": [1, 2]}, {"size": None, "counts": "0"}]


def corrupt(data: dict, chance: random.Random) -> None:
    """Damage a few random places, and leave the last image and category alone so that something can be left."""
    for _ in range(chance.randint(1, 12)):
        name = chance.choice(["images", "annotations", "annotations", "annotations", "categories"])
        place = chance.randrange(len(data[name]) - (name != "annotations"))
        record = data[name][place]
        action = chance.choice(["set", "set", "set", "delete", "repeat", "replace", "header"])
        if not isinstance(record, dict) or action == "replace":
            data[name][place] = chance.choice(JUNK)
        elif action == "set":
            record[chance.choice(sorted(record) or ["id"])] = copy.deepcopy(chance.choice(JUNK))
        elif action == "delete" and record:
            del record[chance.choice(sorted(record))]
        elif action == "repeat":
            data[name].insert(chance.randrange(len(data[name])), copy.deepcopy(record))
        elif action == "header":
            data[chance.choice(["info", "licenses", "extra"])] = chance.choice(JUNK)


@pytest.mark.parametrize("seed", range(6))
def test_mended_copy_of_random_damage_has_no_errors(seed: int, folder: Path, tmp_path: Path) -> None:
    chance = random.Random(seed)
    for id in chance.sample(range(1, 6), 2):
        (folder / f"{id}.jpg").write_bytes(chance.choice(BAD_IMAGES)[1]())
    found = 0
    for _ in range(50):
        data = sound_data()
        corrupt(data, chance)
        facts = checks.inspect_images(data, folder) if chance.random() < 0.5 else None
        found += bool(errors(checks.faults_of(data, folder, "a.json", facts)))
        mended = checks.mend(data, folder, source="a.json", facts=facts)
        checks.write_json(mended.data, tmp_path / "out.json")
        written, faults = checks.read_json(tmp_path / "out.json")
        left = faults + checks.faults_of(written, folder, "out.json", facts)
        assert not errors(left), (data, errors(left))
        assert {record["id"] for record in written["images"]} <= set(range(-1, 30))
        assert_accepted(
            tmp_path / "out.json", folder, masks=any(record.get("segmentation") for record in written["annotations"])
        )
    assert found > 25


def assert_accepted(json_file: Path, folder: Path, *, masks: bool) -> None:
    """Load a data set as training and evaluation do, to train on and to test on."""
    config = default_config()
    config.MODEL.MASK_ON = masks
    config.DATASETS.TEST = ("custom_val",)
    config.DATASETS.CUSTOM.VAL_JSON, config.DATASETS.CUSTOM.VAL_IMAGES = str(json_file), str(folder)
    (tested,) = load_sets(config, training=False).test
    assert set(tested.ground_truth) == ({"bbox", "segm"} if masks else {"bbox"})
    for kind, truth in tested.ground_truth.items():
        assert len(truth.boxes) == len(load_ground_truth(json_file, kind).boxes)


@pytest.mark.parametrize(
    "mask", [[], None, [[1, 2, 3, 4]], [[1, 2, 3, 4, 5, 6, 7]], "text", {"size": [1, 1], "counts": "0"}]
)
def test_validation_masks_that_cannot_be_used_are_accepted_once_mended(
    sound_folder: Path, tmp_path: Path, mask: object
) -> None:
    data = sound_data()
    first(data, segmentation=mask)
    checks.write_json(checks.mend(data, sound_folder, source="a.json").data, tmp_path / "out.json")
    assert_accepted(tmp_path / "out.json", sound_folder, masks=True)
