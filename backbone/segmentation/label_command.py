"""What tools/evaluate.py does with label images."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator
from typing import Any

from ..common.errors import ConfigError
from ..common.files import write_json
from ..common.text import count
from ..engine.config import merge_overrides
from .comparing import compare
from .config import check_values, default_config

# Flags of boxes.
OTHERS = ("iou_type", "max_detections", "keypoint_sigmas", "metric", "submission", "score")


def evaluate_labels(arguments: Namespace) -> Iterator[str]:
    """Compare label images; yield the tables and what was noticed, and write figures and page where they are asked for.

    Raises:
        ConfigError: a flag that is for boxes, or a wrong key.
        DataError: as `comparing.compare`.
    """
    _check(arguments)
    names = [name.strip() for name in (arguments.classes or "").split(",") if name.strip()]
    # One name alone is that of a file.
    data = data_of(arguments.overrides, names.pop() if len(names) == 1 else "")
    truth, part = arguments.gt, "val"
    if arguments.voc_root is not None:
        truth, part = arguments.voc_root, arguments.split
    result = compare(
        truth,
        arguments.predictions,
        data,
        part=part,
        classes=names,
        images=arguments.images,
        same_form=arguments.same_numbers,
    )
    where = f"{arguments.predictions} on {truth}"
    yield f"{where}: {count(len(result.scores), 'image')}\n\n{result.table(result.truth.name)}\n"
    for note in result.notes:
        yield f"note: {note}"
    if arguments.report is not None:
        result.write_page(arguments.report, f"Segmentation errors: {arguments.predictions.name} on {truth.name}")
        yield f"report: {arguments.report}"
    if arguments.json is not None:
        write_json(arguments.json, result.to_json())
        yield f"figures: {arguments.json}"


def data_of(overrides: list[str], class_file: str = "") -> Any:
    """Return DATA of a config with KEY, VALUE, ... that say what label files hold.

    Raises:
        ConfigError: a key or value is wrong, or of another section.
    """
    config = default_config()
    config.DATA.CLASSES = class_file
    keys = merge_overrides(config, overrides)
    wrong = [key for key in keys if not key.startswith("DATA.")]
    if wrong:
        raise ConfigError(f"{wrong[0]}: says nothing of label images; the keys of DATA do, such as DATA.ID_MAP")
    check_values(config, "command line")
    return config.DATA


def _check(arguments: Namespace) -> None:
    wrong = [name for name in OTHERS if getattr(arguments, name) is not None]
    wrong += ["engine"] if arguments.engine != "auto" else []
    if wrong:
        flag = wrong[0].replace("_", "-")
        raise ConfigError(f"--{flag} is for boxes; {arguments.predictions} is label images")
    if arguments.voc_root is not None and arguments.split is None:
        raise ConfigError("--voc-root needs --split, such as --split val")
    if arguments.images is not None and arguments.report is None:
        raise ConfigError("--images belongs to the page of errors; give --report OUT too")
