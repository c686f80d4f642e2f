"""Weights in several files with an index, as transformers writes them, and the weights file of a folder."""

from __future__ import annotations

import json
from pathlib import Path

from ..common.errors import WeightsError

INDEX = ".index.json"
# Of a folder that a library wrote, in the order in which it reads them itself.
NAMES = ("model.safetensors", f"model.safetensors{INDEX}", "pytorch_model.bin", f"pytorch_model.bin{INDEX}")
SUFFIXES = (".pth", ".pt", ".th", ".tar", ".bin", ".ckpt", ".safetensors", ".pkl", ".npz", ".caffemodel")
LARGEST = 2**24  # bytes of an index


def file_in(path: Path) -> Path:
    """Return the weights file, or the index of several, that a path means: itself, or the one in a folder.

    Raises:
        WeightsError: it is a folder without a weights file, or with several.
    """
    if not path.is_dir():
        return path
    known = next((path / name for name in NAMES if (path / name).is_file()), None)
    if known is not None:
        return known
    found = sorted(entry.name for entry in path.iterdir() if entry.suffix in SUFFIXES and entry.is_file())
    if len(found) == 1:
        return path / found[0]
    if found:
        shown = ", ".join(found[:5]) + (", ..." if len(found) > 5 else "")
        raise WeightsError(f"{path}: a folder of {len(found)} weights files ({shown}); give one of them")
    raise WeightsError(f"{path}: a folder, not a weights file, and none is in it")


def shards_of(index: Path) -> dict[str, list[str]]:
    """Return the names of tensors that an index says are in each file beside it.

    Raises:
        WeightsError: it is no index, or a file of it is missing or elsewhere.
    """
    try:
        if index.stat().st_size > LARGEST:
            raise ValueError("it is too large")
        weight_map = json.loads(index.read_bytes())["weight_map"]
        found: dict[str, list[str]] = {}
        for name, shard in weight_map.items():
            found.setdefault(shard, []).append(name)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise WeightsError(f"{index}: not an index of weights files: {str(error)[:80]}") from None
    if not found:
        raise WeightsError(f"{index}: the index names no weights file")
    for shard in found:
        if not isinstance(shard, str) or Path(shard).name != shard or shard.endswith(INDEX):
            raise WeightsError(f"{index}: names {shard!r}, which is no weights file beside it")
        if not (index.parent / shard).is_file():
            raise WeightsError(f"{index}: its file {shard} is missing; copy all {len(found)} files of it")
    return found
