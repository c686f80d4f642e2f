"""What `make gpu` says of its figures, and that each of its commands is one that the tools take."""

from __future__ import annotations

import argparse
import json

import pytest

from benchmarks import gpu
from tools.benchmark import make_parser

TIMED = {"times_detectron2": 1.4, "bytes_of_detectron2": 0.9}


def test_goals_that_are_met_and_those_that_are_not():
    figures = {
        "detectors-r50_fpn-cuda": {
            "training": {"detectron2, float32": {"times_detectron2": 9}, "ours, float32": TIMED},
            "inference": {"ours, float32": TIMED, "ours, fold, float32": {**TIMED, "times_detectron2": 1.6}},
        }
    }
    lines = [str(finding) for finding in gpu.detectors(figures)]
    assert lines == [
        "met    r50_fpn training, ours, float32, times detectron2: 1.40 (at least 1.3)",
        "SHORT  r50_fpn memory, ours, float32: 0.90 (at most 0.85)",
        "met    r50_fpn inference, ours, fold, float32, times detectron2: 1.60 (at least 1.5)",
    ]
    loops = {"torchvision": 100.0, "timm": 120.0, "ours": 114.0}
    steps = {"pretraining-resnet50-cuda": {"bfloat16": {k: {"images_per_second": v} for k, v in loops.items()}}}
    assert [(finding.value, finding.met) for finding in gpu.pretraining(steps)] == [(0.95, False)]


@pytest.mark.parametrize("rehearse", [False, True])
def test_each_part_is_a_command(rehearse):
    found = gpu.parts("cpu", rehearse=rehearse, data_root="data")
    assert sum(part.limit for part in found) > gpu.BUDGET / 2
    for part in found:
        if part.command[0] == "tools/benchmark.py":
            parsed = make_parser().parse_args(list(part.command[1:]))
            assert parsed.what[0] in part.name or part.name == "backbones"


def test_a_part_that_fails_is_told_and_the_others_go_on(monkeypatch, tmp_path, capfd):
    content = tmp_path / "content.json"
    content.write_text(
        json.dumps({"pretraining-cifar-cpu": {form: {"times_plain": 1.0} for form in ("plain", "compiled")}})
    )
    copy = "import shutil, sys; shutil.copy(*sys.argv[1:])"
    made = [
        gpu.Part("first", ("-c", "raise SystemExit(3)"), 9.0),
        gpu.Part("pretraining", ("-c", copy, str(content), "{json}"), 99.0),
    ]
    monkeypatch.setattr(gpu, "parts", lambda *_, **__: made)
    chosen = argparse.Namespace(rehearse=True, data_root=None, only=None, budget=60.0, results=tmp_path)
    assert gpu.report(chosen, "cpu") == 1
    printed = capfd.readouterr().out
    assert "first: FAILED with status 3" in printed and "pretraining: done" in printed
    assert "1 figures, 0 short of their goal" in printed
