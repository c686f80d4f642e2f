"""tools/evaluate.py on PASCAL VOC, as a user runs it."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from voc_cases import random_detections, records_of

from detection.data.voc import VOC_CLASSES, read_split, split_of_folder
from detection.evaluation import evaluate_voc
from detection.evaluation.voc_detections import load_detections, write_submission

TOOL = Path(__file__).resolve().parents[3] / "tools" / "evaluate.py"


def call(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(TOOL), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


@pytest.fixture
def year(shared_data) -> Path:
    return shared_data / "VOCdevkit" / "VOC2012"


@pytest.mark.parametrize("metric", ["voc07", "voc10"])
def test_a_folder_of_files(year, tmp_path, metric):
    objects = read_split(split_of_folder(year, "val"))
    write_submission(random_detections(objects, 400), tmp_path / "dets", objects.ids, "val")
    out = tmp_path / "out.json"
    arguments = ("--voc-root", year, "--split", "val", "--predictions", tmp_path / "dets", "--metric", metric)
    done = call(*arguments, "--json", out)
    assert (done.returncode, done.stderr) == (0, "")
    figures = json.loads(out.read_text())
    assert figures == evaluate_voc(objects, tmp_path / "dets", metric=metric).to_json()
    assert figures["voc"]["metric"] == metric and figures["bbox"]["AP50"] == figures["voc"][f"mAP50_{metric}"] > 0
    assert f"{figures['bbox']['AP50']:.4f}" in done.stdout
    assert all(f"| {name} " in done.stdout for name in VOC_CLASSES)


def test_files_for_the_server_from_records(year, tmp_path):
    """A test split: listed, its annotations with the server."""
    test = tmp_path / "VOC2012"
    (test / "ImageSets" / "Main").mkdir(parents=True)
    (test / "ImageSets" / "Main" / "test.txt").write_bytes((year / "ImageSets/Main/val.txt").read_bytes())
    objects = read_split(split_of_folder(year, "val"))
    found = random_detections(objects, 50)
    (tmp_path / "dets.json").write_text(json.dumps(records_of(found, objects.ids)))
    arguments = ("--voc-root", test, "--split", "test", "--predictions", tmp_path / "dets.json")
    done = call(*arguments, "--submission", tmp_path / "send")
    assert (done.returncode, done.stderr) == (0, "")
    assert "has no annotations: nothing to evaluate" in done.stdout
    assert sorted(path.name for path in (tmp_path / "send").iterdir()) == [
        f"comp4_det_test_{name}.txt" for name in VOC_CLASSES
    ]
    again = load_detections(tmp_path / "send", objects.ids, "test")
    # Not rounded, and counted from 1.
    assert sorted(again.scores.tolist()) == sorted(found.scores.tolist())
    assert sorted(again.boxes[:, 0].tolist()) == pytest.approx(sorted(found.boxes[:, 0].tolist()))
    refused = call(*arguments)
    assert refused.returncode == 2 and "--submission writes the files" in refused.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--voc-root", "{year}"], "--voc-root needs --split"),
        (["--voc-root", "{year}", "--split", "vall"], "no split 'vall'; did you mean 'val'"),
        (["--voc-root", "{year}/..", "--split", "val"], "it holds VOC2012: give one of them"),
        (["--voc-root", "{year}", "--split", "val"], "nowhere: does not exist; give a folder of comp4_det_val_*.txt"),
        (["--voc-root", "{year}", "--split", "val", "--iou-type", "segm"], "belong to --gt"),
        (["--gt", "a.json", "--metric", "voc07"], "--metric belongs to --voc-root"),
        (["--gt", "a.json", "--voc-root", "{year}"], "either --gt FILE"),
    ],
)
def test_mistakes_are_one_line(year, arguments, message, monkeypatch, capsys):
    given = [argument.format(year=year) for argument in arguments]
    monkeypatch.setattr(sys, "argv", [str(TOOL), "--predictions", "nowhere", *given])
    with pytest.raises(SystemExit) as caught:
        runpy.run_path(str(TOOL), run_name="__main__")
    printed = capsys.readouterr()
    assert (caught.value.code, printed.out) == (2, "")
    assert printed.err.startswith("evaluate.py: error: ") and printed.err.count("\n") == 1
    assert message in printed.err
