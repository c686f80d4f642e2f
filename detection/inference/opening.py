"""A trained detector by path or name, for the engine that runs it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from backbone import ConfigError, WeightsError
from backbone.common.text import nearest
from backbone.engine import checkpoint

from .detector import Detector, load_trained_detector

# What computes a detector. An engine that reads files of its own suffixes is entered here, and opened in `load`.
ENGINES = ("torch",)
# Files of other engines, by suffix.
EXPORTED = {".onnx": "onnxruntime", ".xml": "openvino"}


def load(
    path_or_name: str | Path,
    device: str | None,
    precision: str,
    engine: str,
    *,
    config: str | Path | None,
    overrides: Sequence[object],
) -> Detector:
    """See `detection.load`."""
    if engine not in ENGINES:
        raise ConfigError(f"engine is {engine!r}; it may be {', '.join(ENGINES)}{nearest(engine, ENGINES)}")
    if wanted := EXPORTED.get(Path(path_or_name).suffix.lower()):
        raise WeightsError(f"{path_or_name}: a file for {wanted}; give the checkpoint (.pth) that it was exported from")
    given = ["TEST.PRECISION", precision] if precision != "float32" else []
    return load_trained_detector(_in_folder(path_or_name), device, [*given, *overrides], config)


def _in_folder(path: str | Path) -> str | Path:
    """Return the best weights of a run folder; of anything else, itself."""
    if not Path(path).is_dir():
        return path
    for name in (checkpoint.BEST, checkpoint.FINAL):
        if (file := Path(path, name)).is_file():
            return file
    raise WeightsError(f"{path}: a folder without {checkpoint.BEST} and {checkpoint.FINAL}; give a checkpoint")
