"""What a run goes on from, and whether it may: same config, same classes, a whole checkpoint, on all machines."""

from __future__ import annotations

import os
import socket
import zipfile
import zlib
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from ..common.errors import ConfigError, DataError, RunError
from ..common.text import some
from . import checkpoint, distributed
from .config import differences, get, read_yaml, to_plain
from .record import CONFIG
from .request import Request

# Keys that a resumed run may have otherwise: they change neither weights nor numbers.
FREE_KEYS = {
    "OUTPUT_DIR",
    "LOGGERS",
    "DATALOADER.NUM_WORKERS",
    "MODEL.DEVICE",
    "SOLVER.CHECKPOINTS_TO_KEEP",
    "SOLVER.LOG_PERIOD",
    "SOLVER.CHECKPOINT_PERIOD",
}


def checkpoint_to_resume(
    request: Request, config: Any, free: Collection[str], classes: Sequence[str], defaults: Any
) -> tuple[Path | None, list[str]]:
    """Return the checkpoint that the run goes on from, if any, and notes for the plan. A collective call.

    Args:
        config: as it will run; it may differ from the request's by what follows from data and batch.
        free: keys that may have changed, beside FREE_KEYS.
        classes: of the data, in order.
        defaults: the config that nobody has set anything in.

    Raises:
        ConfigError: the config is not the one that the run began with, and --force was not given.
        DataError: nor are the classes.
        RunError: all checkpoints are damaged.
    """
    if not request.resume:
        return None, []
    folder = request.folder
    notes = check_unchanged(config, folder, FREE_KEYS | set(free), defaults, force=request.force)
    saved, damaged = distributed.share(_newest_whole(folder) if distributed.is_main() else None)
    if damaged:
        names = ", ".join(path.name for path in damaged)
        if saved is None:
            raise RunError(f"{folder}: the bytes of every checkpoint are damaged ({names}); --overwrite starts anew")
        notes.append(
            f"{names}: damaged (its check sums are wrong), set aside; {saved.name} is the newest that is whole"
        )
    if saved is None:
        notes.append(f"{folder} holds no checkpoint to resume from: a new run")
        return None, notes
    return saved, [*notes, *check_classes(saved, classes, force=request.force)]


def _newest_whole(folder: Path) -> tuple[Path | None, list[Path]]:
    """Return the newest checkpoint that is whole, and the damaged ones that are newer."""
    damaged = []
    for _, path in reversed(checkpoint.numbered(folder)):
        if checkpoint.is_whole(path):
            return path, damaged
        damaged.append(path)
    return None, damaged


def check_unchanged(config: Any, folder: Path, free: Collection[str], defaults: Any, *, force: bool) -> list[str]:
    """Compare with the config that the run was started with; return notes for the plan on what is let pass.

    Keys that the run's version did not have yet pass at their defaults.

    Raises:
        ConfigError: another key has changed, and it is not forced.
    """
    path = folder / CONFIG
    if not path.is_file():
        return []
    before, now, defaults = read_yaml(path), to_plain(config), to_plain(defaults)
    changed = [key for key in differences(before, now) if key not in free]
    changed = [key for key in changed if not _same_paths(_value(before, key), _value(now, key))]
    new = [key for key in changed if _value(before, key) is None and _value(now, key) == _value(defaults, key)]
    changed = [key for key in changed if key not in new]
    notes = [f"keys that the run's version did not have, at their defaults: {some(new)}"] if new else []
    if not changed:
        return notes
    if not force:
        raise ConfigError(
            f"{folder}: the config has changed since the run began: {some(changed)}; --force resumes all the same"
        )
    return [*notes, f"resumed with a changed config (--force): {some(changed)}"]


def _value(config: dict[str, Any], key: str) -> Any:
    try:
        return get(config, key)
    except (AttributeError, KeyError):
        return None


def _same_paths(first: Any, second: Any) -> bool:
    """Whether two values spell the same paths."""
    if isinstance(first, list) and isinstance(second, list):
        return len(first) == len(second) and all(map(_same_paths, first, second))
    if not (isinstance(first, str) and isinstance(second, str) and first and second):
        return first == second
    first, second = (os.path.realpath(os.path.expanduser(path)) for path in (first, second))
    return first == second or (os.path.exists(first) and os.path.exists(second) and os.path.samefile(first, second))


def check_classes(saved: Path, classes: Sequence[str], *, force: bool) -> list[str]:
    """Compare the classes that a checkpoint learned with the data's; return a note where --force lets others pass.

    Raises:
        DataError: they differ, in names or order; with --force, in their number.
    """
    learned = checkpoint.load(saved).get("metadata", {}).get("classes")
    if not isinstance(learned, (list, tuple)) or list(learned) == list(classes):
        return []
    if len(learned) != len(classes):
        raise DataError(f"{saved}: the run has learned {len(learned)} classes, the data has {len(classes)}")
    pairs = [f"{old!r} is {new!r} now" for old, new in zip(learned, classes) if old != new]
    shown = f"{', '.join(pairs[:3])}{', ...' if len(pairs) > 3 else ''}"
    if not force:
        raise DataError(f"{saved}: the classes have changed since the run began: {shown}; --force resumes all the same")
    return [f"resumed with changed classes (--force): {shown}"]


def check_same_everywhere(folder: Path) -> None:
    """Check that all processes find the same run in the folder. A collective call.

    Raises:
        RunError: on some machine it is another one, or none: the folder is not shared.
    """
    found = distributed.gather((socket.gethostname(), _inside(folder)))
    (first_host, expected), *others = found
    for rank, (host, names) in enumerate(others, 1):
        if names != expected:
            ours, theirs = (names[-1] if names else "no checkpoint" for names in (expected, names))
            raise RunError(
                f"{folder}: process {rank} (on {host}) finds {theirs}, process 0 (on {first_host}) {ours}; "
                "--resume needs a run folder that all machines share, or the same copy on each"
            )


def _inside(folder: Path) -> list[str]:
    """Return the run's checkpoints, those of its parts too, oldest first, the newest with a mark of its content."""
    paths = sorted((path for path in folder.rglob("model_*.pth")), key=lambda path: (path.name, str(path)))
    numbered = [path for path in paths if checkpoint.PATTERN.fullmatch(path.name)]
    return [f"{path.relative_to(folder)} ({_mark(path)})" for path in numbered]


def _mark(path: Path) -> str:
    """Return a short mark of a checkpoint's content, from the check sums in it."""
    try:
        with zipfile.ZipFile(path) as archive:
            sums = "".join(f"{item.filename}{item.CRC}" for item in archive.infolist())
    except Exception:  # whatever a damaged file makes its reader raise
        return "damaged"
    return f"{zlib.crc32(sums.encode()):08x}"
