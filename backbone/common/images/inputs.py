"""The image files that a command is given, and the pictures that it writes of them."""

from __future__ import annotations

import glob
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from pathlib import Path

from ..errors import DataError
from ..reading import decode_text, lines_of, read_lines
from .find import is_bands_name, is_image_name, walk_files

LISTS = (".txt", ".lst")


def find_inputs(pattern: str, output: Path, ending: str, flag: str = "--input") -> list[Path]:
    """Return the image files that `pattern` names, as `files_of` finds them, in order, each once.

    Args:
        output, ending: pictures of this ending that an earlier call has put into `output` are left out.
        flag: that gave the pattern.

    Raises:
        DataError: there are none.
    """
    files = [file for file, _ in files_of(pattern, is_image_name)]
    if is_searched(pattern):
        output = output.resolve()
        files = [f for f in files if not (f.name.endswith(ending) and f.resolve().is_relative_to(output))]
    if not files:
        raise nothing_found(pattern, flag)
    return sorted(set(files))


def nothing_found(pattern: str, flag: str = "--input") -> DataError:
    """Return the error about a pattern that names nothing."""
    if is_list(pattern):
        return DataError(f"{flag} {pattern}: this list names no file; write one a line")
    return DataError(f"{flag} {pattern!r}: no such image, folder with images, or pattern that finds any")


def is_list(pattern: str) -> bool:
    """Whether a pattern is a list of files, or standard input."""
    return pattern == "-" or (os.path.isfile(pattern) and Path(pattern).suffix.lower() in LISTS)


def is_searched(pattern: str) -> bool:
    """Whether a pattern is a folder or a glob, rather than a file, a list or standard input."""
    return pattern != "-" and not os.path.isfile(pattern)


def files_of(pattern: str, wanted: Callable[[str], bool]) -> Iterator[tuple[Path, str]]:
    """Yield the files that `pattern` names, in order: a file, a folder (searched through), a glob, or a list of these
    (.txt, .lst, or - for standard input); and, of a line of a list that names none, what is wrong.

    Args:
        wanted: whether a name is wanted, of the files in a folder.
    """
    if is_list(pattern):
        yield from _of_list(pattern, _lines_of(pattern), Path(pattern).parent, wanted)
    else:
        yield from ((file, "") for file in _of_name(pattern, wanted))


def _of_name(name: str, wanted: Callable[[str], bool]) -> Iterator[Path]:
    if os.path.isdir(name):
        files = walk_files(name, wanted)
        first = next(files, None)
        # As in `list_images`, arrays are images where there are no others.
        yield from walk_files(name, is_bands_name) if first is None else chain([first], files)
    elif os.path.isfile(name):
        yield Path(name)
    else:
        # Names below a common folder must not lead out of it.
        name = os.path.abspath(name) if ".." in Path(name).parts else name
        yield from sorted(Path(found) for found in glob.iglob(name, recursive=True) if os.path.isfile(found))


def _lines_of(pattern: str) -> list[str]:
    if pattern != "-":
        return read_lines(Path(pattern))
    try:
        return lines_of(decode_text(sys.stdin.buffer.read()))
    except UnicodeError as error:
        raise DataError(f"standard input (-), {error}") from None


def _of_list(
    source: str, lines: Iterable[str], folder: Path, wanted: Callable[[str], bool]
) -> Iterator[tuple[Path, str]]:
    """Yield the files of a list: paths from here, or from its own folder. Lines that begin with # are comments."""
    for number, line in enumerate(lines, 1):
        if not line or line.startswith("#"):
            continue
        ways = [line] if os.path.isabs(line) else [line, os.path.join(folder, line)]
        for way in ways:
            files = _of_name(way, wanted)
            if (first := next(files, None)) is not None:
                yield from ((Path(os.path.abspath(file)), "") for file in chain([first], files))
                break
        else:
            fault = "is an empty folder" if any(map(os.path.isdir, ways)) else "does not exist"
            yield Path(os.path.abspath(line)), f"{source}, line {number}: {line} {fault}"


def root_of(pattern: str, files: list[Path]) -> Path:
    """Return the folder that all `files` of a pattern are below."""
    return Path(pattern) if os.path.isdir(pattern) else Path(os.path.commonpath([file.parent for file in files]))


def picture_names(files: list[Path], root: Path, ending: str) -> list[Path]:
    """Return each file's picture below the output folder: its own name, with the suffix only where two would be one."""
    names = [file.relative_to(root) for file in files]
    often = Counter(name.with_suffix("") for name in names)
    return [name.with_name((name.stem if often[name.with_suffix("")] == 1 else name.name) + ending) for name in names]
