"""The wheel, installed outside of the checkout: one command, configs by name, a training and a prediction."""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest

import backbone
from backbone.common.commands import COMMANDS

ROOT = Path(__file__).resolve().parents[1]
PARTS = (
    "backbone",
    "detection",
    "reproduction",
    "tools",
    "configs",
    "setup.py",
    "pyproject.toml",
    "README.md",
    "LICENSE",
)
# A detector so small that training and testing take seconds.
TINY = """
_BASE_: mini_faster_rcnn_r18.yaml
MODEL: {FPN: {OUT_CHANNELS: 16}, ROI_BOX_HEAD: {FC_DIM: 32}}
INPUT: {MIN_SIZE_TRAIN: [64], MIN_SIZE_TEST: 64}
SOLVER: {IMS_PER_BATCH: 2, REFERENCE_BATCH_SIZE: 2, MAX_ITER: 2, WARMUP_ITERS: 0, STEPS: []}
DATALOADER: {NUM_WORKERS: 0}
DATASETS: {TEST: []}
"""


def pip(*arguments: object) -> None:
    """Run pip of these tests' interpreter, without any index."""
    command = [sys.executable, "-m", "pip", *map(str, arguments), "--quiet", "--no-deps", "--no-index"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def build(folder: Path) -> Path:
    """Build the wheel from a copy, so that the checkout stays as it is."""
    source = folder / "source"
    for part in PARTS:
        copy = shutil.copytree if (ROOT / part).is_dir() else shutil.copy
        source.mkdir(exist_ok=True)
        copy(ROOT / part, source / part)
    pip("wheel", "--no-build-isolation", "--wheel-dir", folder, source)
    shutil.rmtree(source)
    return next(folder.glob("*.whl"))


def install(wheel: Path, folder: Path) -> Path:
    """Install the wheel into a fresh environment that reuses the packages of this one; return its commands' folder."""
    venv.create(folder, with_pip=False, symlinks=os.name != "nt")
    bin_folder = folder / ("Scripts" if os.name == "nt" else "bin")
    pip("--python", bin_folder / "python", "install", wheel)
    packages = next(folder.rglob("site-packages"))
    # Folders on a .pth line are not searched for further .pth files: the checkout's editable install is not seen.
    ours = [place for place in sys.path if Path(place).name in ("site-packages", "dist-packages")]
    (packages / "tested.pth").write_text("\n".join(ours) + "\n")
    return bin_folder


def test_a_wheel_trains_and_predicts_outside_of_the_checkout(tmp_path):
    version = tuple(map(int, importlib.metadata.version("setuptools").split(".")[:2]))
    if version < (70, 1):
        pytest.skip("building a wheel needs setuptools 70.1 or newer; `make env` brings it")
    wheel = build(tmp_path)
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        metadata = archive.read(f"resnet_detection-{backbone.__version__}.dist-info/METADATA").decode()
    modules = {f"resnet_detection/{command.module}.py" for command in COMMANDS.values()}
    configs = {f"resnet_detection/{path.relative_to(ROOT).as_posix()}" for path in ROOT.glob("configs/**/*.yaml")}
    assert modules | configs | {"backbone/networks/winograd/kernels.cpp"} <= names
    assert not [
        name
        for name in names
        if re.match(r"benchmarks/|tests/|tools/|.*/(benchmark|install_mmdetection|make_env)\.py", name)
    ]
    core = {re.split(r"[<>=]", line)[0] for line in re.findall(r"^Requires-Dist: ([^;\n]+)$", metadata, re.M)}
    assert core == {"torch", "torchvision", "numpy", "safetensors"}
    extras = {"demo", "detection", "export", "figures", "fast", "mlflow", "test", "wandb"}
    assert set(re.findall(r"^Provides-Extra: (.+)$", metadata, re.M)) == extras

    commands = install(wheel, tmp_path / "env")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | {"OMP_NUM_THREADS": "1"}

    def call(*arguments: str, status: int = 0) -> str:
        """Run the command; return what it printed, or its one line of error."""
        command = [str(commands / "resnet-detection"), *arguments]
        done = subprocess.run(
            command, cwd=elsewhere, env=environment, capture_output=True, text=True, timeout=200, check=False
        )
        assert done.returncode == status, done.stdout[-2000:] + done.stderr[-2000:]
        if status:
            assert done.stderr.count("\n") == 1
        return done.stderr if status else done.stdout

    assert call("--version").split() == ["resnet-detection", backbone.__version__]
    listed = call("--help")
    assert all(re.search(rf"^  {name} ", listed, re.M) for name in COMMANDS)
    assert "tools/" not in call("install-detectron2", "--help")

    # A config of one's own stands on a shipped one, which has bases of its own.
    (elsewhere / "tiny.yaml").write_text(TINY)
    call("train", "--config", "tiny.yaml", "--device", "cpu", "--output-dir", "run")
    results = json.loads((elsewhere / "run" / "results.json").read_text())
    assert results["command"].startswith("resnet-detection train --config tiny.yaml ")
    cv2.imwrite(str(elsewhere / "photo.jpg"), np.full((60, 80, 3), 128, np.uint8))
    call("predict", "--weights", "run/model_final.pth", "--input", "photo.jpg", "--output", "found", "--device", "cpu")
    assert (elsewhere / "found" / "predictions.json").is_file()

    # An error names the command that is there.
    assert call("train", "--config", "mini_faster_rcn_r18.yaml", status=2) == (
        "resnet-detection train: error: no config file 'mini_faster_rcn_r18.yaml' here or in configs/; "
        "did you mean 'mini_faster_rcnn_r18.yaml'?\n"
    )
