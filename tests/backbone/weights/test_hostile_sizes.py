"""Weights files that hold themselves, or unpack or grow to more than any machine has: one line, little memory."""

from __future__ import annotations

import io
import pickle
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from backbone.common.errors import WeightsError
from backbone.weights import open_weights, read_file

GIANT = 2**34


def of_itself() -> dict:
    content: dict = {"weight": torch.ones(2)}
    content["state_dict"] = {"model": content}
    return content


def doubled() -> list:
    """Forty lists, each twice in the next: 2^40 values for whoever walks through them."""
    content: list = [1]
    for _ in range(40):
        content = [content, content]
    return content


def legacy(content: object, path: Path) -> None:
    torch.save(content, path, _use_new_zipfile_serialization=False)


def pickled(content: object, path: Path) -> None:
    plain = {**content, "weight": np.ones(2)} if isinstance(content, dict) else {"a": content}
    if isinstance(content, dict):
        plain["state_dict"] = {"model": plain}
    path.write_bytes(pickle.dumps({"model": plain}))


@pytest.mark.parametrize("write", [torch.save, legacy, pickled])
@pytest.mark.parametrize(("content", "said"), [(of_itself, "it holds itself"), (doubled, "more than 10,000,000")])
def test_contents_without_an_end(tmp_path, write, content, said):
    write(content(), tmp_path / "a.pth")
    with pytest.raises(WeightsError, match=said):
        open_weights(tmp_path / "a.pth")


def packed(path: Path, name: str) -> None:
    """An archive of some kilobytes whose entry unpacks to half a gigabyte of zeros."""
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(head, {"descr": "|u1", "fortran_order": False, "shape": (2**29,)})
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open(name, "w") as entry:
        entry.write(head.getvalue())
        for _ in range(2**9):
            entry.write(bytes(2**20))


def reduced(function: object, *arguments: object) -> bytes:
    """A pickle of one array that the reader is asked to make by a call."""

    class Call:
        def __reduce__(self):
            return function, arguments

    return pickle.dumps({"weight": Call()}, 2)


@pytest.fixture(scope="module")
def archives(tmp_path_factory) -> dict[str, bytes]:
    path = tmp_path_factory.mktemp("packed") / "a"
    contents = {}
    for name in ("weight.npy", "archive/data.pkl"):
        packed(path, name)
        contents[name] = path.read_bytes()
    return contents


SIZED = {
    "ndarray": reduced(np.ndarray, (GIANT,), "u1"),
    "bytes": reduced(bytes, GIANT),
}


@pytest.mark.parametrize("case", ["weight.npy", "archive/data.pkl", *SIZED])
def test_small_files_that_grow(tmp_path, archives, case):
    path = tmp_path / "a.pkl"
    path.write_bytes(SIZED[case] if case in SIZED else archives[case])
    assert path.stat().st_size < 10**6
    tracemalloc.start()
    try:
        with pytest.raises(WeightsError) as caught:
            open_weights(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert str(path) in str(caught.value) and peak < 2**24


def test_an_array_that_is_asked_for_by_its_size_alone_is_empty(tmp_path):
    (tmp_path / "a.pkl").write_bytes(reduced(np.zeros(1).__reduce__()[0], np.ndarray, (GIANT,), b"b"))
    assert open_weights(tmp_path / "a.pkl").tensors["weight"].numel() == 0


def test_what_is_packed_well_is_read(tmp_path):
    np.savez_compressed(tmp_path / "a.npz", weight=np.zeros(2**20, np.float32))
    assert read_file(tmp_path / "a.npz")[0]["weight"].numel() == 2**20
