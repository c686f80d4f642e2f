"""The images that a run holds out of its training set to test on, as its folder records them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..common.errors import ConfigError, DataError
from ..common.reading import read_bytes

# Of the run folder: the images on either side of the share that is held out.
SPLIT_FILE = "split.json"


def check_share(share: float, *, train: bool, val: bool) -> None:
    """Raise ConfigError where --split does not fit beside the sets that are given."""
    if not train or val:
        raise ConfigError("--split holds out a share of --train; give --train, and --val or --split")
    if not 0 < share < 1:
        raise ConfigError(f"--split {share:g} is no share of the images; give one between 0 and 1, such as 0.1")


def read_held_out(folder: Path) -> list[str] | None:
    """Return the images that a run in `folder` holds out; None where it has not chosen any.

    Raises:
        DataError: its record is damaged.
    """
    path = folder / SPLIT_FILE
    if not path.is_file():
        return None
    try:
        record = json.loads(read_bytes(path))
    except ValueError:
        record = None
    names = record.get("val") if isinstance(record, dict) else None
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise DataError(f"{path}: is damaged: no list 'val' of file names; --overwrite starts the run anew")
    return names


def split_record(train: Sequence[str], val: Sequence[str], share: float, seed: int) -> dict[str, Any]:
    """Return what SPLIT_FILE holds."""
    return {"share": share, "seed": seed, "train": list(train), "val": list(val)}
