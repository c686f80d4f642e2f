"""Checkpoints of a run: written whole, the newest few and the best kept, read without running anything in them."""

from __future__ import annotations

import contextlib
import random
import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..common.errors import RunError, WeightsError
from ..common.files import checked_file, write_text, write_whole
from ..weights import read_file
from ..weights.shards import file_in

POINTER = "last_checkpoint"
BEST = "model_best.pth"
FINAL = "model_final.pth"
DAMAGED = "damaged"
# What a checkpoint's values are, where it has them.
KINDS = {
    **dict.fromkeys(("model", "metadata", "optimizer", "scaler", "schedule", "task"), (dict, "dict")),
    **dict.fromkeys(("best", "rng"), (list, "list")),
    "iteration": (int, "whole number"),
}
PATTERN = re.compile(r"model_(\d{7,})\.pth")


def save(path: str | Path, content: dict[str, Any]) -> None:
    """Write `content` with torch.save, whole.

    Raises:
        RunError: it cannot be written; a former file of that name is untouched.
    """

    def write(temporary: Path) -> None:
        with checked_file(temporary) as file:
            torch.save(content, file)

    write_whole(path, write)


def load(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint; raises WeightsError if it is missing, broken, unsafe or no checkpoint."""
    content, _ = read_file(path)
    return checked(content, path)


def in_folder(path: str | Path) -> str | Path:
    """Return the best weights of a run folder; of another folder its only weights; of anything else, itself.

    Raises:
        WeightsError: a folder that has none, or several that are no run's.
    """
    if not Path(path).is_dir():
        return path
    for name in (BEST, FINAL):
        if (file := Path(path, name)).is_file():
            return file
    with contextlib.suppress(WeightsError):
        return file_in(Path(path))
    raise WeightsError(f"{path}: a folder without {BEST} and {FINAL}; give a checkpoint")


def checked(content: Any, path: str | Path) -> dict[str, Any]:
    """Return what a file holds; raises WeightsError if it is no checkpoint of this project."""
    if not isinstance(content, dict) or "model" not in content:
        raise WeightsError(f"{path}: not a checkpoint of this project (it has no `model`)")
    for key, (kind, words) in KINDS.items():
        if not isinstance(content.get(key, kind()), kind):
            raise WeightsError(f"{path}: not a checkpoint of this project (its `{key}` is no {words})")
    best, metadata = content.get("best", [0, 0]), content.get("metadata", {})
    wrong = [
        *(["best"] if not (len(best) == 2 and all(isinstance(value, (int, float)) for value in best)) else []),
        *(["model"] if not all(isinstance(name, str) for name in content["model"]) else []),
        *(key for key in ("classes", "category_ids") if not isinstance(metadata.get(key) or [], (list, tuple))),
    ]
    if wrong:
        raise WeightsError(f"{path}: not a checkpoint of this project (what its `{wrong[0]}` holds is of another type)")
    return content


def is_whole(path: Path) -> bool:
    """Whether the bytes of a checkpoint are those that were written, by the check sums in it; torch looks at none."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except Exception:  # whatever a damaged file makes its reader raise
        return False


def set_aside(folder: str | Path, iteration: int) -> None:
    """Give checkpoints behind `iteration`, which are damaged, another name: none may be taken for the newest."""
    for number, path in numbered(folder):
        if number > iteration:
            path.replace(path.with_name(f"{path.name}.{DAMAGED}"))


def numbered(folder: str | Path) -> list[tuple[int, Path]]:
    """Return (iteration, path) of the numbered checkpoints in a run folder, oldest first."""
    found = [(PATTERN.fullmatch(path.name), path) for path in Path(folder).glob("model_*.pth")]
    return sorted((int(match[1]), path) for match, path in found if match)


def newest(folder: str | Path) -> Path | None:
    """Return the newest checkpoint of a run, or None."""
    checkpoints = numbered(folder)
    return checkpoints[-1][1] if checkpoints else None


def save_numbered(folder: str | Path, iteration: int, content: dict[str, Any], keep: int) -> Path:
    """Write the checkpoint after `iteration` steps, then remove all but the newest `keep` (at least one)."""
    path = Path(folder) / f"model_{iteration:07d}.pth"
    save(path, content)
    write_text(Path(folder) / POINTER, path.name)
    for _, old in numbered(folder)[: -max(1, keep)]:
        old.unlink(missing_ok=True)
    return path


def rng_state() -> dict[str, Any]:
    """Return the state of this process's random generators, in types that a safe reader takes."""
    name, keys, position, has_gauss, cached = np.random.get_state()  # noqa: NPY002
    version, internal, gauss = random.getstate()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_available() and torch.cuda.is_initialized() else None,
        "numpy": [name, torch.from_numpy(keys.astype(np.int64)), position, has_gauss, cached],
        "python": [version, list(internal), gauss],
    }


def set_rng_state(state: dict[str, Any]) -> None:
    """Put back what `rng_state` returned.

    Raises:
        RunError: it is of another form.
    """
    try:
        torch.set_rng_state(state["torch"])
        if state["cuda"] is not None and torch.cuda.is_available():
            torch.cuda.set_rng_state(state["cuda"])
        name, keys, position, has_gauss, cached = state["numpy"]
        np.random.set_state((name, keys.numpy().astype(np.uint32), position, has_gauss, cached))  # noqa: NPY002
        version, internal, gauss = state["python"]
        random.setstate((version, tuple(internal), gauss))
    except (TypeError, ValueError, KeyError, AttributeError, RuntimeError, OverflowError) as error:
        raise RunError(f"the checkpoint's `rng` is no state of random generators: {error}") from None


def seed_everything(seed: int) -> None:
    """Seed Python's, numpy's and torch's global generators."""
    if not 0 <= seed < 2**32:
        raise RunError(f"--seed must be 0 to {2**32 - 1}, not {seed}")
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 (detectron2 draws from the global generator)
    torch.manual_seed(seed)
