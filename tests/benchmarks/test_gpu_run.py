"""What `make gpu` says of its figures, that each of its commands is one that the tools take, and that it stops them."""

from __future__ import annotations

import argparse
import json
import re
import time
from pathlib import Path

import pytest

from backbone.engine import timing
from benchmarks import gpu
from tools.benchmark import make_parser

TIMED = {"times_detectron2": 1.4, "bytes_of_detectron2": 0.9}


def test_goals_that_are_met_and_those_that_are_not():
    figures = {
        "detectors-r50_fpn-cuda-compiled": {
            "training": {"detectron2, float32": {"times_detectron2": 9}, "ours, float32": TIMED},
            "inference": {"ours, float32": TIMED, "ours, fold, float32": {**TIMED, "times_detectron2": 1.6}},
        }
    }
    lines = [str(finding) for finding in gpu.detectors(figures)]
    assert lines == [
        "met    r50_fpn compiled training, ours, float32, times detectron2: 1.40 (at least 1.3)",
        "SHORT  r50_fpn compiled memory, ours, float32: 0.90 (at most 0.85)",
        "met    r50_fpn compiled inference, ours, fold, float32, times detectron2: 1.60 (at least 1.5)",
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
            assert rehearse or parsed.seconds < part.limit / 4, "training and inference take twice as long as rounds"


def test_what_needs_a_gpu_is_run():
    tests = gpu.ROOT / "tests"
    skipped = re.compile(r'reason="needs a GPU"\)\n(?:@.*\n)*def (\w+)')
    files = [file for file in tests.rglob("test_*.py") if file.parent != tests / "gpu"]
    found = {f"{file.relative_to(gpu.ROOT)}::{name}" for file in files for name in skipped.findall(file.read_text())}
    command = gpu.parts("cuda", rehearse=False, data_root=None)[0].command
    assert found == {word for word in command if "::" in word} != set()


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
    results = tmp_path / "results.md"
    results.touch()
    chosen = argparse.Namespace(rehearse=True, data_root=None, only=None, budget=60.0, results=results)
    assert gpu.report(chosen, "cpu") == 1
    printed = capfd.readouterr().out
    assert "first: FAILED with status 3" in printed and "pretraining: done" in printed
    assert "1 figures, 0 short of their goal" in printed


def running(process: int) -> bool:
    stat = Path(f"/proc/{process}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processes are found in /proc")
def test_a_stopped_part_keeps_its_findings_and_leaves_nothing_running(tmp_path):
    figures = json.dumps({"pretraining-cifar-cpu": {"compiled": {"times_plain": 0.5}}})
    child = "[sys.executable, '-c', 'import time; time.sleep(99)'], start_new_session=True"
    code = (
        f"import pathlib, subprocess, sys, time; pathlib.Path(sys.argv[1]).write_text({figures!r}); "
        f"pathlib.Path(sys.argv[2]).write_text(str(subprocess.Popen({child}).pid)); time.sleep(99)"
    )
    part = gpu.Part("pretraining", ("-c", code, "{json}", "{results}"), 1.0)
    state, found = gpu.run_part(part, tmp_path / "pid", tmp_path, 1.0, "cpu")
    assert state.startswith("STOPPED after its 1 seconds")
    assert [finding.met for finding in found] == [False]
    until = time.monotonic() + 20
    while running(int((tmp_path / "pid").read_text())):
        assert time.monotonic() < until
        time.sleep(0.02)


def test_what_compiles_is_run_beside_the_tests(tmp_path):
    write = "import pathlib, sys; pathlib.Path(sys.argv[1]).touch()"
    made = [gpu.Part("tests", (), 9.0), gpu.Part("slow", ("-c", write, "{json}", "--compile"), 9.0)]
    with gpu.compilers(made, tmp_path, 9.0, "cpu"):
        pass
    assert [file.name for file in tmp_path.iterdir()] == ["slow.json"]


@pytest.mark.parametrize(("within", "rounds"), [(None, 5), (0.0, 1), (9.0, 5)])
def test_rounds_end_with_their_time(monkeypatch, within, rounds):
    monkeypatch.setattr(timing.gc, "collect", int)
    timings = timing.alternate({"a": int, "b": int}, rounds=5, within=within)
    assert [found.rounds for found in timings.values()] == [rounds, rounds]
