"""How the kernels are compiled: once for a processor, by the compiler that is there, and never taken unproven."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from backbone.networks.winograd import by_torch, compiled, form
from backbone.networks.winograd.convolution import implementation


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A cache folder of its own, and nothing loaded."""
    monkeypatch.setenv("RESNET_DETECTION_CACHE", str(tmp_path / "cache"))
    compiled._load_once.cache_clear()
    yield tmp_path / "cache" / "kernels"
    compiled._load_once.cache_clear()


@pytest.fixture
def compiler():
    found = compiled._compilers()
    return found[0] if found else pytest.skip("there is no C++ compiler")


def test_compiled_once(cache, compiler, monkeypatch):
    assert compiled.is_available() and compiled.why_not() == ""
    (library,) = cache.iterdir()
    made = library.stat().st_mtime_ns
    compiled._load_once.cache_clear()
    monkeypatch.setattr(compiled, "_compile", lambda *args: pytest.fail("compiled again"))
    assert compiled.is_available()
    assert library.stat().st_mtime_ns == made


def test_without_a_compiler(cache, monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    assert not compiled.is_available()
    assert compiled.why_not() == "no C++ compiler was found (g++, or $CXX)"
    assert implementation(256, 256) is by_torch
    assert not list(cache.parent.rglob("*.so"))


def script(path, text):
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def test_a_compiler_that_fails(cache, tmp_path, monkeypatch):
    monkeypatch.setenv("CXX", script(tmp_path / "broken", "echo 'no such option' >&2; exit 1"))
    monkeypatch.setattr(compiled, "COMPILERS", ())
    assert not compiled.is_available()
    assert compiled.why_not() == "the C++ compiler failed: no such option"
    assert not list(cache.rglob("*"))


def test_a_compiler_whose_library_does_not_load_runs_once(cache, compiler, tmp_path, monkeypatch):
    path = tmp_path / "other"
    monkeypatch.setenv("CXX", script(path, f'echo >> {path}.calls; exec {compiler[0]} "$@"'))
    # As one whose OpenMP the process does not have.
    monkeypatch.setattr(compiled, "_load_file", lambda path: None)
    monkeypatch.setattr(compiled, "COMPILERS", ())
    assert not compiled.is_available()
    assert compiled.why_not() == f"what {path} makes cannot be loaded; it has to be GCC, whose OpenMP torch has"
    assert len((tmp_path / "other.calls").read_text().splitlines()) == 2  # compiled and linked


def test_the_next_compiler_is_taken(cache, compiler, tmp_path, monkeypatch):
    monkeypatch.setenv("CXX", script(tmp_path / "broken", "exit 1"))
    assert compiled.is_available()


def test_a_compiler_with_an_open_quote(cache, monkeypatch):
    monkeypatch.setenv("CXX", 'g++ "')
    assert not compiled.is_available()
    assert compiled.why_not() == "$CXX is 'g++ \"': No closing quotation"


MODES = {
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "meta": lambda: torch.device("meta"),
    "fake": FakeTensorMode,
    "inference": torch.inference_mode,
}


@pytest.mark.parametrize("mode", MODES.values(), ids=MODES)
def test_the_first_call_in_any_mode(mode, cache, compiler):
    with mode():
        assert compiled.is_available(), compiled.why_not()


def test_the_first_call_with_other_default_numbers(cache, compiler):
    torch.set_default_dtype(torch.float64)
    try:
        assert compiled.is_available(), compiled.why_not()
    finally:
        torch.set_default_dtype(torch.float32)


# Each of them in one place that other blocks do not use.
FAULTS = {
    "input": ("- 1.25f * d[2]", "- 1.26f * d[2]"),
    "bias": ("places[j] += shift", "places[j] -= shift"),
    "ReLU": ("if (relu)", "if (!relu)"),
    "one tile": ("product<1>(rows + t * PANEL, w,", "product<1>(rows + t * PANEL, w + 1,"),
    "four tiles": ("product<4>(rows + t * PANEL, w,", "product<4>(rows + t * PANEL, w + 1,"),
    "weights": ("outer<4>(rows + 12,", "outer<4>(rows + 11,"),
    "turn": ("block[j][i] = in[i * columns + j]", "block[j][i] = in[i * columns]"),
}


@pytest.mark.parametrize("right, wrong", FAULTS.values(), ids=FAULTS)
def test_wrong_kernels_are_not_taken(right, wrong, cache, compiler, tmp_path, monkeypatch):
    if wrong.startswith("outer<4>") and "avx512f" in compiled._processor():
        pytest.skip("longer vectors take other blocks")
    source = tmp_path / "kernels.cpp"
    assert right in (text := compiled.SOURCE.read_text())
    source.write_text(text.replace(right, wrong))
    monkeypatch.setattr(compiled, "SOURCE", source)
    assert not compiled.is_available()
    assert compiled.why_not() == "the compiled kernels give other values than torch"


def test_a_damaged_library_is_made_again(cache, compiler):
    assert compiled.is_available()
    (library,) = cache.iterdir()
    whole = library.read_bytes()
    library.unlink()  # this process has it open
    library.write_bytes(whole[:100])
    code = "from backbone.networks.winograd import compiled; print(compiled.is_available(), compiled.why_not())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "True \n"
    assert len(library.read_bytes()) == len(whole)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write everywhere")
def test_a_cache_that_cannot_be_written(cache, compiler):
    cache.parent.mkdir()
    cache.parent.chmod(0o500)
    assert compiled.is_available()
    assert not list(cache.parent.iterdir())


def test_a_cache_that_is_a_file(cache, compiler):
    cache.parent.write_text("")
    assert compiled.is_available()


@pytest.mark.parametrize("lanes", [4, 8, 16])
def test_vectors_of_other_processors(lanes, compiler, tmp_path):
    """The kernels for vectors of other lengths, which the compiler makes of shorter ones."""
    library = compiled._compile([*compiler, f"-DLANES={lanes}", "-Wno-psabi"], tmp_path)
    assert compiled._is_right(compiled._declared(ctypes.CDLL(str(library))))


def test_the_matrices_are_those_of_the_form():
    """A place of the input, of the weight and of the product each, transformed as `form` writes it."""
    if not compiled.is_available():
        pytest.skip(compiled.why_not())
    torch.manual_seed(0)
    weight = torch.randn(16, 32, 3, 3)
    ours, theirs = compiled.transform_weight(weight), compiled.pack(by_torch.transform_weight(weight))
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)
    matrices = [torch.tensor(matrix, dtype=torch.float64) for matrix in (form.PIXELS, form.WEIGHTS, form.SUMS)]
    pixels, taps = torch.randn(6, dtype=torch.float64), torch.randn(3, dtype=torch.float64)
    found = matrices[2] @ ((matrices[0] @ pixels) * (matrices[1] @ taps))
    wanted = torch.stack([(pixels[i : i + 3] * taps).sum() for i in range(4)])
    torch.testing.assert_close(found, wanted)
