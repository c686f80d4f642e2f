"""Which task the network in a weights file is of."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..common.errors import UserError, WeightsError
from ..exporting import load_exported
from ..weights import find_state_dict, interpret, read_file
from ..weights.identify import CLASSIFIERS
from . import checkpoint

DETECTION, SEGMENTATION, CLASSIFICATION, LOCALIZATION = "detection", "segmentation", "classification", "localization"
# What the metadata of our checkpoints has in one task alone.
MARKS = {
    "category_ids": DETECTION,
    # Before output_stride, which the backbones of all tasks have.
    "mean_image": CLASSIFICATION,
    "kind": LOCALIZATION,
    "output_stride": SEGMENTATION,
}
TOOLS = {
    DETECTION: "tools/train_net.py",
    SEGMENTATION: "tools/train_segmentation.py",
    CLASSIFICATION: "tools/pretrain.py",
    LOCALIZATION: "tools/train_localization.py",
}
# Parts that the tensors of another project's segmentation network are named by: a backbone and one of these.
HEADS = ("classifier.", "decode_head.")
EXPORTED = (".onnx", ".xml")


def task_of(path: str | Path) -> str:
    """Return the task of the network in a checkpoint, a run folder, an exported file or a file of another project.

    It is detection where nothing says another: the loader of detectors says what is wrong with a file.
    """
    try:
        if Path(path).suffix.lower() in EXPORTED:
            return SEGMENTATION if load_exported(path).metadata.get("task") == SEGMENTATION else DETECTION
        content, text = read_file(checkpoint.in_folder(path))
        known = task_in(content) or _of_names(find_state_dict(content, str(path)))
        if known:
            return known
        tensors = interpret(content, text, path).tensors
        return CLASSIFICATION if any(name in tensors for name in CLASSIFIERS) else DETECTION
    except UserError:
        return DETECTION


def task_in(content: Any) -> str:
    """Return the task of a checkpoint of ours; "" of anything else."""
    metadata = content.get("metadata") if isinstance(content, Mapping) else None
    return next((task for mark, task in MARKS.items() if isinstance(metadata, Mapping) and mark in metadata), "")


def refuse_others(content: Any, path: str | Path, task: str) -> None:
    """Raise WeightsError for a checkpoint of ours that is of another task than `task`."""
    other = task_in(content)
    if other not in ("", task):
        raise WeightsError(f"{path}: is a network for {other}, not for {task}; {TOOLS[other]} trains and tests it")


def _of_names(names: Any) -> str:
    """Return the task that the tensors' names show, "" where they may be of several."""
    parts = [name.removeprefix("module.") for name in names]
    segments = any(name.startswith("backbone.") for name in parts) and any(name.startswith(HEADS) for name in parts)
    return SEGMENTATION if segments else ""
