"""Where data sets are looked for, and what is said when they are not there."""

from __future__ import annotations

from pathlib import Path

import pytest

from backbone.common.errors import DataError
from detection.data.catalog import ROOT_VARIABLE, find_data_root, known_sets, locate

# Annotation file and image folder of the official downloads, unpacked side by side.
OFFICIAL = {
    "coco_2014_train": ("coco/annotations/instances_train2014.json", "coco/train2014"),
    "coco_2014_val": ("coco/annotations/instances_val2014.json", "coco/val2014"),
    "coco_2017_train": ("coco/annotations/instances_train2017.json", "coco/train2017"),
    "coco_2017_val": ("coco/annotations/instances_val2017.json", "coco/val2017"),
}


@pytest.fixture
def root(tmp_path) -> Path:
    for json_file, folder in OFFICIAL.values():
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / json_file).parent.mkdir(exist_ok=True)
        (tmp_path / json_file).write_text("{}")
    return tmp_path


def test_root_is_the_flag_else_the_variable_else_datasets(monkeypatch):
    assert ROOT_VARIABLE == "DETECTRON2_DATASETS"
    monkeypatch.setenv(ROOT_VARIABLE, "/from/variable")
    assert find_data_root("/from/flag") == Path("/from/flag")
    assert find_data_root(None) == Path("/from/variable")
    assert find_data_root("") == Path("/from/variable")
    monkeypatch.setenv(ROOT_VARIABLE, "")
    assert find_data_root(None) == Path("datasets")
    monkeypatch.delenv(ROOT_VARIABLE)
    assert find_data_root(None) == Path("datasets")
    assert find_data_root("~/data") == Path.home() / "data"


@pytest.mark.parametrize("name", OFFICIAL)
def test_official_names(root, name, monkeypatch):
    json_file, folder = OFFICIAL[name]
    source = locate(name, root)
    assert (source.json_file, source.image_folder) == (root / json_file, root / folder)
    assert source.official
    monkeypatch.setenv(ROOT_VARIABLE, str(root))
    assert locate(name) == source


def test_default_root_lies_in_the_working_folder(root, monkeypatch):
    monkeypatch.delenv(ROOT_VARIABLE, raising=False)
    (root / "work").mkdir()
    (root / "work" / "datasets").symlink_to(root)
    monkeypatch.chdir(root / "work")
    assert locate("coco_2017_val").json_file.is_file()


@pytest.mark.parametrize("missing", [0, 1])
def test_missing_part_is_named_with_its_mend(root, missing):
    part = root / OFFICIAL["coco_2017_val"][missing]
    part.rename(part.with_name("away"))
    with pytest.raises(DataError) as caught:
        locate("coco_2017_val", root)
    message = str(caught.value)
    for word in ("coco_2017_val", str(part), "--data-root", ROOT_VARIABLE, OFFICIAL["coco_2017_val"][missing]):
        assert word in message
    assert "\n" not in message


@pytest.mark.parametrize("given", ["nowhere", "coco"])
def test_wrong_root(root, given):
    """A folder that does not exist, and the mistake of naming the coco folder itself."""
    with pytest.raises(DataError, match="must name the folder that holds coco/annotations/instances_train2017.json"):
        locate("coco_2017_train", root / given)


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("coco_2017_vall", "coco_2017_val"),
        ("coco_2014_trian", "coco_2014_train"),
        ("COCO_2017_TRAIN", "coco_2017_train"),
        ("coco2017_val", "coco_2017_val"),
        ("mini-train", "mini_train"),
    ],
)
def test_unknown_name_offers_the_nearest(root, name, nearest):
    with pytest.raises(DataError, match=f"unknown data set '{name}'; did you mean '{nearest}'"):
        locate(name, root)


def test_name_like_no_other_lists_all(root):
    with pytest.raises(DataError) as caught:
        locate("xyz", root)
    for name in known_sets():
        assert name in str(caught.value)


def test_mini_set_needs_no_root(monkeypatch, tmp_path):
    monkeypatch.setenv(ROOT_VARIABLE, str(tmp_path / "nowhere"))
    for split in ("train", "val"):
        source = locate(f"mini_{split}")
        assert source.json_file.is_file()
        assert source.image_folder.is_dir()
        assert not source.official


def test_shared_samples_are_laid_out_as_the_official_sets(shared_data):
    for split in ("train", "val"):
        assert len(list(locate(f"coco_2017_{split}", shared_data).image_folder.glob("*.jpg"))) == 50
