"""tools/check_data.py on sets of PASCAL VOC."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

sys.path.append(str(Path(__file__).resolve().parents[1] / "detection" / "data"))
from voc_sample import write_year

OBJECTS = [("cat", (3, 4, 30, 20), False), ("dog", (1, 1, 60, 40), True)]
SET = ("--data-root", "root", "--dataset", "voc_2012_trainval")


@pytest.fixture
def year(tmp_path) -> Path:
    """Four images of 60 x 40 with two objects each."""
    names = ("a", "b", "c", "d")
    return write_year(tmp_path / "root" / "VOC2012", dict.fromkeys(names, OBJECTS), {"trainval": names, "test": names})


def jpeg(folder: Path, name: str) -> Path:
    return folder / "JPEGImages" / f"{name}.jpg"


def test_sound_images(tool, year):
    tool("check_data.py", *SET).fine("4 images, 8 objects, 4 difficult objects", "verdict: fit for use: 0 errors")


def test_broken_and_other_images_are_all_told(tool, year, tmp_path):
    cv2.imwrite(str(jpeg(year, "a")), np.full((60, 40, 3), 90, dtype=np.uint8))
    # Noise, so that what is cut off is pixels.
    noise = np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8)
    content = cv2.imencode(".jpg", noise)[1].tobytes()
    jpeg(year, "b").write_bytes(content[: len(content) // 2])
    jpeg(year, "c").write_bytes(b"<html>")
    done = tool("check_data.py", *SET, "--report", "report.json")
    assert done.status == 2 and done.err == ""
    assert "image 'a' 'a.jpg': 60 x 40 in the annotation, 40 x 60 in the file" in done.out
    assert "NOT fit for use: 3 errors" in done.out
    assert "--fix" not in done.out and "JSON" not in done.out
    report = json.loads((tmp_path / "report.json").read_text())
    assert {fault["kind"] for fault in report["faults"]} == {"size-mismatch", "truncated-image", "not-an-image"}
    assert not report["fit"] and report["counts"] == {"images": 4, "objects": 8, "difficult objects": 4}


def test_quick_opens_no_image(tool, year):
    jpeg(year, "b").write_bytes(b"")
    tool("check_data.py", *SET, "--quick").fine("fit for use", "images are there, not decoded")


def test_images_without_annotations(tool, year):
    jpeg(year, "d").write_bytes(b"")
    done = tool("check_data.py", "--data-root", "root", "--dataset", "voc_2012_test")
    assert done.status == 2 and "empty-image-file: 1" in done.out


def test_no_copy_is_mended(tool, year):
    tool("check_data.py", *SET, "--fix", "mended.json").mistake(
        "--fix mended.json", "voc_2012_trainval is PASCAL VOC, mend its"
    )


def test_the_samples_are_fit(tool, shared_data):
    tool("check_data.py", "--data-root", shared_data, "--dataset", "voc_2012_trainval").fine("100 images, 273 objects")
