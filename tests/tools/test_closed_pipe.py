"""A reader that goes away (`| head -1`) takes the printed lines with it, and nothing else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from runs import ROOT, command, keys
from train_calls import QUICK

from backbone.common.mini_set import mini_set_root


def unread(arguments: list[str]) -> subprocess.CompletedProcess[str]:
    """Run a command whose standard output nobody reads."""
    reader, writer = os.pipe()
    os.close(reader)
    environment = dict(os.environ, OMP_NUM_THREADS="1", PYTHONUNBUFFERED="1")
    try:
        return subprocess.run(
            arguments, env=environment, stdout=writer, stderr=subprocess.PIPE, text=True, timeout=120, check=False
        )
    finally:
        os.close(writer)


def test_the_files_asked_for_are_written(tmp_path):
    ground_truth = mini_set_root() / "annotations" / "instances_val.json"
    found = [
        {"image_id": item["image_id"], "category_id": item["category_id"], "bbox": item["bbox"], "score": 1.0}
        for item in json.loads(ground_truth.read_text())["annotations"]
    ]
    predictions, figures = tmp_path / "found.json", tmp_path / "figures.json"
    predictions.write_text(json.dumps(found))
    tool = [sys.executable, str(ROOT / "tools" / "evaluate.py")]
    done = unread([*tool, "--gt", str(ground_truth), "--predictions", str(predictions), "--json", str(figures)])
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(figures.read_text())["bbox"]["AP"] > 0.9


@pytest.mark.parametrize("processes", ["1", pytest.param("2", marks=pytest.mark.slow)])
def test_a_training_goes_on_to_its_end(tmp_path: Path, processes):
    changes = {**QUICK, "SOLVER.MAX_ITER": 2}
    done = unread([*command(tmp_path / "run", "--num-processes", processes), *keys(changes)])
    assert done.returncode == 0
    assert "Traceback" not in done.stderr and "BrokenPipe" not in done.stderr
    assert (tmp_path / "run" / "model_final.pth").is_file()


@pytest.mark.parametrize("name", ["evaluate.py", "reproduce.py"])
def test_help(name):
    done = unread([sys.executable, str(ROOT / "tools" / name), "--help"])
    assert (done.returncode, done.stderr) == (0, "")
