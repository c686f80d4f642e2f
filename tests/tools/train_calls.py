"""What the tests of tools/train_net.py share: the quickest run, and what one has left behind."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

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
    """Run the real command in two processes."""
    return subprocess.run(
        [*command(tmp_path / "run", *arguments, "--num-processes", "2"), *keys({**QUICK, **(changes or {})})],
        env=dict(os.environ, OMP_NUM_THREADS="1"),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
