"""What a run ran on: versions, device, command."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shlex
import sys
from datetime import datetime, timezone
from pathlib import Path

import torch

from .text import count

PACKAGES = ("torch", "torchvision", "detectron2", "numpy", "opencv-python-headless", "pycocotools")


def version(package: str) -> str | None:
    """Return the installed version of a distribution, or None."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def device_name(device: torch.device | str) -> str:
    """Return the GPU's name, or the processor's with the threads that torch uses."""
    device = torch.device(device)
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{_processor()}, {count(torch.get_num_threads(), 'thread')}"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def relative_path(text: str) -> str:
    """Return a path below the working directory relative to it, any other text as it is.

    For what is handed on with a checkpoint or a table: the folders above say nothing but where someone keeps files.
    """
    here = os.getcwd()
    below = os.path.isabs(text) and os.path.dirname(here) != here and os.path.normpath(text).startswith(here + os.sep)
    return os.path.relpath(text, here) if below else text


def provenance(device: torch.device | str) -> dict[str, object]:
    """Return what a results.json says about its making."""
    return {
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in PACKAGES if version(name)},
        },
        "device": device_name(device),
        # Not quoted: a subcommand's name is two words.
        "command": " ".join([Path(sys.argv[0]).name, shlex.join(map(relative_path, sys.argv[1:]))]).strip(),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }
