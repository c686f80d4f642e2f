"""Pickles, read without running anything that they name.

Checkpoints hold more than tensors: arguments, configs, paths, dates, logs. Whatever is no tensor, array or plain
container becomes a placeholder, which keeps nothing and does nothing. What names a function, or a class of Python's own
library that could run something, is refused.
"""

from __future__ import annotations

import pickle
import re
import sys
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor

STORAGES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "ComplexFloatStorage": torch.complex64,
    "ComplexDoubleStorage": torch.complex128,
    "UntypedStorage": torch.uint8,
}
# Python's own modules whose objects are plain; of all others, nothing is taken.
PLAIN = {
    *("argparse", "collections", "dataclasses", "datetime", "decimal", "enum", "fractions", "pathlib", "random"),
    *("typing", "uuid", "zoneinfo"),
}
# Plain ones that do not have the name of a class. `getattr` is how protocol 2 spells a method, MMEngine's logs do.
PLAIN_NAMES = {
    *(f"builtins.{name}" for name in ("object", "set", "frozenset", "list", "dict", "tuple", "int", "float", "bool")),
    *(f"builtins.{name}" for name in ("str", "bytearray", "complex", "slice", "range", "getattr")),
    *(f"collections.{name}" for name in ("deque", "defaultdict")),
    *(f"datetime.{name}" for name in ("datetime", "date", "time", "timedelta", "timezone")),
    *("functools.partial", "types.SimpleNamespace", "time.struct_time", "copyreg._reconstructor", "torch.device"),
    *("torch.serialization._get_layout",),
}
# numpy's function that makes a scalar of a dtype and bytes; its module's name differs by version.
NUMPY_SCALAR = np.float64(0).__reduce__()[0]
# Modules of Python 2, and those that newer Pythons have no more.
FORMER = {"__builtin__": "builtins", "copy_reg": "copyreg"}
GONE = {"asyncore", "commands", "distutils", "imp", "popen2", "urllib2"}


class Placeholder:
    """Stands for an object of an unknown class.

    Attributes:
        is_module: it is an nn.Module that was pickled whole.
    """

    is_module = False
    dump_patches = False  # asked for by torch's reader of its former format

    def __new__(cls, *_: Any, **__: Any) -> Placeholder:
        return object.__new__(cls)

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, Mapping) and "_parameters" in state and "_modules" in state:
            self.is_module = True

    def __setitem__(self, key: Any, value: Any) -> None:
        pass

    def ignore(self, _: Any) -> None:
        pass

    append = extend = add = ignore

    def __call__(self, *_: Any) -> None:
        raise pickle.UnpicklingError(f"unsupported GLOBAL {self}")

    def __str__(self) -> str:
        return f"{type(self).__module__}.{type(self).__name__}"


class Scripted(dict):
    """An object of TorchScript: its attributes, tensors and other objects among them, by name."""

    def __new__(cls, *_: Any) -> Scripted:
        return dict.__new__(cls)

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, Mapping):
            self.update(state)


class SafeUnpickler(pickle.Unpickler):
    """Builds tensors, numpy arrays and plain containers; see the module."""

    ALLOWED = frozenset(
        [
            ("collections", "OrderedDict"),
            ("_codecs", "encode"),
            ("numpy", "dtype"),
        ]
    )

    def find_class(self, module: str, name: str) -> Any:
        module = FORMER.get(module, module)
        if (module, name) in REPLACED:
            replacement = REPLACED[module, name]
            # A function of its own for each file: a pickle can set attributes of what it names.
            return replacement if isinstance(replacement, str) else lambda *arguments: replacement(*arguments)
        if (module, name) in self.ALLOWED:
            return super().find_class(module, name)
        top = module.partition(".")[0]
        if top == "__torch__":
            return Scripted
        if top == "torch" and isinstance(getattr(torch, name, None), torch.dtype):
            return getattr(torch, name)
        made = {"__module__": module}
        if is_plain(module, name):
            return type(name, (Placeholder,), made)
        if is_refused(module, name):
            raise pickle.UnpicklingError(f"unsupported GLOBAL {module}.{name}")
        # Another library's function: it may be named, as a setting, and not be called.
        return type(name, (Placeholder,), made)()


def is_plain(module: str, name: str) -> bool:
    """Whether the name may be that of a class, or of the helper that makes its objects, and of no harm by itself."""
    top, last = module.partition(".")[0], name.rpartition(".")[2]
    if f"{module}.{name}" in PLAIN_NAMES:
        return True
    if top in sys.stdlib_module_names or top in GONE:
        return top in PLAIN and _is_class(last)
    if top in ("numpy", "torch"):
        return _is_class(last) or (module.startswith("numpy.random.") and last.endswith("_ctor"))
    return _is_class(last) or (last.startswith("_") and not last.startswith("__"))


def is_refused(module: str, name: str) -> bool:
    """Whether a name that is not plain must not even stand in a file."""
    top = module.partition(".")[0]
    harmless = module.startswith(("torch.nn.", "torch.optim.")) or (module == "numpy" and name in np.sctypeDict)
    return (top in {*sys.stdlib_module_names, *GONE, "numpy", "torch"} and top != "__main__") and not harmless


def _is_class(name: str) -> bool:
    return re.match(r"_*[A-Z]", name) is not None


def _plain_dtype(dtype: Any) -> np.dtype | None:
    """Return a dtype of numbers, text, bytes or objects anew, so that the file cannot change it later; None for others.

    numpy believes what a pickle says of a dtype: one with fields could take bytes of the file for addresses of objects.
    """
    if not isinstance(dtype, np.dtype) or dtype.names is not None or dtype.subdtype or dtype.kind not in "biufcmMSUVO":
        return None
    return np.dtype(dtype.str)


class _Array(np.ndarray):
    """An array that takes shape and data of plain dtypes alone; of others it stays empty."""

    def __setstate__(self, state: Any) -> None:
        *before, dtype, order, data = state
        if (plain := _plain_dtype(dtype)) is not None:
            super().__setstate__((*before, plain, order, data))


def _empty_array(*_: Any) -> np.ndarray:
    return _Array((0,), np.uint8)


def _scalar(dtype: Any, *data: Any) -> Any:
    plain = _plain_dtype(dtype)
    return Placeholder() if plain is None else NUMPY_SCALAR(plain, *data)


def _array_of_buffer(buffer: Any, dtype: Any, shape: Any, order: str = "C") -> np.ndarray:
    plain = _plain_dtype(dtype)
    return _empty_array() if plain is None else np.frombuffer(buffer, plain).reshape(shape, order=order)


def _tensor(storage: Any, offset: int, size: Any, stride: Any, *_: Any) -> Tensor:
    """Make a view of a storage; torch refuses one that is larger than it."""
    if not isinstance(storage, Tensor):
        storage = torch.tensor([], dtype=storage.dtype).set_(storage.untyped())
    return storage.as_strided(tuple(size), tuple(stride), offset)


def _tensor_of_type(storage: Any, offset: int, size: Any, stride: Any, *rest: Any) -> Tensor:
    storage = storage if isinstance(storage, Tensor) else torch.tensor([], dtype=torch.uint8).set_(storage.untyped())
    return _tensor(storage.view(rest[2]), offset, size, stride)


def _first(value: Any, *_: Any) -> Any:
    return value


# What must not be called as it is: with a size of gigabytes, or with objects of classes that are not built. An array
# gets its shape and data by its state, which numpy checks.
REPLACED: dict[tuple[str, str], Callable | str] = {
    ("numpy", "ndarray"): "ndarray",
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _empty_array for core in ("core", "_core")},
    **{(f"numpy.{core}.multiarray", "scalar"): _scalar for core in ("core", "_core")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): _array_of_buffer for core in ("core", "_core")},
    # How protocol 2 spells the data of an array without elements.
    ("builtins", "bytes"): lambda *_: b"",
    ("torch", "Size"): lambda sizes=(): tuple(sizes),
    ("torch._utils", "_rebuild_tensor"): _tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_tensor_v3"): _tensor_of_type,
    ("torch._utils", "_rebuild_parameter"): _first,
    ("torch._utils", "_rebuild_parameter_with_state"): _first,
    ("torch._tensor", "_rebuild_from_type_v2"): lambda function, _, arguments, __: function(*arguments),
    ("torch.jit._pickle", "restore_type_tag"): _first,
    **{
        ("torch.jit._pickle", f"build_{kind}list"): _first for kind in ("int", "double", "bool", "tensor")
    },
}  # fmt: skip


class ArchiveUnpickler(SafeUnpickler):
    """Reads `data.pkl` of a torch or TorchScript archive, whose storages are entries of their own."""

    def __init__(self, archive: zipfile.ZipFile, entry: str) -> None:
        super().__init__(archive.open(entry), encoding="utf-8")
        self.archive, self.folder = archive, entry.removesuffix("data.pkl")
        self.storages: dict[tuple[Any, ...], Tensor] = {}

    def find_class(self, module: str, name: str) -> Any:
        if module in ("torch", "torch.storage", "torch.cuda") and name in STORAGES:
            return STORAGES[name]
        return super().find_class(module, name)

    def persistent_load(self, pid: Any) -> Tensor:
        kind, dtype, key, _, _ = pid
        if kind != "storage" or not isinstance(dtype, torch.dtype):
            raise pickle.UnpicklingError("it refers to something else than a storage")
        if (dtype, key) not in self.storages:
            data = bytearray(self.archive.read(f"{self.folder}data/{key}"))
            self.storages[dtype, key] = torch.frombuffer(data, dtype=dtype) if data else torch.empty(0, dtype=dtype)
        return self.storages[dtype, key]


def is_torchscript(path: Path) -> bool:
    """Whether a ZIP archive is TorchScript's."""
    with zipfile.ZipFile(path) as archive:
        return any(re.fullmatch(r"([^/]*/)?constants\.pkl", name) for name in archive.namelist())


def read_archive(path: Path) -> Any:
    """Read a torch or TorchScript archive; the latter becomes nested dicts of its tensors.

    Raises:
        pickle.UnpicklingError: it names what is refused; other errors where it is broken.
    """
    with zipfile.ZipFile(path) as archive:
        entry = next((name for name in archive.namelist() if re.fullmatch(r"([^/]*/)?data\.pkl", name)), None)
        if entry is None:
            raise ValueError("it has no data.pkl")
        order = f"{entry.removesuffix('data.pkl')}byteorder"
        if order in archive.namelist() and archive.read(order) == b"big":
            raise ValueError("it was written on a machine of another byte order; save it again on this kind")
        return ArchiveUnpickler(archive, entry).load()


def read_legacy(path: Path) -> Any:
    """Read a file of torch's former format; raises as `read_archive`."""
    # torch's reader asks the module for these, and every name in the file goes through our `find_class`.
    parts = {"Unpickler": SafeUnpickler, "load": lambda file, **how: SafeUnpickler(file, **how).load()}
    module = SimpleNamespace(__name__=__name__, **parts)
    return torch.load(path, map_location="cpu", pickle_module=module, weights_only=False)
