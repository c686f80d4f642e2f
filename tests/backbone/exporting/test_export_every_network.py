"""Every network of the table goes out to ONNX Runtime, and its weights through a file and back."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from randomize import randomize, relative_error

import backbone
from backbone.exporting import export

# A minute and more together; the others have every kind of block.
GIANTS = (
    *("cifar_resnet110", "cifar_resnet1202"),
    *("cifar_preact_resnet110", "cifar_preact_resnet164", "cifar_preact_resnet1001"),
    *("resnet101", "resnet152", "preact_resnet101", "preact_resnet152", "preact_resnet200"),
    *("wide_resnet50_2", "wide_resnet101_2", "resnext101_32x8d", "resnext101_64x4d", "vgg16", "vgg16_bn"),
)
EVERY = [pytest.param(name, marks=[pytest.mark.slow] if name in GIANTS else []) for name in backbone.list_backbones()]


def stages_of(name: str) -> tuple[str, ...]:
    table = backbone.ARCHITECTURES[name]
    return (*(() if table.family == "vgg" else ("stem",)), *table.stages, "logits")


@pytest.mark.parametrize("name", EVERY)
def test_onnx(name, tmp_path):
    import onnxruntime

    torch.manual_seed(0)
    source = randomize(backbone.create(name, out_features=stages_of(name), num_classes=3)).eval()
    size = (32, 32) if backbone.ARCHITECTURES[name].image_size == 32 else (48, 64)
    report = export(source, tmp_path / "a.onnx", input_size=size, exporter="torchscript")
    assert report.largest_difference < 1e-5
    # By hand, as a user runs it, on a size that the export did not try.
    images = torch.randn(3, 3, 45, 70)
    session = onnxruntime.InferenceSession(tmp_path / "a.onnx", providers=["CPUExecutionProvider"])
    found = dict(zip([output.name for output in session.get_outputs()], session.run(None, {"images": images.numpy()})))
    with torch.no_grad():
        expected = source(images)
    assert tuple(found) == stages_of(name)
    for stage, value in expected.items():
        assert found[stage].dtype == np.float32
        assert relative_error(torch.from_numpy(found[stage]), value) < 1e-5, stage


@pytest.mark.parametrize("name", EVERY)
def test_weights_come_back(name, tmp_path):
    torch.manual_seed(0)
    source = randomize(backbone.create(name, num_classes=3))
    backbone.save_weights(source, tmp_path / "a.safetensors")
    target = backbone.create(name, num_classes=3)
    report = backbone.load_weights(target, tmp_path / "a.safetensors")
    assert report.fits
    expected = source.state_dict()
    assert list(target.state_dict()) == list(expected)
    assert all(torch.equal(value, expected[key]) for key, value in target.state_dict().items())
