"""The benchmark of whole detectors: detectron2's and ours compute the same, and every form of ours does."""

from __future__ import annotations

import pytest
import torch

from backbone.common.errors import RunError
from benchmarks import detectors, scenes, stock, variants
from benchmarks.variants import OURS, PEER, Variant, Way
from detection import register

SIZE, REGIONS = (64, 96), 6


@pytest.fixture(scope="module", autouse=True)
def registered():
    register()


@pytest.fixture(scope="module")
def batch() -> list[dict]:
    return scenes.drawn_batches(SIZE, batch=2, batches=1)[0]


@pytest.fixture(scope="module", params=["r50_fpn", pytest.param("r50_c4", marks=pytest.mark.slow)])
def pair(request, batch) -> stock.Pair:
    return stock.make_pair(request.param, batch, "cpu", REGIONS)


def detections(model: torch.nn.Module, batch: list[dict], dtype: torch.dtype | None = None) -> torch.Tensor:
    with torch.autocast("cpu", dtype or torch.bfloat16, enabled=dtype is not None):
        return stock._detections(model.eval(), batch)


def test_both_compute_the_same(pair, batch):
    assert stock.check_agreement(pair, batch) < 1e-6
    assert len(detections(pair.stock, batch)) > 0, "nothing found compares nothing"


def test_another_weight_is_noticed(pair, batch):
    weight = pair.stock.roi_heads.box_predictor.cls_score.weight
    before = weight.detach().clone()
    with torch.no_grad():
        weight.add_(torch.randn_like(weight) * 1e-2)
    try:
        with pytest.raises(RunError):
            stock.check_agreement(pair, batch)
    finally:
        with torch.no_grad():
            weight.copy_(before)


def test_folded_it_finds_the_same(pair, batch):
    expected = detections(pair.ours, batch)
    found = detections(variants.make_model(pair, Variant(OURS, fold=True)), batch)
    assert found.shape == expected.shape
    assert torch.allclose(found[:, 4], expected[:, 4], atol=1e-3)


def test_a_step_changes_nothing(pair, batch):
    way = Way(pair, Variant(OURS, torch.bfloat16, channels_last=True), [batch], training=True)
    before = {name: value.clone() for name, value in way.model.state_dict().items()}
    way()
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in way.model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in way.model.state_dict().items())


@pytest.mark.slow
def test_section(monkeypatch):
    shown = [Variant(PEER), Variant(OURS)]
    monkeypatch.setattr(detectors, "training_variants", lambda compiled: shown)
    monkeypatch.setattr(detectors, "inference_variants", lambda compiled: [*shown, Variant(OURS, fold=True)])
    section = detectors.measure(
        "r50_fpn", data_root=None, size=SIZE, batch=1, rounds=1, device="cpu", compiled=False, regions=REGIONS
    )
    assert [row[:2] for row in section.rows] == [
        ["training", "detectron2"],
        ["training", "ours"],
        ["inference", "detectron2"],
        ["inference", "ours"],
        ["inference", "ours, fold"],
    ]
    assert all(len(row) == len(section.header) for row in section.rows)
    assert section.figures["training"]["detectron2, float32"]["times_detectron2"] == 1
    assert section.figures["training"]["ours, float32"]["bytes"] > 0
    assert section.figures["apart"] < 1e-6
    assert "in float64 are" in section.notes[0]


@pytest.mark.parametrize("variants_of", [variants.training_variants, variants.inference_variants])
def test_every_form_has_its_peer(variants_of):
    found = variants_of(compiled=True)
    assert len(set(found)) == len(found)
    for variant in found:
        assert Variant(PEER, variant.dtype) in found
    assert any(variant.compiled for variant in found)
    assert not any(variant.compiled for variant in variants_of(compiled=False))


def test_real_images(shared_data):
    batches = scenes.coco_batches(shared_data, 96, batch=2, batches=2)
    assert [len(samples) for samples in batches] == [2, 2]
    for sample in (sample for samples in batches for sample in samples):
        assert min(sample["image"].shape[1:]) <= 96 and sample["image"].is_contiguous()
        assert len(sample["instances"]) > 0
