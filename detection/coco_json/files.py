"""A JSON file on disk: read whatever wrote it, or what is wrong with it in a word and a sentence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

import orjson

from backbone.common.files import write_whole
from backbone.common.reading import read_bytes

# What people have in place of a JSON file or an image, by its first bytes.
MISTAKEN = {
    b"version https://git-lfs": "a Git LFS pointer (git lfs pull fetches the file)",
    b"\x1f\x8b": "gzip data (unpack it first)",
    b"PK\x03\x04": "a ZIP archive (unpack it first)",
    b"<": "HTML or XML, perhaps the page of a failed download",
}
# What is wrong with a file as such -> what to do.
MENDS = {
    "empty-file": "fetch or export the annotations again: the file has no content",
    "truncated-json": "fetch or export the annotations again: the file stops in the middle",
    "not-json": "give the annotations as JSON text in UTF-8",
    "byte-order-mark": "nothing to do here, but other readers stop; --fix writes UTF-8 without a byte order mark",
    "nan-literal": "JSON knows no NaN or Infinity; --fix writes null or drops the record",
}


class Problem(NamedTuple):
    """What is wrong with a file: a key of MENDS, and where, in words."""

    kind: str
    example: str


def read_json(path: Path) -> tuple[object, list[Problem]]:
    """Read a JSON file.

    Returns:
        The value (None when it cannot be read) and the problems of the file as such.

    Raises:
        DataError: there is no such file, or it cannot be opened.
    """
    content = read_bytes(path)
    try:
        return orjson.loads(content), []
    except orjson.JSONDecodeError:
        return _read_unusual(content, str(path))


def _read_unusual(content: bytes, source: str) -> tuple[object, list[Problem]]:
    """Read what orjson refuses; Python's reader takes NaN and other encodings, and says where text is wrong."""
    if not content.strip(b" \t\r\n\0"):
        return None, [Problem("empty-file", f"{source}: {len(content):,} bytes, none of them text")]
    literals: list[str] = []
    try:
        value = json.loads(content, parse_constant=lambda literal: literals.append(literal) or float(literal))
    except json.JSONDecodeError as error:
        return None, [_syntax_error(error, content, source)]
    except UnicodeDecodeError:
        return None, [Problem("not-json", f"{source}: {describe_bytes(content)}")]
    except RecursionError:
        return None, [Problem("not-json", f"{source}: lists or objects nested too deeply")]
    except ValueError:
        return None, [Problem("not-json", f"{source}: a number with thousands of digits")]
    problems = [Problem("nan-literal", f"{source}: {literal}") for literal in literals]
    if content.startswith((b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")):
        problems.append(Problem("byte-order-mark", f"{source}: begins with {content[:3].hex(' ')}"))
    return value, problems


def _syntax_error(error: json.JSONDecodeError, content: bytes, source: str) -> Problem:
    text = error.doc.rstrip()
    cut = text[:1] in ("{", "[") and (error.pos >= len(text) or text[-1] not in "}]")
    place = f"line {error.lineno}, column {error.colno}: {error.msg}"
    if cut:
        return Problem("truncated-json", f"{source}: ends after {len(content):,} bytes, inside a value ({place})")
    return Problem("not-json", f"{source}: {place}; {describe_bytes(content)}")


def describe_bytes(content: bytes) -> str:
    """Say what a file seems to be that is not what it should be."""
    start = content[:64].lstrip()
    for prefix, meaning in MISTAKEN.items():
        if start.startswith(prefix):
            return f"it looks like {meaning}"
    return f"it begins with {bytes(content[:16])!r}"


def write_json(value: object, path: Path) -> None:
    """Write JSON in UTF-8 so that the file is there whole or not at all.

    Raises:
        RunError: the file cannot be written.
    """
    try:
        content = orjson.dumps(value)
    except TypeError:
        # Integers beyond 64 bits and lone surrogates, in keys that no check looks at.
        content = json.dumps(value).encode()
    write_whole(path, lambda temporary: temporary.write_bytes(content))
