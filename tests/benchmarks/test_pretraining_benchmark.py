"""The benchmarks of pretraining: three loops on the same weights, and CIFAR's forms."""

from __future__ import annotations

import importlib.util

import pytest
import torch

from backbone.common.errors import RunError
from backbone.engine import timing
from benchmarks import cifar, classifiers, folders, pretraining

SMALL = {"batch": 4, "size": 64, "device": "cpu"}
LOOPS = ["torchvision", *(["timm"] if importlib.util.find_spec("timm") else []), "ours"]


@pytest.fixture(scope="module")
def loops():
    return classifiers.make_loops("resnet18", classifiers.Setting(), **SMALL)


def test_the_loops_compute_the_same_and_learn(loops):
    assert list(loops) == LOOPS
    assert pretraining.check_agreement(loops, **SMALL) < 1e-5
    pixels, labels = pretraining._batch(**SMALL)
    for loop in loops.values():
        before = loop.network.fc.weight.detach().clone()
        loop.step(loop.inputs(pixels), labels)
        assert not torch.equal(loop.network.fc.weight, before)
    weights = [loop.network.fc.weight for loop in loops.values()]
    # timm's SGD has Nesterov's momentum, torchvision's and ours have not.
    assert torch.allclose(weights[0], weights[-1], atol=1e-6)


def test_another_weight_is_noticed():
    loops = classifiers.make_loops("resnet18", classifiers.Setting(), **SMALL)
    with torch.no_grad():
        loops["ours"].network.fc.bias.add_(torch.randn(classifiers.CLASSES))
    with pytest.raises(RunError, match="apart with the same weights"):
        pretraining.check_agreement(loops, **SMALL)


def test_section(monkeypatch):
    monkeypatch.setattr(pretraining, "SETTINGS", pretraining.SETTINGS[:1])
    section = pretraining.measure(
        batch=2, rounds=1, device="cpu", compiled=False, images=None, name="resnet18", size=64
    )
    assert [row[:4] for row in section.rows] == [["on the device", name, "float32", "plain"] for name in LOOPS]
    assert all(len(row) == len(section.header) for row in section.rows)
    assert section.figures["float32, plain"]["torchvision"]["times_torchvision"] == 1
    assert section.figures["float32, plain"]["ours"]["bytes"] > 0


def test_files(shared_data, loops):
    files = pretraining.find_images(shared_data / "imagenet_sample" / "images")[:5]
    ways = folders.file_ways(files, loops, steps=2, workers=0, **SMALL)
    before = {name: loops[name].network.fc.weight.detach().clone() for name in ways}
    for run in ways.values():
        run()
    assert all(not torch.equal(loops[name].network.fc.weight, weight) for name, weight in before.items())
    batches = list(folders.our_batches(files, batch=4, size=64, workers=0, device=torch.device("cpu"))(3))
    assert [tuple(batch.images.shape) for batch in batches] == [(4, 3, 64, 64)] * 3
    assert batches[0].images.dtype == torch.uint8


def test_forms_of_cifar(monkeypatch):
    graphs = ["CUDA graphs", "CUDA graphs, channels_last", "CUDA graphs, channels_last, bfloat16"]
    assert list(cifar.forms_of("cuda", compiled=True)) == ["plain", *graphs, "compiled", "compiled, CUDA graphs"]
    assert list(cifar.forms_of("cpu", compiled=True)) == ["plain", "compiled"]
    monkeypatch.setitem(cifar.STEPS, "cpu", 1)
    section = cifar.measure(rounds=1, device="cpu", compiled=False)
    assert [row[0] for row in section.rows] == ["plain"]
    assert section.figures["plain"]["times_plain"] == 1


def test_what_does_not_run_is_left_out():
    def fails() -> None:
        raise RuntimeError("no compiler here\nand more")

    running, failed = timing.only_those_that_run({"a": int, "b": fails}, keep=lambda name: name == "a")
    assert (list(running), failed) == (["a"], {"b": "no compiler here"})
    with pytest.raises(RuntimeError, match="no compiler"):
        timing.only_those_that_run({"b": fails}, keep=lambda name: True)
