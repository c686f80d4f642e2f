"""Winograd's form by `kernels.cpp`, compiled once on this machine for its processor.

Where there is no C++ compiler, or what it made is wrong, `by_torch` takes its place.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import shlex
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from ...common.cache import cache_folder
from ...common.errors import DataError

SOURCE = Path(__file__).with_name("kernels.cpp")
PANEL, PLACES, TILE, ROWS = 16, 36, 4, 12
COMPILERS = ("g++", "c++")
TIMEOUT = 300  # seconds
# Of one layer of random numbers, compared with torch's operator before the library is taken.
TOLERANCE = 1e-4


class _Maps(ctypes.Structure):
    _fields_ = [(name, ctypes.c_int64) for name in ("height", "width", "of_image", "of_row", "of_pixel")]


class _Geometry(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_int64) for name in ("images", "inputs", "outputs", "top", "left", "slots", "threads")),
        ("x", _Maps),
        ("y", _Maps),
    ]


class _MissingError(Exception):
    """There is no library; the message says why, for a person."""


def divides(channels: int, kernels: int) -> bool:
    """Whether the kernels take a convolution of so many channels of input and output."""
    return not (channels % PANEL or kernels % PANEL) and channels > 0 and kernels > 0


def is_available() -> bool:
    """Whether the kernels can run here; the first call compiles them, which takes seconds."""
    return _load()[0] is not None


def why_not() -> str:
    """Return why the kernels cannot run here, "" where they can."""
    return _load()[1]


def takes(channels: int, kernels: int) -> bool:
    return divides(channels, kernels) and is_available()


def transform_weight(weight: Tensor) -> Tensor:
    """Return the weights (K, C, 3, 3) as (36, K / 16, C, 16)."""
    taps = weight.detach().permute(2, 3, 1, 0).contiguous()
    channels, kernels = taps.shape[2:]
    out = taps.new_empty((PLACES, kernels // PANEL, channels, PANEL))
    _library().winograd_transform_weight(_at(taps), _at(out), channels, kernels, torch.get_num_threads())
    return out


def pack(places: Tensor) -> Tensor:
    """Return transformed weights (36, C, K) as (36, K / 16, C, 16)."""
    channels, kernels = places.shape[1:]
    return places.view(PLACES, channels, kernels // PANEL, PANEL).transpose(1, 2).contiguous()


def write(
    pixels: Tensor, weight: Tensor, bias: Tensor | None, padding: tuple[int, int], out: Tensor, *, relu: bool = False
) -> None:
    """As `by_torch.write`, with weights of `transform_weight`."""
    bias = None if bias is None else bias.contiguous()
    widest = max(pixels.shape[3], out.shape[3])
    geometry = _geometry(pixels, out, padding, 24 if widest <= 64 else 48 if widest <= 128 else 96)
    at_bias = None if bias is None else _at(bias)
    failed = _library().winograd_convolve(_at(pixels), _at(weight), at_bias, relu, _at(out), ctypes.byref(geometry))
    _check(failed)


def weight_gradient(pixels: Tensor, values: Tensor, padding: tuple[int, int]) -> Tensor:
    """As `by_torch.weight_gradient`."""
    channels, kernels = pixels.shape[3], values.shape[3]
    geometry = _geometry(pixels, values, padding, 48 if channels * kernels <= 128 * 128 else 192)
    taps = pixels.new_empty((3, 3, channels, kernels))
    _check(_library().winograd_weight_gradient(_at(pixels), _at(values), _at(taps), ctypes.byref(geometry)))
    return taps.permute(3, 2, 0, 1)


def by_pixels(x: Tensor) -> Tensor:
    """As `by_torch.by_pixels`."""
    if x.is_contiguous(memory_format=torch.channels_last):
        return x.permute(0, 2, 3, 1)
    images, channels, height, width = x.shape
    out = x.new_empty((images, height, width, channels))
    # Kept until it has been read.
    x = x.contiguous()
    _library().winograd_turn(_at(x), _at(out), images, channels, height * width, torch.get_num_threads())
    return out


def by_channels(pixels: Tensor) -> Tensor:
    """As `by_torch.by_channels`."""
    images, height, width, channels = pixels.shape
    out = pixels.new_empty((images, channels, height, width))
    _library().winograd_turn(_at(pixels), _at(out), images, height * width, channels, torch.get_num_threads())
    return out


def new_pixels(like: Tensor, images: int, height: int, width: int, channels: int) -> Tensor:
    """As `by_torch.new_pixels`."""
    return like.new_empty((images, height, width, channels))


def _geometry(pixels: Tensor, values: Tensor, padding: tuple[int, int], slots: int) -> _Geometry:
    """Return the geometry of a convolution from pixels (N, H, W, C) to values (N, H', W', K)."""
    images, height, width, kernels = values.shape
    threads = torch.get_num_threads()
    tiles = images * -(-height // TILE) * -(-width // TILE)
    # Each thread gets some, in whole products.
    share = -(-tiles // (threads * ROWS)) * ROWS
    maps = (_Maps(*x.shape[1:3], *x.stride()[:3]) for x in (pixels, values))
    return _Geometry(images, pixels.shape[3], kernels, *padding, max(1, min(slots, share)), threads, *maps)


def _at(tensor: Tensor) -> int:
    return tensor.data_ptr()


def _check(failed: int) -> None:
    if failed:
        raise MemoryError("not enough memory for a convolution in Winograd's form")


def _library() -> ctypes.CDLL:
    library = _load()[0]
    assert library is not None, "asked before `takes`"
    return library


@cache
def _load() -> tuple[ctypes.CDLL | None, str]:
    """Return the library, or None and why there is none."""
    try:
        library = _declared(_opened())
    except (_MissingError, OSError) as error:
        return None, str(error)
    return (library, "") if _is_right(library) else (None, "the compiled kernels give other values than torch")


def _declared(library: ctypes.CDLL) -> ctypes.CDLL:
    pointer, number = ctypes.c_void_p, ctypes.c_int64
    library.winograd_transform_weight.argtypes = [pointer, pointer, number, number, number]
    library.winograd_transform_weight.restype = None
    library.winograd_turn.argtypes = [pointer, pointer, number, number, number, number]
    library.winograd_turn.restype = None
    library.winograd_convolve.argtypes = [pointer, pointer, pointer, ctypes.c_int, pointer, pointer]
    library.winograd_weight_gradient.argtypes = [pointer] * 4
    return library


def _opened() -> ctypes.CDLL:
    """Return the library of this source, processor and compiler, made now or before.

    Raises:
        _MissingError: there is none, and it cannot be made.
        OSError: it cannot be loaded.
    """
    if os.name != "posix":
        raise _MissingError(f"not made for {os.name}")
    compiler = _compiler()
    key = hashlib.sha256("\n".join([SOURCE.read_text(), _processor(), *compiler]).encode()).hexdigest()[:16]
    try:
        folder = cache_folder() / "kernels"
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"winograd-{key}.so"
        # What another user has put there is not run.
        if path.is_file() and path.stat().st_uid == os.getuid() and (library := _load_file(path)):
            return library
        with tempfile.TemporaryDirectory(dir=folder) as room:
            made = _compile(compiler, Path(room))
            library = ctypes.CDLL(str(made))
            made.replace(path)
    except (OSError, DataError):
        # The folder cannot be written to; a library stays open without its file.
        with tempfile.TemporaryDirectory() as room:
            library = ctypes.CDLL(str(_compile(compiler, Path(room))))
    return library


def _load_file(path: Path) -> ctypes.CDLL | None:
    """Return a library that was made before, None where it is damaged."""
    try:
        return ctypes.CDLL(str(path))
    except OSError:
        return None


def _compiler() -> list[str]:
    """Return the command of the C++ compiler: $CXX, else g++ or c++, by its full path."""
    for command in (os.environ.get("CXX"), *COMPILERS):
        words = shlex.split(command or "")
        if words and (found := shutil.which(words[0])):
            return [found, *words[1:]]
    raise _MissingError("no C++ compiler was found (g++, or $CXX)")


def _processor() -> str:
    """Return what the compiler will make of this processor: a library of another one may not run here."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = ("model name", "flags", "Features", "CPU part")
    return "\n".join([os.uname().machine, *sorted({line for line in lines if line.startswith(names)})])


def _compile(compiler: list[str], room: Path) -> Path:
    """Compile the kernels into a library in the folder `room`."""
    made, library = room / "kernels.o", room / "kernels.so"
    # Not linked with a library of OpenMP: the process has torch's, and a second one would take its threads' time.
    commands = (
        [*compiler, "-O3", "-march=native", "-fopenmp", "-fPIC", "-c", str(SOURCE), "-o", str(made)],
        [*compiler, "-shared", str(made), "-o", str(library)],
    )
    for command in commands:
        try:
            done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=TIMEOUT)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise _MissingError(f"the C++ compiler did not run: {error}") from error
        if done.returncode:
            first = next(iter(done.stderr.strip().splitlines()), f"exit status {done.returncode}")
            raise _MissingError(f"the C++ compiler failed: {first}")
    return library


def _is_right(library: ctypes.CDLL) -> bool:
    """Whether the library gives torch's values and gradients for a small layer."""
    generator = torch.Generator().manual_seed(0)
    x, weight = (torch.randn(shape, generator=generator) for shape in ((2, 7, 9, 32), (16, 32, 3, 3)))
    values = torch.randn((2, 7, 9, 16), generator=generator)
    places, taps = x.new_empty(PLACES, 1, 32, PANEL), x.new_empty(3, 3, 32, 16)
    out, geometry = torch.empty_like(values), _geometry(x, values, (1, 1), 24)
    rows = weight.permute(2, 3, 1, 0).contiguous()
    library.winograd_transform_weight(_at(rows), _at(places), 32, 16, 1)
    library.winograd_convolve(_at(x), _at(places), None, 0, _at(out), ctypes.byref(geometry))
    library.winograd_weight_gradient(_at(x), _at(values), _at(taps), ctypes.byref(geometry))
    first, last = x.permute(0, 3, 1, 2), values.permute(0, 3, 1, 2)
    grad = torch.ops.aten.convolution_backward(
        last, first, weight, None, [1, 1], [1, 1], [1, 1], False, [0, 0], 1, [False, True, False]
    )[1]
    pairs = (out, F.conv2d(first, weight, padding=1).permute(0, 2, 3, 1)), (taps, grad.permute(2, 3, 1, 0))
    return all((ours - torchs).abs().max() <= TOLERANCE * torchs.abs().max() for ours, torchs in pairs)
