"""The image files that a command is given, and the pictures that it writes of them."""

from __future__ import annotations

import glob
import os
from collections import Counter
from pathlib import Path

from ..errors import DataError
from .find import find_images


def find_inputs(pattern: str, output: Path, ending: str, flag: str = "--input") -> list[Path]:
    """Return the image files that `pattern` names: a file, a folder (searched through) or a glob, in order.

    Args:
        output, ending: pictures of this ending that an earlier call has put into `output` are left out.
        flag: that gave the pattern.

    Raises:
        DataError: there are none.
    """
    path = Path(pattern)
    if os.path.isdir(path):
        files = find_images(path)
    elif os.path.isfile(path):
        files = [path]
    else:
        files = [Path(name) for name in glob.glob(pattern, recursive=True) if os.path.isfile(name)]
    if not os.path.isfile(path):
        output = output.resolve()
        files = [f for f in files if not (f.name.endswith(ending) and f.resolve().is_relative_to(output))]
    if not files:
        raise DataError(f"{flag} {pattern!r}: no such image, folder with images, or pattern that finds any")
    return sorted(files)


def root_of(pattern: str, files: list[Path]) -> Path:
    """Return the folder that all `files` of a pattern are below."""
    return Path(pattern) if os.path.isdir(pattern) else Path(os.path.commonpath([file.parent for file in files]))


def picture_names(files: list[Path], root: Path, ending: str) -> list[Path]:
    """Return each file's picture below the output folder: its own name, with the suffix only where two would be one."""
    names = [file.relative_to(root) for file in files]
    often = Counter(name.with_suffix("") for name in names)
    return [name.with_name((name.stem if often[name.with_suffix("")] == 1 else name.name) + ending) for name in names]
