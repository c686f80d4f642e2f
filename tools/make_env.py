#!/usr/bin/env python3
"""Make or complete the environment that `make quickstart` and `make test` use.

A folder that is no environment yet becomes one, with the tested set of constraints.txt. An environment that is there
already keeps every package as it is, torch above all; what is missing is added.

Example:
    python3 tools/make_env.py .venv
    python3 tools/make_env.py /opt/conda      # holds a CUDA torch
"""

from __future__ import annotations

import argparse
import hashlib
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CONSTRAINTS = ROOT / "constraints.txt"
TOOLS = ("install_detectron2.py", "install_mmdetection.py", "make_env.py")
INPUTS = (ROOT / "setup.py", CONSTRAINTS, *(ROOT / "tools" / name for name in TOOLS))
OURS, STAMP = ".made-by-make-env", ".completed-by-make-env"
OLDEST = (3, 10)


class SetupError(Exception):
    """The environment could not be made; the message says why and what to do."""


def interpreter(environment: Path) -> Path:
    windows = environment / "Scripts" / "python.exe"
    return windows if windows.exists() else environment / "bin" / "python"


def run(*command: str | Path) -> None:
    done = subprocess.run([str(part) for part in command], check=False)
    if done.returncode:
        raise SetupError(f"`{' '.join(str(part) for part in command[:4])} ...` failed; its lines above say why")


def output(*command: str | Path) -> str | None:
    """Return what a command prints, or None if it fails."""
    done = subprocess.run([str(part) for part in command], check=False, capture_output=True, text=True)
    return done.stdout.strip() if done.returncode == 0 else None


def make(environment: Path) -> None:
    """Make a virtual environment of the interpreter that runs this script."""
    if sys.version_info < OLDEST:
        raise SetupError(
            f"Python {OLDEST[0]}.{OLDEST[1]} or newer is needed, this is {sys.version.split()[0]}; give PYTHON="
        )
    if environment.exists() and not (environment.is_dir() and not any(environment.iterdir())):
        raise SetupError(f"{environment} is there but holds no environment; remove it or give another VENV=")
    if output(sys.executable, "-c", "import ensurepip, venv") is None:
        raise SetupError("this Python has no venv module; install it (Debian and Ubuntu: python3-venv) or give PYTHON=")
    print(f"making the environment {environment}", flush=True)
    run(sys.executable, "-m", "venv", environment)
    (environment / OURS).touch()


def constraints_for(environment: Path, python: Path) -> Path:
    """Return the constraints to install with: the tested set, or in someone else's environment what is there."""
    if (environment / OURS).exists():
        return CONSTRAINTS
    installed = output(python, "-m", "pip", "list", "--format=freeze", "--exclude-editable")
    if installed is None:
        raise SetupError(f"{python} has no pip; run `{python} -m ensurepip` first")
    path = environment / ".constraints-of-make-env.txt"
    path.write_text("\n".join(line for line in installed.splitlines() if "==" in line) + "\n", encoding="utf-8")
    return path


def complete(environment: Path) -> None:
    python = interpreter(environment)
    version = output(python, "-c", "import sys; print('.'.join(map(str, sys.version_info[:3])))")
    if version is None:
        raise SetupError(f"{python} does not run; remove {environment} or give another VENV=")
    if tuple(map(int, version.split(".")[:2])) < OLDEST:
        raise SetupError(f"{python} is Python {version}; {OLDEST[0]}.{OLDEST[1]} or newer is needed")
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in INPUTS) + str(ROOT).encode()).hexdigest()
    stamp = environment / STAMP
    check = "import torch, torchvision, backbone, detectron2, pytest"
    if stamp.exists() and stamp.read_text(encoding="utf-8") == digest and output(python, "-c", check) is not None:
        print(f"environment {environment} is ready", flush=True)
        return
    constraints = constraints_for(environment, python)
    print(f"installing into {environment} (torch alone is several GB: some minutes the first time)", flush=True)
    quiet = () if os.environ.get("VERBOSE") else ("--quiet",)
    run(python, "-m", "pip", "install", *quiet, "--constraint", constraints, "--editable", f"{ROOT}[test]")
    run(python, ROOT / "tools" / "install_detectron2.py", "--constraint", constraints)
    try:
        run(python, ROOT / "tools" / "install_mmdetection.py", "--constraint", constraints)
    except SetupError as error:
        # Only some tests need it. Without the stamp, the next call tries again.
        print(f"make_env.py: warning: {error}; the tests against MMDetection are skipped", file=sys.stderr)
        print(f"environment {environment} is ready", flush=True)
        return
    stamp.write_text(digest, encoding="utf-8")
    print(f"environment {environment} is ready", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("environment", type=Path)
    parser.error = lambda message: parser.exit(2, f"make_env.py: error: {message} (--help shows the usage)\n")
    environment = parser.parse_args().environment.absolute()
    os.environ.setdefault("PIP_DISABLE_PIP_VERSION_CHECK", "1")
    try:
        if not interpreter(environment).exists():
            make(environment)
        complete(environment)
    except SetupError as error:
        print(f"make_env.py: error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
