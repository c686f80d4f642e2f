"""Reading a weights file of any kind without running anything in it.

The kind follows from the content, not from the suffix: torch (zip or legacy), safetensors, npz, or a pickle of arrays
(detectron2's model zoo, Caffe2). torch files are read with weights_only; pickles by an unpickler that builds arrays and
plain containers alone.
"""

from __future__ import annotations

import json
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import WeightsError

# The first bytes of torch's legacy format: the pickled magic number of torch/serialization.py.
LEGACY_TORCH = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
SUPPORTED = ".pth, .pt, .th, .safetensors, .pkl and .npz"


class ArrayUnpickler(pickle.Unpickler):
    """Builds numpy arrays, ordered dicts and plain containers; refuses every other name in the stream."""

    ALLOWED = frozenset(
        [
            ("collections", "OrderedDict"),
            ("_codecs", "encode"),
            ("numpy", "ndarray"),
            ("numpy", "dtype"),
            *((f"numpy.{core}.multiarray", name) for core in ("core", "_core") for name in ("_reconstruct", "scalar")),
            *((f"numpy.{core}.numeric", "_frombuffer") for core in ("core", "_core")),
        ]
    )

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.ALLOWED:
            raise pickle.UnpicklingError(
                f"it asks for {module}.{name}, which is neither an array nor a plain container"
            )
        if module.startswith("numpy.") and not hasattr(np, "_core"):
            module = module.replace("numpy._core", "numpy.core")
        elif module.startswith("numpy."):
            module = module.replace("numpy.core", "numpy._core")
        return super().find_class(module, name)


def file_kind(path: Path) -> str:
    """Return "torch", "safetensors", "npz" or "pickle".

    Raises:
        WeightsError: the file is missing, empty or of another kind.
    """
    if not path.is_file():
        raise WeightsError(f"{path}: no such weights file")
    with path.open("rb") as file:
        head = file.read(32)
    if not head:
        raise WeightsError(f"{path}: the weights file is empty")
    if head.startswith(b"PK"):
        if not zipfile.is_zipfile(path):
            raise WeightsError(f"{path}: the weights file is cut off; copy or download it again")
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
        return "npz" if names and all(name.endswith(".npy") for name in names) else "torch"
    if head.startswith(LEGACY_TORCH):
        return "torch"
    if len(head) > 8 and head[8:9] == b"{":
        return "safetensors"
    if head[0] == 0x80:
        return "pickle"
    raise WeightsError(f"{path}: not a weights file of a known kind ({SUPPORTED})")


def read_file(path: str | Path) -> tuple[Any, dict[str, str]]:
    """Read a weights file.

    Returns:
        The object in it (arrays turned into tensors), and the text metadata that a safetensors file carries.

    Raises:
        WeightsError: missing, broken, of an unknown kind, or it tries to run code.
    """
    path = Path(path)
    kind = file_kind(path)
    try:
        if kind == "torch":
            return torch.load(path, map_location="cpu", weights_only=True), {}
        if kind == "safetensors":
            return _read_safetensors(path)
        if kind == "npz":
            with np.load(path, allow_pickle=False) as archive:
                return _to_tensors(dict(archive)), {}
        with path.open("rb") as file:
            # detectron2's files were pickled by Python 2 in part; latin1 keeps their bytes as they are.
            return _to_tensors(ArrayUnpickler(file, encoding="latin1").load()), {}
    except pickle.UnpicklingError as error:
        reason = str(error).splitlines()[0]
        if "Unsupported global" in str(error) or "Unsupported class" in str(error) or "it asks for" in str(error):
            reason = next((line for line in str(error).splitlines() if "global" in line or "asks for" in line), reason)
            raise WeightsError(
                f"{path}: refused, it holds more than tensors and could run code: {reason.strip()}"
            ) from None
        raise WeightsError(f"{path}: broken {kind} file: {reason}") from None
    except WeightsError:
        raise
    except Exception as error:  # whatever a broken file makes its reader raise
        lines = str(error).splitlines() or [type(error).__name__]
        raise WeightsError(f"{path}: cannot be read as a {kind} file: {lines[0]}") from None


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
        return torch.from_numpy(np.ascontiguousarray(value))
    if isinstance(value, dict):
        return {key: _to_tensors(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_to_tensors(item) for item in value)
    return value
