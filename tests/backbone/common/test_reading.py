"""Text files as editors and tools write them, and what is no text."""

from __future__ import annotations

import io
import os
import zipfile

import numpy as np
import pytest

from backbone.common.errors import DataError
from backbone.common.reading import Arrays, read_bytes, read_lines, read_text


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_byte_order_marks(tmp_path, encoding):
    mark = "\ufeff" if encoding.endswith(("-le", "-be")) else ""
    (tmp_path / "list.txt").write_bytes((mark + " naïve\r\n b\n\nc\u2028d").encode(encoding))
    assert read_lines(tmp_path / "list.txt") == ["naïve", "b", "", "c\u2028d"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a\n\xff", r"list\.txt, line 2: byte 0xff is no text in UTF-8; save it as UTF-8"),
        (b"a\nb\nc\0d", r"list\.txt, line 3: has a zero byte, so it is no text"),
        ("ab".encode("utf-16-le"), r"line 1: has a zero byte"),
        (b"\xff\xfea", r"list\.txt, line 1: .* is no text in UTF-16"),
    ],
)
def test_no_text(tmp_path, content, message):
    (tmp_path / "list.txt").write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_text(tmp_path / "list.txt")


def test_what_is_no_file(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path, message in (
        (tmp_path, "is a folder; give a file"),
        (tmp_path / "pipe", "is a pipe or a device; give a file"),
        ("/dev/zero", "is a pipe or a device; give a file"),
        (tmp_path / "none", "none does not exist"),
        (tmp_path / ("x" * 300), "cannot be read: File name too long"),
        (f"{tmp_path}/a\0b", "cannot be read: embedded null byte"),
    ):
        with pytest.raises(DataError, match=message):
            read_bytes(path)


def test_a_text_too_large_and_a_pipe_of_the_shell(tmp_path):
    (tmp_path / "list.txt").write_text("abcdef")
    with pytest.raises(DataError, match="more than 5 bytes"):
        read_bytes(tmp_path / "list.txt", largest=5)
    reading, writing = os.pipe()
    os.write(writing, b"from a command")
    os.close(writing)
    assert read_bytes(f"/dev/fd/{reading}") == b"from a command"
    os.close(reading)


def archive(name: str, content: bytes, *, encrypted: bool = False) -> bytes:
    """Return a zip archive of one member; `encrypted` sets its flag alone."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as opened:
        opened.writestr(name, content)
        opened.infolist()[0].flag_bits |= encrypted
    return file.getvalue()


def npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"PK\3\4" + bytes(26), "cannot be read as an .npz archive"),
        (archive("a.npy", npy(np.arange(9999)))[:-40], "cannot be read as an .npz archive"),
        (archive("a.npy", npy(np.arange(9)), encrypted=True), "array 'a' cannot be read: is encrypted"),
        (archive("a.npy", npy(np.array([None]))), "array 'a' cannot be read: .*allow_pickle"),
        (archive("a.npy", npy(np.arange(9))[:-8]), "array 'a' cannot be read"),
        (archive("a.npy", npy(np.arange(9)).replace(b"(9,)", b"(9999999999999999,)")), "array 'a' cannot be read"),
        (archive("a.npy", b"no array"), "array 'a' cannot be read"),
    ],
)
def test_damaged_arrays(tmp_path, content, message):
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(DataError, match=message):
        Arrays(tmp_path / "a.npz")["a"]


def test_arrays_are_numpys(tmp_path, monkeypatch):
    np.savez_compressed(tmp_path / "a.npz", a=np.arange(9.0), b=np.ones((2, 3), np.uint8))
    arrays = Arrays(tmp_path / "a.npz")
    with np.load(tmp_path / "a.npz") as expected:
        assert list(arrays) == list(expected) and all(np.array_equal(arrays[name], expected[name]) for name in arrays)
    monkeypatch.setattr("backbone.common.reading.LARGEST_ARRAY", 100)
    with pytest.raises(DataError, match="array 'a' cannot be read: unpacks to 200 bytes"):
        arrays["a"]


def test_an_archive_that_unpacks_to_gigabytes(tmp_path, monkeypatch):
    monkeypatch.setattr("backbone.common.files.LARGE", 2**20)
    np.savez_compressed(tmp_path / "a.npz", images=np.zeros(2**22, np.uint8))
    with pytest.raises(DataError, match="a.npz: cannot be read as an .npz archive: it unpacks to"):
        Arrays(tmp_path / "a.npz")
