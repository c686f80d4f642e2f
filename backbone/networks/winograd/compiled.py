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
import threading
from functools import cache
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import _disable_current_modes

from ...common.cache import cache_folder
from ...common.errors import DataError
from .form import PLACES, tiles_along

SOURCE = Path(__file__).with_name("kernels.cpp")
PANEL, ROWS = 16, 12  # channels that lie together; tiles of the longest product
COMPILERS = ("g++", "c++")
TIMEOUT = 300  # seconds
# Bytes of transformed tiles at a time, of all threads.
ROOM = 256 * 2**20
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


def reads(x: Tensor) -> bool:
    """Whether a tensor's numbers lie in the CPU's memory, in float32, as they are."""
    plain = x.device.type == "cpu" and x.layout is torch.strided and x.dtype is torch.float32
    return plain and not x.is_neg() and not x._is_zerotensor()


def takes(channels: int, kernels: int) -> bool:
    return divides(channels, kernels) and is_available()


def transform_weight(weight: Tensor) -> Tensor:
    """Return the weights (K, C, 3, 3) as (36, K / 16, C, 16)."""
    taps = weight.detach().permute(2, 3, 1, 0).contiguous()
    channels, kernels = taps.shape[2:]
    _require(divides(channels, kernels) and taps.shape[:2] == (3, 3), "weights", weight)
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
    channels, kernels = pixels.shape[3], out.shape[3]
    _require(weight.shape == (PLACES, kernels // PANEL, channels, PANEL), "weights", weight)
    _require(bias is None or bias.shape == (kernels,), "bias", bias)
    bias = None if bias is None else bias.contiguous()
    widest = max(channels, kernels)
    geometry = _geometry(pixels, out, padding, 24 if widest <= 64 else 48 if widest <= 128 else 96)
    at_bias = None if bias is None else _at(bias)
    failed = _library().winograd_convolve(_at(pixels), _at(weight), at_bias, relu, _at(out), ctypes.byref(geometry))
    _check(failed)


def weight_gradient(pixels: Tensor, values: Tensor, padding: tuple[int, int]) -> Tensor:
    """As `by_torch.weight_gradient`."""
    channels, kernels = pixels.shape[3], values.shape[3]
    _require(divides(channels, kernels), "gradient", values)
    # All threads share them.
    slots = (48 if channels * kernels <= 128 * 128 else 192) * torch.get_num_threads()
    geometry = _geometry(pixels, values, padding, slots, shared=True)
    taps = pixels.new_empty((3, 3, channels, kernels))
    _check(_library().winograd_weight_gradient(_at(pixels), _at(values), _at(taps), ctypes.byref(geometry)))
    return taps.permute(3, 2, 0, 1)


def by_pixels(x: Tensor) -> Tensor:
    """As `by_torch.by_pixels`."""
    if x.stride(1) == 1:
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


def _geometry(
    pixels: Tensor, values: Tensor, padding: tuple[int, int], slots: int, *, shared: bool = False
) -> _Geometry:
    """Return the geometry of a convolution from pixels (N, H, W, C) to values (N, H', W', K).

    Args:
        slots: the tiles that are worked on at a time, by each thread or `shared` by all.
    """
    images, height, width, kernels = values.shape
    channels = pixels.shape[3]
    _require(pixels.shape[0] == images, "gradient", values)
    _require(pixels.shape[1] + 2 * padding[0] - 2 == height, "gradient", values)
    _require(pixels.shape[2] + 2 * padding[1] - 2 == width, "gradient", values)
    _require(pixels.stride(3) == values.stride(3) == 1 or not values.numel(), "layout", pixels)
    threads = torch.get_num_threads()
    tiles = images * tiles_along(height) * tiles_along(width)
    sharing = 1 if shared else threads
    # Each thread gets some, in whole products.
    share = -(-tiles // (sharing * ROWS)) * ROWS
    most = ROOM // (4 * PLACES * (channels + kernels) * sharing)
    maps = (_Maps(*x.shape[1:3], *x.stride()[:3]) for x in (pixels, values))
    return _Geometry(images, channels, kernels, *padding, max(ROWS, min(slots, share, most)), threads, *maps)


def _at(tensor: Tensor) -> int:
    """Return where a tensor's numbers lie; of one whose numbers are not simply there, raise TypeError."""
    if not reads(tensor):
        raise TypeError(f"the kernels read float32 in memory, not {tensor.dtype} of {tensor.device}, {tensor.layout}")
    return tensor.data_ptr()


def _require(fits: bool, what: str, tensor: Tensor | None) -> None:
    """Raise ValueError for a tensor that does not fit: the kernels would read or write beyond others."""
    if not fits:
        raise ValueError(f"{what} of shape {tuple(tensor.shape) if tensor is not None else None} do not fit the images")


def _check(failed: int) -> None:
    if failed:
        raise MemoryError("not enough memory for a convolution in Winograd's form")


def _library() -> ctypes.CDLL:
    library = _load()[0]
    assert library is not None, "asked before `takes`"
    return library


_LOCK = threading.Lock()


def _load() -> tuple[ctypes.CDLL | None, str]:
    """Return the library, or None and why there is none."""
    with _LOCK:
        return _load_once()


@cache
def _load_once() -> tuple[ctypes.CDLL | None, str]:
    try:
        library = _declared(_opened())
    except (_MissingError, OSError) as error:
        return None, str(error)
    # Whatever mode the first call is in, the library's verdict is for all.
    with _disable_current_modes(), torch.device("cpu"), torch.no_grad(), torch.autocast("cpu", enabled=False):
        right = _is_right(library)
    return (library, "") if right else (None, "the compiled kernels give other values than torch")


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
    """
    if os.name != "posix":
        raise _MissingError(f"not made for {os.name}")
    reasons = []
    for compiler in _compilers():
        try:
            return _of_compiler(compiler)
        except _MissingError as error:
            reasons.append(str(error))
    raise _MissingError(reasons[0] if reasons else "no C++ compiler was found (g++, or $CXX)")


def _of_compiler(compiler: list[str]) -> ctypes.CDLL:
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
            library = _load_made(made, compiler)
            made.replace(path)
    except (OSError, DataError):
        # The folder cannot be written to; a library stays open without its file.
        with tempfile.TemporaryDirectory() as room:
            library = _load_made(_compile(compiler, Path(room)), compiler)
    return library


def _load_file(path: Path) -> ctypes.CDLL | None:
    """Return a library that was made before, None where it is damaged."""
    try:
        return ctypes.CDLL(str(path))
    except OSError:
        return None


def _load_made(path: Path, compiler: list[str]) -> ctypes.CDLL:
    if (library := _load_file(path)) is None:
        raise _MissingError(f"what {compiler[0]} makes cannot be loaded; it has to be GCC, whose OpenMP torch has")
    return library


def _compilers() -> list[list[str]]:
    """Return the commands of the C++ compilers that there are, by their full paths: $CXX, g++, c++."""
    found = []
    for command in (os.environ.get("CXX") or "", *COMPILERS):
        try:
            words = shlex.split(command)
        except ValueError as error:
            raise _MissingError(f"$CXX is {command!r}: {error}") from error
        if words and (path := shutil.which(words[0])):
            found.append([path, *words[1:]])
    return found


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
    """Whether the library gives torch's values and gradients for a small layer, every kind of block in it."""
    generator = torch.Generator().manual_seed(0)
    # 17 tiles, cut ones among them.
    shapes = ((1, 32, 3, 66), (16, 32, 3, 3), (16,), (1, 16, 3, 66))
    x, weight, bias, toward = (torch.randn(shape, generator=generator, dtype=torch.float32) for shape in shapes)
    empty = (x.new_empty(shape) for shape in ((1, 3, 66, 32), (1, 3, 66, 16), (PLACES, 1, 32, PANEL), (3, 3, 32, 16)))
    pixels, values, places, taps = empty
    back = torch.empty_like(x)
    rows = weight.permute(2, 3, 1, 0).contiguous()
    given = toward.permute(0, 2, 3, 1).contiguous()
    geometry = _geometry(pixels, values, (1, 1), 24)
    library.winograd_turn(_at(x), _at(pixels), 1, 32, 3 * 66, 1)
    library.winograd_turn(_at(pixels), _at(back), 1, 3 * 66, 32, 1)
    library.winograd_transform_weight(_at(rows), _at(places), 32, 16, 1)
    failed = library.winograd_convolve(_at(pixels), _at(places), _at(bias), 1, _at(values), ctypes.byref(geometry))
    failed += library.winograd_weight_gradient(_at(pixels), _at(given), _at(taps), ctypes.byref(geometry))
    grad = torch.ops.aten.convolution_backward(
        toward, x, weight, None, [1, 1], [1, 1], [1, 1], False, [0, 0], 1, [False, True, False]
    )[1]
    wanted = F.conv2d(x, weight, bias, padding=1).relu()
    pairs = (back, x), (values, wanted.permute(0, 2, 3, 1)), (taps, grad.permute(2, 3, 1, 0))
    near = (bool((ours - torchs).abs().max() <= TOLERANCE * torchs.abs().max()) for ours, torchs in pairs)
    return not failed and all(near)
