"""A trained detector by path or name, for the engine that runs it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from backbone import ConfigError
from backbone.common.text import nearest
from backbone.engine import checkpoint

from .detector import Detector, load_trained_detector
from .exported import ENGINES_OF, OPENERS, open_exported

# What computes a detector. torch runs checkpoints, the others exported files.
ENGINES = ("torch", *OPENERS)


def load(
    path_or_name: str | Path,
    device: str | None,
    precision: str,
    engine: str | None,
    *,
    config: str | Path | None,
    overrides: Sequence[object],
) -> Detector:
    """See `detection.load`."""
    suitable = ENGINES_OF.get(Path(path_or_name).suffix.lower(), ("torch",))
    engine = suitable[0] if engine is None else engine
    if engine not in ENGINES:
        raise ConfigError(f"engine is {engine!r}; it may be {', '.join(ENGINES)}{nearest(engine, ENGINES)}")
    if engine not in suitable:
        how = "; tools/export_detector.py writes files for the others" if suitable == ("torch",) else ""
        raise ConfigError(f"{path_or_name}: runs in {' or '.join(suitable)}, not in {engine}{how}")
    if engine != "torch":
        if config is not None:
            raise ConfigError(f"--config {config}: {path_or_name} carries its own config")
        return open_exported(Path(path_or_name), engine, device, precision, overrides)
    given = ["TEST.PRECISION", precision] if precision != "float32" else []
    return load_trained_detector(checkpoint.in_folder(path_or_name), device, [*given, *overrides], config)
