"""The JSON file and the image folder on disk."""

from __future__ import annotations

import json
import os
import posixpath
from pathlib import Path

import orjson

from backbone.common.errors import DataError
from backbone.common.files import write_whole

from .kinds import Fault, Findings, show
from .matching import Matcher

# What people have in place of a JSON file or an image, by its first bytes.
MISTAKEN = {
    b"version https://git-lfs": "a Git LFS pointer (git lfs pull fetches the file)",
    b"\x1f\x8b": "gzip data (unpack it first)",
    b"PK\x03\x04": "a ZIP archive (unpack it first)",
    b"<": "HTML or XML, perhaps the page of a failed download",
}


def read_json(path: Path) -> tuple[object, list[Fault]]:
    """Read a JSON file.

    Returns:
        The value (None when it cannot be read) and the faults of the file as such.

    Raises:
        DataError: there is no such file, or it cannot be opened.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}; give the path of a COCO JSON file") from None
    try:
        return orjson.loads(content), []
    except orjson.JSONDecodeError:
        return _read_unusual(content, str(path))


def _read_unusual(content: bytes, source: str) -> tuple[object, list[Fault]]:
    """Read what orjson refuses; Python's reader takes NaN and other encodings, and says where text is wrong."""
    findings = Findings()
    literals: list[str] = []
    value = None
    if not content.strip(b" \t\r\n\0"):
        findings.add_one("empty-file", f"{source}: {len(content):,} bytes, none of them text")
        return None, findings.faults()
    try:
        value = json.loads(content, parse_constant=lambda literal: literals.append(literal) or float(literal))
    except json.JSONDecodeError as error:
        _add_syntax_error(findings, error, content, source)
    except UnicodeDecodeError:
        findings.add_one("not-json", f"{source}: {describe_bytes(content)}")
    except RecursionError:
        findings.add_one("not-json", f"{source}: lists or objects nested too deeply")
    except ValueError:
        findings.add_one("not-json", f"{source}: a number with thousands of digits")
    else:
        if content.startswith((b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")):
            findings.add_one("byte-order-mark", f"{source}: begins with {content[:3].hex(' ')}")
        findings.add("nan-literal", range(len(literals)), lambda place: f"{source}: {literals[place]}")
    return value, findings.faults()


def _add_syntax_error(findings: Findings, error: json.JSONDecodeError, content: bytes, source: str) -> None:
    text = error.doc.rstrip()
    cut = text[:1] in ("{", "[") and (error.pos >= len(text) or text[-1] not in "}]")
    place = f"line {error.lineno}, column {error.colno}: {error.msg}"
    if cut:
        findings.add_one("truncated-json", f"{source}: ends after {len(content):,} bytes, inside a value ({place})")
    else:
        findings.add_one("not-json", f"{source}: {place}; {describe_bytes(content)}")


def describe_bytes(content: bytes) -> str:
    """Say what a file seems to be that is not what it should be."""
    start = content[:64].lstrip()
    for prefix, meaning in MISTAKEN.items():
        if start.startswith(prefix):
            return f"it looks like {meaning}"
    return f"it begins with {show(bytes(content[:16]))}"


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


def leaves_folder(name: str) -> bool:
    """Whether a file name is absolute or climbs out of the folder it is relative to, on any system."""
    name = name.replace("\\", "/")
    return name.startswith("/") or name[1:2] == ":" or posixpath.normpath(name).split("/")[0] == ".."


class Folder:
    """The files below an image folder; every folder is listed once, when first asked for."""

    def __init__(self, root: Path) -> None:
        self.root = Path(root)
        self._listings: dict[str, frozenset[str]] = {}
        self._matcher = Matcher(self.root)

    def has(self, name: str) -> bool:
        """Whether there is a file of this name, a path relative to the folder."""
        parent, file = posixpath.split(posixpath.normpath(name))
        return file in self._listing(parent)

    def find(self, record: dict) -> list[str]:
        """Return the files, by the names that they have here, that an image's record may mean; see `Matcher`."""
        name = record.get("file_name")
        if isinstance(name, str) and name.strip() and not leaves_folder(name) and self.has(name):
            return [name]
        return self._matcher.find(record)

    def _listing(self, parent: str) -> frozenset[str]:
        if parent not in self._listings:
            try:
                with os.scandir(self.root / parent) as entries:
                    self._listings[parent] = frozenset(entry.name for entry in entries if entry.is_file())
            except (OSError, ValueError):
                # ValueError: the name has a zero byte or cannot be encoded, so there is no such folder.
                self._listings[parent] = frozenset()
        return self._listings[parent]
