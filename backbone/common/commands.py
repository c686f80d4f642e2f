"""The commands and what they need, as their user types it: in a checkout tools/NAME.py, from a wheel one command with
subcommands. Imports nothing but Python's own modules, so that the list of commands is there at once."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import NamedTuple

PROGRAM = "resnet-detection"
HOME = Path(__file__).resolve().parents[2]
# A wheel lays the folders tools/ and configs/ into this package, beside `backbone`. A checkout has none of that name.
PACKAGE = HOME / "resnet_detection"
INSTALLED = PACKAGE.is_dir()
TOOLS = PACKAGE if INSTALLED else HOME / "tools"
CONFIGS = PACKAGE / "configs" if INSTALLED else HOME / "configs"


class Command(NamedTuple):
    """A subcommand: the module of tools/ behind it, and what it does."""

    module: str
    summary: str


COMMANDS = {
    "train": Command("train_net", "train and evaluate a detector from a config"),
    "find-lr": Command("find_lr", "find a learning rate for a training: the loss while the rate grows"),
    "runs": Command("runs", "compare runs: figures, keys that differ, worst classes, curves"),
    "evaluate": Command("evaluate", "evaluate predictions with the figures of COCO or PASCAL VOC"),
    "predict": Command("predict", "run a trained detector, segmentation network or classifier on images"),
    "demo": Command("demo", "show a detector in the browser, and answer HTTP with JSON"),
    "pretrain": Command("pretrain", "train and test a classifier on ImageNet, CIFAR or images of your own"),
    "train-segmentation": Command("train_segmentation", "train and test a network for semantic segmentation"),
    "train-localization": Command("train_localization", "train and test a network that localises an image's class"),
    "check-data": Command("check_data", "find every fault of a data set, and write a mended copy"),
    "convert-data": Command("convert_data", "convert a data set between COCO, YOLO and PASCAL VOC"),
    "weights": Command("weights", "list the trained weights that can be had by name"),
    "convert": Command("convert_weights", "convert weights to the names and the file of another project"),
    "export-backbone": Command("export_backbone", "write a backbone as ONNX, OpenVINO, TorchScript or torch.export"),
    "export-detector": Command("export_detector", "write a trained detector for another runtime"),
    "export-segmentation": Command("export_segmentation", "write a trained segmentation network as ONNX or OpenVINO"),
    "formats": Command("formats", "compare size, time and AP of the formats of a trained detector"),
    "analyze": Command("analyze", "show what a backbone costs: parameters, multiply-adds, memory, receptive field"),
    "reproduce": Command("reproduce", "run a table of the paper, and set measured beside published figures"),
    "config-keys": Command("config_keys", "list every config key with its default and its meaning"),
    "doctor": Command("doctor", "check the environment, and say how to mend it"),
    "install-detectron2": Command("install_detectron2", "install the Python part of detectron2, without a compiler"),
}
_NAMES = {command.module: name for name, command in COMMANDS.items()}
# The extra of setup.py that brings a module. Modules of the core are not here.
EXTRAS = {
    "detection": ("cv2", "fvcore", "hotcoco", "orjson", "pycocotools", "tensorboard", "tqdm", "yacs", "yaml"),
    "export": ("onnx", "onnxruntime", "onnxscript", "openvino"),
    "figures": ("matplotlib",),
    "fast": ("simplejpeg",),
    "demo": ("gradio",),
}


def as_typed(text: str) -> str:
    """Return the text with every command in it, written as tools/NAME.py, as the user types it here."""
    if not INSTALLED and Path(sys.argv[0]).name.split()[:1] != [PROGRAM]:
        return text
    return re.sub(r"(?:python )?\btools/(\w+)\.py\b", _subcommand, text)


def _subcommand(found: re.Match) -> str:
    name = _NAMES.get(found[1])
    return found[0] if name is None else f"{PROGRAM} {name}"


def command_line(tool: str) -> list[str]:
    """Return the words that start a file of tools/, such as "pretrain.py", in a process of its own."""
    if INSTALLED:
        return [sys.executable, str(TOOLS / "command.py"), _NAMES[tool.removesuffix(".py")]]
    return [sys.executable, str(TOOLS / tool)]


def how_to_install(module: str | None) -> str | None:
    """Return the line for a module that is not installed, where an extra of this project brings it."""
    top = (module or "").split(".")[0]
    if top == "detectron2":
        return as_typed("detectron2 is not installed; run `python tools/install_detectron2.py`")
    for extra, modules in EXTRAS.items():
        if top in modules:
            return f"{top} is not installed; run `{pip_line(extra)}`"
    return None


def pip_line(extra: str) -> str:
    """Return the command that installs an extra."""
    return f"pip install 'resnet-detection[{extra}]'"
