"""load_weights: what fits is copied, what does not is named in one line and changes nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hostile import write_hostile
from safetensors.torch import save_file
from torch import Tensor, nn

import backbone
from backbone.common.errors import WeightsError


def network(seed: int, name: str = "resnet18", **keywords: object) -> nn.Module:
    """A network of random weights and statistics; its first stages alone unless `keywords` say otherwise."""
    if "num_classes" not in keywords:
        keywords = {"out_features": ("res2",), **keywords}
    torch.manual_seed(seed)
    made = backbone.create(name, norm="bn", freeze_at=0, **keywords)
    for buffer in made.buffers():
        if buffer.is_floating_point():
            buffer.uniform_(0.5, 1.5)
    return made


def state(made: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in made.state_dict().items()}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def write(folder: Path, tensors: object, name: str = "weights.pth") -> Path:
    torch.save(tensors, folder / name)
    return folder / name


def refused(made: nn.Module, path: Path, **keywords: bool) -> str:
    """Load, expect an error, check that it is one line and that nothing was changed; return the line."""
    before = state(made)
    with pytest.raises(WeightsError) as caught:
        backbone.load_weights(made, path, **keywords)
    assert same(before, state(made))
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    return message


@pytest.mark.parametrize(
    ("container", "prefix"),
    [
        (None, ""),
        ("state_dict", ""),
        ("model", "module."),
        ("model_state_dict", "model."),
        (None, "backbone."),
        (None, "module.backbone."),
        ("state_dict", "model.backbone.bottom_up."),
    ],
)
def test_containers_and_prefixes(tmp_path, container, prefix):
    source, target = network(1), network(2)
    tensors = {prefix + name: value for name, value in source.state_dict().items()}
    content = {container: tensors, "epoch": 90, "optimizer": {"lr": 0.1}} if container else tensors
    report = backbone.load_weights(target, write(tmp_path, content))
    assert same(state(source), state(target))
    assert report.fits
    assert len(report.loaded) == len(state(source))
    assert "loaded" in str(report)


def test_without_the_counters_of_bn(tmp_path):
    """Files from before torch 0.4.1 have no num_batches_tracked; ours with frozen BN neither."""
    source, target = network(1), network(2)
    tensors = {name: value for name, value in state(source).items() if "num_batches_tracked" not in name}
    assert backbone.load_weights(target, write(tmp_path, tensors)).fits
    assert same(tensors, {name: value for name, value in state(target).items() if name in tensors})
    frozen = backbone.create("resnet18", norm="frozen_bn", out_features=("res2",))
    assert backbone.load_weights(frozen, write(tmp_path, state(source))).fits
    assert same(state(frozen), tensors)


def test_another_depth(tmp_path):
    path = write(tmp_path, state(network(1, "resnet18")))
    message = refused(network(2, "resnet34"), path)
    assert "does not fit resnet34" in message
    assert "missing (layer1.2.conv1.weight" in message
    message = refused(network(2, "resnet50"), path)
    assert "does not fit resnet50" in message
    assert "of another shape" in message
    # The other way round it has too much.
    path = write(tmp_path, state(network(1, "resnet34")))
    message = refused(network(2, "resnet18"), path)
    assert "not in the network (layer1.2.conv1.weight" in message


def test_another_layout(tmp_path):
    """Names that no rule of ours turns into ours: the line shows some of both sides."""
    source = state(network(1))
    renamed = {"stages_" + name.replace(".", "_"): value for name, value in source.items()}
    for strict in (True, False):
        message = refused(network(2), write(tmp_path, renamed), strict=strict)
        assert "missing (conv1.weight" in message
        assert "not in the network (stages_conv1_weight" in message


def test_other_tensors_beside_the_network_are_named_and_left_out(tmp_path):
    source, target = network(1), network(2)
    tensors = {f"backbone.{name}": value for name, value in state(source).items()}
    report = backbone.load_weights(target, write(tmp_path, {**tensors, "roi_heads.weight": torch.ones(1)}))
    assert same(state(source), state(target)) and report.left_out == ["roi_heads.weight"]
    assert "1 tensor beside 'backbone.' left out, no part of the network (roi_heads.weight)" in str(report)
    del tensors["backbone.layer1.1.bn2.weight"]
    assert "1 missing (layer1.1.bn2.weight)" in refused(target, write(tmp_path, {**tensors, "x.weight": torch.ones(1)}))


# -- the classifier and stages that one side lacks


def test_a_classifier_that_the_network_was_built_without(tmp_path):
    source, target = network(1, num_classes=10), network(2)
    report = backbone.load_weights(target, write(tmp_path, state(source)))
    assert report.fits
    assert all(torch.equal(value, state(source)[name]) for name, value in state(target).items())


def test_a_classifier_that_the_file_lacks(tmp_path):
    path = write(tmp_path, state(network(1, out_features=("res5",))))
    assert "2 missing (fc.weight, fc.bias)" in refused(network(2, num_classes=10), path)
    target = network(2, num_classes=10)
    before = state(target)
    report = backbone.load_weights(target, path, strict=False)
    assert report.missing == ["fc.weight", "fc.bias"]
    assert torch.equal(state(target)["fc.weight"], before["fc.weight"])
    assert not torch.equal(state(target)["conv1.weight"], before["conv1.weight"])


def test_a_classifier_of_other_classes(tmp_path):
    source = network(1, num_classes=10)
    path = write(tmp_path, state(source))
    message = refused(network(2, num_classes=20), path)
    assert "fc.weight [10, 512] for [20, 512]" in message
    report = backbone.load_weights(target := network(2, num_classes=20), path, strict=False)
    assert report.mismatched["fc.weight"] == ((10, 512), (20, 512))
    assert torch.equal(state(target)["conv1.weight"], state(source)["conv1.weight"])


def test_stages_that_the_network_was_built_without(tmp_path):
    source, target = network(1, out_features=("res2", "res3")), network(2)
    assert backbone.load_weights(target, write(tmp_path, state(source))).fits
    message = refused(source, write(tmp_path, state(target)))
    assert "missing (layer2" in message


# -- strict and not


def test_one_tensor_missing_one_unknown(tmp_path):
    tensors = state(network(1))
    tensors["conv9.weight"] = tensors.pop("conv1.weight")
    path = write(tmp_path, tensors)
    message = refused(network(2), path)
    assert "1 missing (conv1.weight)" in message
    assert "1 not in the network (conv9.weight)" in message
    target = network(2)
    report = backbone.load_weights(target, path, strict=False)
    assert (report.missing, report.unexpected, report.mismatched) == (["conv1.weight"], ["conv9.weight"], {})
    assert torch.equal(state(target)["conv1.weight"], state(network(2))["conv1.weight"])
    assert torch.equal(state(target)["layer1.0.conv1.weight"], state(network(1))["layer1.0.conv1.weight"])


def test_not_strict_still_refuses_what_fits_nowhere(tmp_path):
    message = refused(network(2), write(tmp_path, {"weight": torch.ones(3)}), strict=False)
    assert "the names in the file are of no known layout" in message


@pytest.mark.parametrize(
    "content",
    [{}, [], 3, {"model": {}}, {"state_dict": {"epoch": 3}}, {"model": [torch.ones(1)]}, {1: torch.ones(1)}],
)
def test_no_named_tensors(tmp_path, content):
    for strict in (True, False):
        assert "holds no named tensors" in refused(network(2), write(tmp_path, content), strict=strict)


def test_a_safetensors_file(tmp_path):
    source, target = network(1), network(2)
    save_file(state(source), tmp_path / "weights.safetensors")
    assert backbone.load_weights(target, str(tmp_path / "weights.safetensors")).fits
    assert same(state(source), state(target))


def test_half_precision_is_taken(tmp_path):
    source, target = network(1), network(2)
    halved = {name: value.half() if value.is_floating_point() else value for name, value in state(source).items()}
    assert backbone.load_weights(target, write(tmp_path, halved)).fits
    assert state(target)["conv1.weight"].dtype == torch.float32
    assert torch.equal(state(target)["conv1.weight"], halved["conv1.weight"].float())


def test_hostile_missing_and_broken_files_change_nothing(tmp_path):
    marker = tmp_path / "marker"
    made = network(1)
    assert "refused" in refused(
        made, write_hostile(tmp_path / "bad", "os.system", "beside weights", "torch zip", marker)
    )
    assert not marker.exists()
    assert "no such weights file" in refused(made, tmp_path / "nowhere.pth")
    path = write(tmp_path, state(made))
    path.write_bytes(path.read_bytes()[:-1000])
    assert "cut off" in refused(made, path)
