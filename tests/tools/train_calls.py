"""What the tests of tools/train_net.py share: the quickest run, and what one has left behind."""

from __future__ import annotations

import subprocess
from pathlib import Path

import warm_commands
from runs import command, keys

CONFIG = "mini_faster_rcnn_r18.yaml"
QUICK = {"SOLVER.MAX_ITER": 1, "DATALOADER.NUM_WORKERS": 0, "TEST.PICTURES": 0}


def left(tmp_path: Path) -> set[str]:
    """Names of what stands in the run folder."""
    return {path.name for path in (tmp_path / "run").glob("*")}


def untouched(tmp_path: Path) -> bool:
    """Whether no run was begun: at most the log is there, so that the corrected call needs no --overwrite."""
    return left(tmp_path) <= {"log.txt"}


def in_two_processes(tmp_path: Path, *arguments: str, changes: dict | None = None) -> subprocess.CompletedProcess[str]:
    """Run the command in two processes."""
    flags = (*arguments, "--num-processes", "2")
    return warm_commands.run([*command(tmp_path / "run", *flags), *keys({**QUICK, **(changes or {})})])
