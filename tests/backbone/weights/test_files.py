"""Weights files of every kind: sound ones give equal tensors, others one clear line, and nothing in them runs."""

from __future__ import annotations

import json
import pickle
import struct
import warnings
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from hostile import PAYLOADS, WRAPPERS, WRITERS, write_hostile
from safetensors.torch import save_file
from torch import Tensor

from backbone.common.errors import WeightsError
from backbone.weights import find_state_dict, read_file
from backbone.weights.files import file_kind

MODEL_ZOO = {"__author__": "Detectron2 Model Zoo", "matching_heuristics": True}


def tensors() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "conv1.weight": torch.randn(4, 3, 3, 3, generator=generator),
        "bn1.bias": torch.randn(4, generator=generator).half(),
        "bn1.num_batches_tracked": torch.tensor(7),
        "mask": torch.tensor([True, False]),
        "double": torch.randn(2, generator=generator, dtype=torch.float64),
        "fc.weight": torch.randn(0, 5, generator=generator),
    }


def arrays() -> dict[str, np.ndarray]:
    return {name: value.numpy() for name, value in tensors().items()}


def in_python_2(values: dict[str, np.ndarray]) -> bytes:
    """What Python 2 wrote with protocol 2: every text and all the data of the arrays as byte strings."""

    def text(value: str) -> bytes:
        return b"U" + bytes([len(value)]) + value.encode()

    def array(value: np.ndarray) -> bytes:
        data = value.tobytes()
        empty = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85" + text("b") + b"\x87R"
        dtype = b"cnumpy\ndtype\n" + text(value.dtype.str[1:]) + b"K\x00K\x01\x87R"
        dtype += b"(K\x03" + text("<") + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        shape = b"(" + b"".join(b"J" + struct.pack("<i", side) for side in value.shape) + b"t"
        return empty + b"(K\x01" + shape + dtype + b"\x89T" + struct.pack("<I", len(data)) + data + b"tb"

    items = b"".join(text(name) + array(value) + b"s" for name, value in values.items())
    return b"\x80\x02}" + text("model") + b"}" + items + b"s" + text("__author__") + text("someone") + b"s."


def write_kind(kind: str, folder: Path) -> Path:
    """Write `tensors()` as a file of `kind`."""
    path = folder / {"safetensors": "a.safetensors", "npz": "a.npz", "th": "a.th"}.get(
        kind, "a.pkl" if kind.startswith("pickle") else "a.pth"
    )
    if kind in ("torch zip", "th"):
        torch.save({"state_dict": tensors(), "epoch": 3, "arch": "resnet18"}, path)
    elif kind == "torch legacy":
        torch.save({"state_dict": OrderedDict(tensors())}, path, _use_new_zipfile_serialization=False)
    elif kind == "safetensors":
        save_file(tensors(), path, metadata={"mean": "0.485"})
    elif kind == "npz":
        np.savez(path, **arrays())
    elif kind == "npz compressed":
        np.savez_compressed(path.with_suffix(".npz"), **arrays())
        path = path.with_suffix(".npz")
    elif kind == "pickle of Python 2":
        path.write_bytes(in_python_2({name: value for name, value in arrays().items() if value.dtype == np.float32}))
    else:
        path.write_bytes(pickle.dumps({"model": arrays(), **MODEL_ZOO}, protocol=int(kind[-1])))
    return path


KINDS = ["torch zip", "torch legacy", "th", "safetensors", "npz", "npz compressed", "pickle of Python 2"]
KINDS += [f"pickle {protocol}" for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1)]


def refused(path: Path) -> str:
    with pytest.raises(WeightsError) as caught:
        read_file(path)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(str(path))
    return message


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_gives_equal_tensors(tmp_path, kind):
    path = write_kind(kind, tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = find_state_dict(read_file(path)[0], str(path))
    expected = tensors()
    if kind == "pickle of Python 2":
        expected = {name: value for name, value in expected.items() if value.dtype == torch.float32}
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name].dtype == value.dtype
        assert found[name].shape == value.shape
        assert torch.equal(found[name], value)


def test_the_kind_follows_from_the_content(tmp_path):
    for kind, expected in [("torch zip", "torch"), ("safetensors", "safetensors"), ("pickle 2", "pickle")]:
        path = write_kind(kind, tmp_path)
        assert file_kind(path.rename(tmp_path / "renamed.bin")) == expected


def test_metadata_of_safetensors(tmp_path):
    assert read_file(write_kind("safetensors", tmp_path))[1] == {"mean": "0.485"}
    assert read_file(write_kind("torch zip", tmp_path))[1] == {}


def test_arrays_that_torch_does_not_take_as_they_are(tmp_path):
    """Columns first, reversed, read-only, big-endian: all come out as tensors with their values."""
    plain = np.arange(6, dtype=np.float32).reshape(2, 3)
    read_only = plain.copy()
    read_only.flags.writeable = False
    values = {
        "columns": np.asfortranarray(plain),
        "reversed": plain[::-1, ::-1],
        "read_only": read_only,
        "big_endian": plain.astype(">f4"),
    }
    for protocol in (2, 5):
        path = tmp_path / f"{protocol}.pkl"
        path.write_bytes(pickle.dumps(values, protocol))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            found = read_file(path)[0]
        for name, value in values.items():
            assert found[name].tolist() == value.tolist(), name


def test_the_file_is_left_as_it_is(tmp_path):
    for kind in KINDS:
        path = write_kind(kind, tmp_path)
        before = path.read_bytes()
        read_file(path)
        assert path.read_bytes() == before


# -- files that try to run code


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_code_in_a_file_is_refused_and_does_not_run(tmp_path, writer, wrapper, capfd):
    marker = tmp_path / "marker"
    for number, payload in enumerate(PAYLOADS):
        path = write_hostile(tmp_path / f"hostile{number}", payload, wrapper, writer, marker)
        message = refused(path)
        assert not marker.exists(), payload
        if writer not in ("pickle 0", "pickle 1", "tar", "npz", "behind torch's legacy magic"):
            assert "refused, it holds more than tensors and could run code" in message
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("payload", PAYLOADS)
def test_the_hostile_files_would_run_in_an_unsafe_reader(tmp_path, payload):
    """So that the test above cannot pass because its files are harmless anyway."""
    marker = tmp_path / "marker"
    path = write_hostile(tmp_path / "hostile", payload, "in an array", "pickle 2", marker)
    with path.open("rb") as file:
        pickle.load(file)
    assert marker.exists()


@pytest.mark.parametrize(
    "stream",
    [
        # numpy's own names that lead to code, and names reached through an attribute of an allowed one.
        b"\x80\x02cnumpy.testing._private.utils\nrunstring\n.",
        b"\x80\x02cnumpy\nload\n.",
        b"\x80\x04\x8c\x05numpy\x8c\x0fndarray.__new__\x93.",
        b"\x80\x04\x8c\x0bcollections\x8c\x16OrderedDict.__reduce__\x93.",
        b"\x80\x02cnumpy.core.multiarray\nfromfile\n.",
        b"\x80\x02ctorch\nload\n.",
    ],
)
def test_names_beyond_arrays_are_refused(tmp_path, stream):
    path = tmp_path / "names.pkl"
    path.write_bytes(stream)
    assert "refused" in refused(path)


# -- files that are broken, or something else


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("kept", [1, 9, 0.3, 0.8, 0.99])
def test_truncated(tmp_path, kind, kept, capfd):
    path = write_kind(kind, tmp_path)
    data = path.read_bytes()
    path.write_bytes(data[: kept if isinstance(kept, int) else int(kept * len(data))])
    refused(path)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_bytes_are_refused_or_read(tmp_path, kind):
    """Whatever the damage, no exception but ours comes out."""
    path = write_kind(kind, tmp_path)
    data = path.read_bytes()
    rng = np.random.default_rng(len(kind))
    for _ in range(25):
        damaged = np.frombuffer(data, np.uint8).copy()
        # The structure stands at the beginning or, in a zip file, at the end.
        places = rng.integers(-300, 300, 3) % len(damaged)
        damaged[places] = rng.integers(0, 256, 3)
        path.write_bytes(damaged.tobytes())
        try:
            read_file(path)
        except WeightsError as error:
            assert "\n" not in str(error)


HTML = b"<!DOCTYPE html>\n<html><body><h1>404 Not Found</h1></body></html>\n"


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("empty.pth", b"", "empty"),
        ("page.pth", HTML, "HTML"),
        ("page.safetensors", HTML, "HTML"),
        ("notes.pth", b"these are the best weights", "not a weights file of a known kind"),
        ("pointer.pth", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS"),
        ("packed.pth", b"\x1f\x8b\x08\x00" + bytes(20), "gzip"),
        ("zeros.pth", bytes(100), "not a weights file of a known kind"),
        ("list.json", b'[{"weights": 1}]', "not a weights file of a known kind"),
        ("number.pkl", pickle.dumps(3, 2), ""),
        ("long.safetensors", struct.pack("<Q", 10**12) + b"{}", "cut off"),
        ("wrong.safetensors", struct.pack("<Q", 4) + b"{]]]", "safetensors"),
        ("offsets.safetensors", struct.pack("<Q", 76) + json.dumps(
            {"w": {"dtype": "F32", "shape": [9, 9], "data_offsets": [0, 400]}}).ljust(76).encode(), "safetensors"),
    ],
)  # fmt: skip
def test_files_that_are_something_else(tmp_path, name, content, said):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(WeightsError) as caught:
        find_state_dict(read_file(path)[0], str(path))
    assert str(path) in str(caught.value)
    assert said in str(caught.value)


def test_an_archive_that_holds_no_weights(tmp_path):
    path = tmp_path / "photos.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.jpg", b"...")
    assert "cannot be read as a torch file" in refused(path)


@pytest.mark.parametrize("make", [torch.jit.script, lambda module: torch.jit.trace(module, torch.ones(1, 3, 8, 8))])
def test_a_torchscript_archive(tmp_path, make):
    """Its tensors are read by name, shared and buffers too; its code is not."""
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.Sequential(torch.nn.BatchNorm2d(4))).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        make(module).save(str(tmp_path / "scripted.pt"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = read_file(tmp_path / "scripted.pt")[0]
    truth = module.state_dict()
    assert found.keys() == truth.keys() and all(torch.equal(found[name], truth[name]) for name in truth)


def test_a_whole_pickled_module(tmp_path):
    """torch.save(model) instead of its state dict: the reader would have to import and build its classes."""
    path = tmp_path / "module.pth"
    torch.save(torch.nn.Linear(2, 2), path)
    message = refused(path)
    assert "Linear" in message


def test_missing_and_folder(tmp_path):
    assert "no such weights file" in refused(tmp_path / "nowhere.pth")
    assert "a folder" in refused(tmp_path)


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="needs a file that exists and cannot be read")
def test_a_file_that_cannot_be_read():
    assert "cannot be read" in refused(Path("/proc/self/mem"))
