"""Detectors on the networks of `backbone`, built on detectron2. The only package that imports detectron2."""

from __future__ import annotations

from typing import TYPE_CHECKING

from backbone import __version__

from .compat import close_gaps, require_detectron2

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from detectron2.config import CfgNode

    from .inference.detector import Detector

__all__ = ["__version__", "get_config", "load", "register"]

# Before any module of this package imports detectron2. Imports nothing itself.
close_gaps()


def register() -> None:
    """Put every backbone, with and without FPN, and our heads into detectron2's registries. Harmless when repeated.

    Raises:
        RunError: detectron2 is not installed.
    """
    require_detectron2()
    from .modeling import register_all

    register_all()


def get_config(path_or_name: str | Path, overrides: Sequence[object] = ()) -> CfgNode:
    """Return the frozen detectron2 config of a YAML file.

    Args:
        path_or_name: a path, or a bare file name that is then looked for in configs/;
            `detectron2:COCO-Detection/faster_rcnn_R_50_C4_1x` and its like are those of detectron2's model zoo.
        overrides: KEY, VALUE, KEY, VALUE, ...; they win over the file.

    Raises:
        ConfigError: no such file, unsafe or broken YAML, or an unknown key or value; the message names the nearest.
        RunError: detectron2 is not installed.
    """
    register()
    from .config import load_config

    return load_config(path_or_name, overrides)


def load(
    path_or_name: str | Path,
    device: str | None = None,
    precision: str = "float32",
    engine: str = "torch",
    *,
    config: str | Path | None = None,
    overrides: Sequence[object] = (),
) -> Detector:
    """Return a trained detector, to be called with images.

    `detector("street.jpg")` takes a path, a PIL image, an array, a tensor or a list of them, and returns `Detections`:
    boxes (N, 4) XYXY in absolute pixels, scores, labels, class_names, masks, draw(), save(path), to_coco().

    Args:
        path_or_name: a checkpoint of tools/train_net.py or the run folder that it is in, a file of detectron2, a name
            such as `detectron2:COCO-Detection/faster_rcnn_R_50_FPN_3x`, or a URL.
        device: "cpu", "cuda" or "cuda:1"; a GPU by default, if there is one.
        precision: "float32", "bfloat16" or "float16", as TEST.PRECISION.
        engine: what computes it: "torch".
        config: for weights of detectron2 that no config of its zoo describes, as of `get_config`.
        overrides: KEY, VALUE, ... such as "TEST.FLIP", True.

    Raises:
        WeightsError: no such weights, or they carry no config and classes.
        ConfigError: an unknown engine or precision, or a config or override that is wrong.
        RunError: the device is not there, or detectron2 is not installed.
    """
    register()
    from .inference.opening import load

    return load(path_or_name, device, precision, engine, config=config, overrides=overrides)
