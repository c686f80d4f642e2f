"""Detectors on the networks of `backbone`, built on detectron2. The only package that imports detectron2."""

from __future__ import annotations

from typing import TYPE_CHECKING

from backbone import __version__

from .compat import close_gaps, require_detectron2

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from detectron2.config import CfgNode

__all__ = ["__version__", "get_config", "register"]

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
