"""Memory without computing anything against what real networks save, hold and allocate on the CPU."""

from __future__ import annotations

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

import backbone
from backbone.analysis import analyse

SIZE = (96, 128)
KINDS = {"bn": {}, "frozen_bn": {"freeze_at": 2}}
# Vectors of BN's statistics and the like, beside the feature maps.
TOLERANCE = 0.01


def build(name: str, kind: str, **keywords) -> backbone.Backbone:
    keywords = {**KINDS[kind], "norm": kind, **keywords}
    return backbone.create(name, num_classes=10, **keywords).train()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["resnet50", "cifar_resnet20", "preact_resnet18", "vgg16_bn"])
def test_kept_equals_what_autograd_saves(name, kind):
    report = analyse(name, size=SIZE, batch_size=2, num_classes=10)
    net, saved = build(name, kind), {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        saved[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        net(torch.randn(2, 3, *SIZE))
    own = {tensor.untyped_storage().data_ptr() for tensor in (*net.parameters(), *net.buffers())}
    measured = sum(tensor.untyped_storage().nbytes() for key, tensor in saved.items() if key not in own)
    assert report.kept(kind) == pytest.approx(measured, rel=TOLERANCE)


def allocated(run) -> list[int]:
    """Bytes that `run` allocates and frees, one after the other, as torch's own allocator tells them."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as record:
        result = run()
    events = sorted(record.profiler.kineto_results.events(), key=lambda event: event.start_ns())
    del result
    return [event.nbytes() for event in events if event.name() == "[memory]"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_kept_is_what_stays_allocated_after_the_forward_pass(name, kind):
    """The network's outputs stay too, where the backward pass does not need them: those of frozen stages."""
    report = analyse(name, size=SIZE, batch_size=2, num_classes=10, out_features=["logits"])
    net, images = build(name, kind, out_features=["logits"]), torch.randn(2, 3, *SIZE)
    stays = sum(allocated(lambda: net(images)))
    kept = report.kept(kind) - (images.numel() * 4 if kind == "bn" else 0)
    assert kept == pytest.approx(stays, rel=0.03)


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "preact_resnet18"])
@pytest.mark.parametrize("norm", ["bn", "frozen_bn"])
def test_peak_of_inference(name, norm):
    """Real allocations reach the estimate; on top come one layer's input, output or weights in oneDNN's own layout."""
    size, batch = (320, 320), 4
    report = analyse(name, size=size, batch_size=batch, num_classes=10, norm=norm)
    net, images = backbone.create(name, num_classes=10, norm=norm).eval(), torch.randn(batch, 3, *size)
    with torch.no_grad():
        changes = allocated(lambda: net(images))
    live, most = images.numel() * 4, 0
    for change in changes:
        live += change
        most = max(most, live)
    estimate = report.inference - report.weights
    assert 0.99 * estimate < most < 1.25 * estimate


def test_weights_gradients_and_momentum():
    report = analyse("resnet18", size=(64, 64), num_classes=10)
    net = backbone.create("resnet18", num_classes=10)
    weights = sum(t.numel() * t.element_size() for t in (*net.parameters(), *net.buffers()))
    assert report.weights == weights
    trained = sum(parameter.numel() * 4 for parameter in net.parameters())
    assert report.training["bn"] == weights + 2 * trained + report.kept("bn")
    assert report.training["frozen_bn"] < report.training["bn"] - report.kept("bn") + report.kept("frozen_bn")


def test_freezing_more_keeps_less():
    kept = [analyse("resnet18", size=(64, 64), freeze_at=stages).kept("frozen_bn") for stages in range(6)]
    assert kept == sorted(kept, reverse=True) and len(set(kept)) == 6
    by_stage = {stage.name: stage.kept["frozen_bn"] for stage in analyse("resnet18", freeze_at=3).stages}
    assert by_stage["stem"] == by_stage["res2"] == by_stage["res3"] == 0 < by_stage["res4"]


def test_another_norm_is_a_third_kind():
    report = analyse("resnet18", norm="gn", size=(64, 64))
    assert list(report.training) == ["gn", "bn", "frozen_bn"]
    assert report.kept("frozen_bn") < report.kept("gn")


def test_where_bn_cannot_train():
    """One image whose last map is one pixel: torch's BN refuses."""
    report = analyse("resnet18", size=(32, 32))
    assert report.training["bn"] is None and report.kept("bn") is None
    assert report.training["frozen_bn"] > report.weights
    assert analyse("resnet18", size=(32, 32), batch_size=2).kept("bn") > 0
