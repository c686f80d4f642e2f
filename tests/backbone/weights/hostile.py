"""Weights files that try to run code when they are read. What they would run makes a marker file."""

from __future__ import annotations

import builtins
import os
import pickle
import subprocess
import tarfile
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch


class _Calls:
    """Pickled, it is the order to call `function` when it is read."""

    def __init__(self, function: Callable, *arguments: object) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[Callable, tuple]:
        return self.call


PAYLOADS: dict[str, Callable[[Path], _Calls]] = {
    "os.system": lambda marker: _Calls(os.system, f"touch '{marker}'"),
    "builtins.eval": lambda marker: _Calls(builtins.eval, f"open({str(marker)!r}, 'w').close()"),
    "builtins.exec": lambda marker: _Calls(builtins.exec, f"open({str(marker)!r}, 'w').close()"),
    "io.open": lambda marker: _Calls(open, str(marker), "w"),
    "subprocess.Popen": lambda marker: _Calls(subprocess.check_output, ["touch", str(marker)]),
}


def _object_array(value: Any) -> np.ndarray:
    array = np.empty(1, dtype=object)
    array[0] = value
    return array


def _legacy(content: Any, path: Path) -> None:
    torch.save(content, path, _use_new_zipfile_serialization=False)


def _npz(content: Any, path: Path) -> None:
    np.savez(path, weight=_object_array(content))


def _replaced_pickle(content: Any, path: Path) -> None:
    """A sound torch archive in which data.pkl alone is another."""
    sound = path.with_suffix(".sound")
    torch.save({"weight": torch.ones(2)}, sound)
    with zipfile.ZipFile(sound) as source, zipfile.ZipFile(path, "w") as target:
        for name in source.namelist():
            target.writestr(name, pickle.dumps(content, 2) if name.endswith("data.pkl") else source.read(name))
    sound.unlink()


def _behind_the_legacy_magic(content: Any, path: Path) -> None:
    magic = pickle.dumps(0x1950A86A20F9469CFC6C, 2)
    path.write_bytes(magic + pickle.dumps(content, 2) * 3)


def _tar(content: Any, path: Path) -> None:
    inner = path.with_suffix(".inner")
    inner.write_bytes(pickle.dumps(content, 2))
    with tarfile.open(path, "w") as tar:
        tar.add(inner, "pickle")
        tar.add(inner, "sys_info")
    inner.unlink()


WRITERS: dict[str, tuple[str, Callable[[Any, Path], object]]] = {
    **{
        f"pickle {protocol}": (".pkl", lambda content, path, p=protocol: path.write_bytes(pickle.dumps(content, p)))
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1)
    },
    "torch zip": (".pth", torch.save),
    "torch legacy": (".pth", _legacy),
    "torch zip, data.pkl replaced": (".pth", _replaced_pickle),
    "behind torch's legacy magic": (".pth", _behind_the_legacy_magic),
    "npz": (".npz", _npz),
    "tar": (".pth.tar", _tar),
}

WRAPPERS: dict[str, Callable[[Any], Any]] = {
    "alone": lambda bad: bad,
    "beside weights": lambda bad: {"model": OrderedDict(weight=np.ones(2, np.float32), extra=bad)},
    "in an array": lambda bad: {"model": {"weight": _object_array(bad)}},
}


def write_hostile(path: Path, payload: str, wrapper: str, writer: str, marker: Path) -> Path:
    """Write the file; `path` gets the suffix that fits its kind."""
    suffix, write = WRITERS[writer]
    path = path.with_name(path.name + suffix)
    write(WRAPPERS[wrapper](PAYLOADS[payload](marker)), path)
    return path
