"""tools/find_lr.py: the tool follows from the config, and what cannot be is refused in one line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import warm_commands

from backbone.engine.config import KEYS_OF_TOOLS, tool_of

TOOL = Path(__file__).resolve().parents[2] / "tools" / "find_lr.py"
SIDES = ("INPUT.MIN_SIZE_TRAIN", "(64,)", "INPUT.MIN_SIZE_TEST", "64")
SMALL = (*SIDES, "SOLVER.IMS_PER_BATCH", "2", "DATASETS.TEST", "()", "DATALOADER.NUM_WORKERS", "0")


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return warm_commands.run([sys.executable, str(TOOL), *words], merged=True)


def test_a_detector(tmp_path):
    flags = ("--device", "cpu", "--output-dir", str(tmp_path), "--steps", "10", "--from", "1e-4", "--to", "0.1")
    done = run("--config", "mini_faster_rcnn_r18.yaml", *flags, *SMALL)
    assert done.returncode == 0, done.stdout
    found = json.loads((tmp_path / "find_lr.json").read_text())
    assert f"SOLVER.BASE_LR {found['suggestion']:g}, on the command line" in done.stdout
    assert [points[0] for points in found["points"]][::9] == pytest.approx([1e-4, 0.1])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["find_lr.html", "find_lr.json"]


def test_the_tool_of_a_config():
    assert tool_of("mini_faster_rcnn_r18.yaml") == "tools/train_net.py"
    assert tool_of("mini_fcn_r18.yaml") == "tools/train_segmentation.py"
    assert tool_of("imagenet_loc_rpn_r101.yaml") == "tools/train_localization.py"
    assert tool_of("cifar10_resnet20.yaml") == "tools/pretrain.py"
    assert {Path(tool).is_file() for tool in KEYS_OF_TOOLS} == {True}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--resume",), "--resume is of a training"),
        (("--steps", "5"), "--steps is 10 or more"),
        (("--from", "1", "--to", "0.1"), "two rates above 0 in order"),
        (("--scheme", "alternating", "--device", "cpu"), "leave --scheme alternating out"),
    ],
)
def test_what_cannot_be_is_refused(words, said, tmp_path):
    done = run("--config", "mini_faster_rcnn_r18.yaml", "--output-dir", str(tmp_path / "no"), *words)
    assert done.returncode == 2 and said in done.stdout and done.stdout.count("\n") == 1, done.stdout
    assert not (tmp_path / "no").exists()
