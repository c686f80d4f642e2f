"""What the tests of `make gpu` share. GPU_REHEARSAL=1 runs them on the CPU, to see that every line of them runs."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
REHEARSAL = os.environ.get("GPU_REHEARSAL") == "1"


@pytest.fixture(scope="session")
def device() -> str:
    """Return the device that is tested."""
    if REHEARSAL:
        return "cpu"
    if not torch.cuda.is_available():
        pytest.skip("needs a GPU (GPU_REHEARSAL=1 runs it on the CPU)")
    return "cuda"


@pytest.fixture(scope="session")
def tool(device):
    """Return a call of a command on the device: tool("predict.py", *arguments)."""
    import warm_commands

    def call(name: str, *arguments: object, status: int = 0, where: str = device) -> str:
        done = warm_commands.run([sys.executable, ROOT / "tools" / name, *arguments, "--device", where])
        assert done.returncode == status, done.stdout[-2000:] + done.stderr[-3000:]
        assert "Traceback" not in done.stderr
        return done.stdout + done.stderr

    return call
