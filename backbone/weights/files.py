"""Reading a weights file of any kind without running anything in it.

The kind follows from the content, not from the suffix: torch (zip or legacy), safetensors, npz, a pickle of arrays
(detectron2's model zoo, Caffe2), or a .caffemodel. torch files are read with weights_only; those that hold objects
beside their tensors, TorchScript and pickles by an unpickler that calls nothing (`unpickling`).
"""

from __future__ import annotations

import json
import pickle
import re
import struct
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..common.errors import WeightsError
from ..common.files import check_archive
from ..common.nesting import check_nesting
from .caffemodel import looks_like_caffemodel, read_caffemodel
from .names import WHOLE_MODULE, walk
from .shards import INDEX, file_in, shards_of
from .sources import resolve
from .unpickling import Placeholder, SafeUnpickler, is_torchscript, read_archive, read_legacy

# The first bytes of torch's legacy format: the pickled magic number of torch/serialization.py.
LEGACY_TORCH = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
# The first bytes of pickles of protocols 0 and 1, which have no mark of their own: a dict, a list, or a class.
OLD_PICKLE = re.compile(rb"\((?:dp?\d*\n|lp?\d*\n|d)|[}\]](?:q.|\(|\.)|c[\w.]+\n[\w.]+\n|\(c[\w.]+\n", re.DOTALL)
# Values in one file, far above what the checkpoint of a whole run has.
MOST_VALUES = 10_000_000
SUPPORTED = ".pth, .pt, .th, .safetensors, .pkl, .npz and .caffemodel"
# What people have in place of a weights file, by its first bytes.
MISTAKEN = {
    b"<": "it looks like HTML, perhaps the page of a failed download",
    b"version https://git-lfs": "it is a Git LFS pointer, `git lfs pull` fetches the file",
    b"\x1f\x8b": "it is gzip data, unpack it first",
    b"name:": "it looks like a Caffe prototxt, the weights stand in the .caffemodel",
}


def file_kind(path: Path) -> str:
    """Return "torch", "safetensors", "npz", "pickle" or "caffemodel"; of a folder, and of an index, those in it.

    Raises:
        WeightsError: the file is missing, empty or of another kind.
    """
    path = file_in(path)
    if not path.is_file():
        raise WeightsError(f"{path}: no such weights file")
    if path.name.endswith(INDEX):
        return file_kind(path.parent / next(iter(shards_of(path))))
    try:
        with path.open("rb") as file:
            head = file.read(96)
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read: {error.strerror or error}") from None
    if not head:
        raise WeightsError(f"{path}: the weights file is empty")
    if head.startswith(b"PK"):
        return _kind_of_archive(path)
    if head.startswith(LEGACY_TORCH):
        return "torch"
    if len(head) > 8 and head[8:9] == b"{":
        return "safetensors"
    if head[0] == 0x80 or OLD_PICKLE.match(head):
        return "pickle"
    # A .caffemodel has no first bytes of its own; a broken one is known by its suffix alone.
    if looks_like_caffemodel(path) or (path.suffix == ".caffemodel" and not head.lstrip().startswith(tuple(MISTAKEN))):
        return "caffemodel"
    seems = next((meaning for start, meaning in MISTAKEN.items() if head.lstrip().startswith(start)), "")
    raise WeightsError(f"{path}: not a weights file of a known kind ({SUPPORTED}){'; ' if seems else ''}{seems}")


def _kind_of_archive(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except Exception:  # whatever a broken archive makes its reader raise
        raise WeightsError(f"{path}: the weights file is cut off or damaged; copy or download it again") from None
    return "npz" if names and all(name.endswith(".npy") for name in names) else "torch"


def read_file(path: str | Path) -> tuple[Any, dict[str, str]]:
    """Read a weights file.

    Args:
        path: a path, or a name or URL as in `sources`.

    Returns:
        The object in it (arrays turned into tensors), and the text metadata that a safetensors file carries, or what
        a .caffemodel says of its layers.

    Raises:
        WeightsError: missing, broken, of an unknown kind, or it tries to run code.
    """
    return _read_path(file_in(resolve(path)))


def _read_path(path: Path) -> tuple[Any, dict[str, str]]:
    kind = file_kind(path)
    if path.name.endswith(INDEX):
        return _read_shards(path)
    try:
        with warnings.catch_warnings():
            # What torch and numpy warn of in a strange file they then refuse, in an error of their own.
            warnings.simplefilter("ignore")
            content, text = _read(path, kind)
        if isinstance(content, Placeholder) and content.is_module:
            raise WeightsError(f"{path}: {WHOLE_MODULE.format(content)}")
        return content, text
    except pickle.UnpicklingError as error:
        asked = re.search(r"GLOBAL (\S+)", str(error))
        if asked:
            raise WeightsError(
                f"{path}: refused, it holds more than tensors and could run code: it asks for {asked[1]}"
            ) from None
        raise WeightsError(f"{path}: broken {kind} file: {_reason(error)}") from None
    except WeightsError:
        raise
    except Exception as error:  # whatever a broken file makes its reader raise
        raise WeightsError(f"{path}: cannot be read as a {kind} file: {_reason(error)}") from None


def _read_shards(index: Path) -> tuple[Any, dict[str, str]]:
    tensors, text = {}, {}
    for shard, names in shards_of(index).items():
        content, message = _read_path(index.parent / shard)
        missing = [name for name in names if name not in content] if isinstance(content, dict) else names
        if missing:
            raise WeightsError(f"{index}: its file {shard} has no tensor {missing[0]}; copy the files again")
        tensors |= {name: content[name] for name in names}
        text |= message
    return tensors, text


def _reason(error: Exception) -> str:
    """Return one line of an error, without torch's advice to read the file unsafely."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    if lines[0].startswith("Weights only load failed") and len(lines) > 1:
        return next((line for line in lines if line.startswith("WeightsUnpickler error")), lines[1])
    return lines[0]


def _read(path: Path, kind: str) -> tuple[Any, dict[str, str]]:
    if kind == "torch":
        check_archive(path)
        return _read_torch(path), {}
    if kind == "safetensors":
        return _read_safetensors(path)
    if kind == "caffemodel":
        return read_caffemodel(path)
    if kind == "npz":
        check_archive(path)
        with np.load(path, allow_pickle=False) as archive:
            return _to_tensors(dict(archive)), {}
    with path.open("rb") as file:
        # detectron2's files were pickled by Python 2 in part; latin1 keeps their bytes as they are.
        content = SafeUnpickler(file, encoding="latin1").load()
    check_nesting(content, most=MOST_VALUES)
    return _to_tensors(content), {}


def _read_torch(path: Path) -> Any:
    is_archive = zipfile.is_zipfile(path)
    scripted = is_archive and is_torchscript(path)
    if not scripted:
        try:
            content = torch.load(path, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError:
            pass  # it holds objects too
        else:
            check_nesting(content, most=MOST_VALUES)
            return content
    content = read_archive(path) if is_archive else read_legacy(path)
    check_nesting(content, most=MOST_VALUES)
    if scripted:
        return {path + name: value for path, tensors in walk(content) for name, value in tensors.items()}
    return _to_tensors(content)


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    from safetensors.torch import load_file

    with path.open("rb") as file:
        length = struct.unpack("<Q", file.read(8))[0]
        if length > path.stat().st_size:
            raise WeightsError(f"{path}: the weights file is cut off; copy or download it again")
        metadata = json.loads(file.read(length)).get("__metadata__", {})
    return load_file(path), metadata


def _to_tensors(value: Any) -> Any:
    """Turn arrays into tensors, through dicts, lists and tuples."""
    if isinstance(value, np.ndarray) and value.dtype.kind in "fiub":
        # torch takes no reversed strides, foreign byte orders or read-only memory; 0-d arrays stay so.
        array = np.asarray(value, value.dtype.newbyteorder("="), order="C")
        return torch.from_numpy(array if array.flags.writeable else array.copy())
    if isinstance(value, dict):
        return {key: _to_tensors(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_to_tensors(item) for item in value)
    return value
