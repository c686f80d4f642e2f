"""tools/evaluate.py --report, as a user runs it, on COCO and on VOC."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parents[1] / "detection" / "analysis"))
from planted import plant

from detection.data.voc import VocObjects, read_split, split_of_folder
from detection.evaluation import ground_truth, predictions


@pytest.fixture(scope="module")
def files(shared_data, tmp_path_factory) -> tuple[Path, Path]:
    """The COCO samples' ground truth, and predictions with planted errors."""
    truth = shared_data / "coco" / "annotations" / "instances_val2017.json"
    found = tmp_path_factory.mktemp("coco") / "dt.json"
    found.write_text(json.dumps(plant(json.loads(truth.read_text(encoding="utf-8")), 1)[0]), encoding="utf-8")
    return truth, found


def as_coco(truth: VocObjects) -> dict:
    """Return a VOC split as COCO has it; boxes from 0, with the last pixel inside."""
    columns = zip(truth.image.tolist(), truth.labels.tolist(), truth.boxes.tolist(), truth.difficult.tolist())
    return {
        "images": [
            {"id": name, "width": width, "height": height}
            for name, (width, height) in zip(truth.ids, truth.sizes.tolist())
        ],
        "categories": [{"id": label} for label in range(1, 21)],
        "annotations": [
            {
                "image_id": truth.ids[image],
                "category_id": label + 1,
                "bbox": [left - 1, top - 1, right - left + 1, bottom - top + 1],
                "iscrowd": int(difficult),
            }
            for image, label, (left, top, right, bottom), difficult in columns
        ],
    }


def test_coco_report(tool, files, shared_data, tmp_path):
    truth, found = files
    given = ("--gt", truth, "--predictions", found, "--json", "out.json", "--report", "out.html")
    done = tool("evaluate.py", *given, "--images", shared_data / "coco" / "val2017")
    done.fine("report: out.html", "| Cls ", "| Miss ", "Most AP50 is lost to ")
    page = (tmp_path / "out.html").read_text(encoding="utf-8")
    assert page.startswith("<!DOCTYPE html>")
    assert 24 < page.count("data:image/jpeg") <= 50
    assert "Error analysis: dt.json on instances_val2017.json" in page
    figures = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    assert list(figures) == ["bbox", "errors"]
    errors = figures["errors"]
    assert errors["AP50"] == pytest.approx(figures["bbox"]["AP50"])
    assert list(errors["kinds"]) == ["Cls", "Loc", "Both", "Dupe", "Bkg", "Miss"]
    assert all(kind["count"] > 0 and kind["dAP50"] >= 0 for kind in errors["kinds"].values())
    assert errors["confusions"][0]["count"] > 0


def test_voc_report(tool, shared_data, tmp_path):
    root = shared_data / "VOCdevkit" / "VOC2012"
    coco = as_coco(read_split(split_of_folder(root, "val"), need_images=False))
    found, planted = plant(coco, 3, clean=True)
    (tmp_path / "dt.json").write_text(json.dumps(found), encoding="utf-8")
    given = ("--voc-root", root, "--split", "val", "--predictions", "dt.json", "--score", "0.2")
    tool("evaluate.py", *given, "--json", "out.json", "--report", "out.html").fine("report: out.html")
    figures = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    del planted["Right"]
    assert sum(planted.values()) > 15
    assert {name: kind["count"] for name, kind in figures["errors"]["kinds"].items()} == {
        name: planted[name] for name in figures["errors"]["kinds"]
    }
    page = (tmp_path / "out.html").read_text(encoding="utf-8")
    # The split knows where its images are.
    assert "data:image/jpeg" in page
    # VOC's own figure first.
    mean = f"<dt>mAP, voc10</dt><dd>{100 * figures['voc']['mAP50_voc10']:.1f}</dd>"
    assert page.index(mean) < page.index("<dt>AP</dt>")


def test_boxes_are_read_once(tool, files, monkeypatch):
    """For the figures and for the report, and again for another kind alone."""
    reads = []

    def counted(source, what, read=ground_truth.read_source):
        reads.append(what)
        return read(source, what)

    for module in (ground_truth, predictions):
        monkeypatch.setattr(module, "read_source", counted)
    given = ("--gt", files[0], "--predictions", files[1], "--engine", "pycocotools")
    tool("evaluate.py", *given, "--report", "out.html", "--json", "a.json").fine("report: out.html")
    assert reads == ["ground truth", "predictions"]
    tool("evaluate.py", *given, "--json", "b.json").fine()
    with_report, without = (json.loads(Path(name).read_text()) for name in ("a.json", "b.json"))
    assert with_report["bbox"] == without["bbox"]


def test_a_report_needs_annotations(tool, tmp_path):
    lists = tmp_path / "VOC2012" / "ImageSets" / "Main"
    lists.mkdir(parents=True)
    (lists / "test.txt").write_text("2012_000001\n")
    (tmp_path / "dt.json").write_text("[]")
    given = ("--voc-root", "VOC2012", "--split", "test", "--predictions", "dt.json", "--submission", "send")
    done = tool("evaluate.py", *given, "--report", "out.html")
    done.mistake("--report: ", "test.txt has no annotations to compare with; leave --report out")
    assert not (tmp_path / "send").exists()
    tool("evaluate.py", *given).fine("nothing to evaluate")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--report", "."], "--report .: is a folder or an input"),
        (["--report", "x", "--json", "x"], "is the file of --json too"),
        (["--images", "."], "--images belongs to the error analysis; give --report OUT too"),
        (["--score", "0.5"], "--score belongs to the error analysis"),
        (["--report", "x", "--score", "nan"], "--score: nan is no score"),
        (["--report", "x", "--images", "nowhere"], "--images nowhere: is no folder"),
        (["--report", "x", "--images", "."], "holds none of the 50 images"),
    ],
)
def test_mistakes(tool, files, tmp_path, arguments, said):
    done = tool("evaluate.py", "--gt", files[0], "--predictions", files[1], *arguments)
    done.mistake(said)
    # Before any work.
    assert done.out == ""
    assert list(tmp_path.iterdir()) == []


def test_an_input_is_never_written_over(tool, files):
    before = files[1].read_bytes()
    tool("evaluate.py", "--gt", files[0], "--predictions", files[1], "--report", files[1]).mistake(
        "is a folder or an input"
    )
    assert files[1].read_bytes() == before
