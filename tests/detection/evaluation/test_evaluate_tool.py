"""tools/evaluate.py, as a user runs it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from coco_cases import random_case, reference

TOOL = Path(__file__).resolve().parents[3] / "tools" / "evaluate.py"


def call(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(TOOL), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    truth, predictions = random_case("segm", 8)
    for name, value in (("gt.json", truth), ("dt.json", predictions)):
        (tmp_path / name).write_text(json.dumps(value), encoding="utf-8")
    return tmp_path / "gt.json", tmp_path / "dt.json"


def test_prints_a_table_and_writes_json(files: tuple[Path, Path], tmp_path: Path) -> None:
    gt, dt = files
    out = tmp_path / "out.json"
    done = call("--gt", gt, "--predictions", dt, "--iou-type", "bbox,segm", "--json", out)
    assert (done.returncode, done.stderr) == (0, "")
    figures = json.loads(out.read_text(encoding="utf-8"))
    assert list(figures) == ["bbox", "segm"]
    truth, predictions = (json.loads(file.read_text(encoding="utf-8")) for file in files)
    for kind, of in figures.items():
        classes = of.pop("per_class")
        assert list(of.values()) == reference(truth, predictions, kind).stats
        assert f"{of['AP']:.3f}" in done.stdout
        assert all(name in done.stdout for name in classes)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["dt.json", "gt.json", "out.json"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--gt", "nowhere.json"], "nowhere.json"),
        (["--iou-type", "box"], "unknown IoU type 'box'"),
        (["--json", "{dt}"], "is a folder or an input"),
    ],
)
def test_mistakes_are_one_line(files: tuple[Path, Path], arguments: list[str], message: str) -> None:
    given = [argument.format(dt=files[1]) for argument in arguments]
    done = call("--gt", files[0], "--predictions", files[1], *given)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("evaluate.py: error: ") and done.stderr.count("\n") == 1
    assert message in done.stderr
