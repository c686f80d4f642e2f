"""Our networks under timm's features_only interface, against timm's own networks with the same weights."""

from __future__ import annotations

import copy

import pytest
import timm
import torch
from adapter_checks import check_training_step
from randomize import randomize
from torch import nn

import backbone
from backbone import ArchitectureError, Preprocessing, adapters


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(2, 3, 65, 97, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("indices", [None, (1, 2, 3, 4), (0, 2), (0,), (-2, -1), 3, (2,)])
def test_equals_timms_resnet(indices, images):
    wanted = {} if indices is None else {"out_indices": indices}
    theirs = randomize(timm.create_model("resnet18", features_only=True, **wanted)).eval()
    network = randomize(backbone.create("resnet18")).eval()
    # timm leaves out what is behind the deepest level; the generator fills the layers in the same order.
    assert set(theirs.state_dict()) <= set(network.state_dict())
    network.load_state_dict(theirs.state_dict(), strict=False)
    ours = adapters.timm_features(network, **wanted)
    with torch.no_grad():
        found, expected = ours(images), theirs(images)
    assert isinstance(found, list)
    assert len(found) == len(expected)
    for one, other in zip(found, expected):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)
    info, other = ours.feature_info, theirs.feature_info
    assert info.channels() == other.channels() == [level.shape[1] for level in found]
    assert info.reduction() == other.reduction()
    assert [name for name in info.module_name() if name != "relu"] == [n for n in other.module_name() if n != "act1"]
    for name in info.module_name():
        network.get_submodule(name)


@pytest.mark.parametrize(
    ("name", "theirs", "keywords"),
    [
        ("resnet18", "resnet18d", {"stem": "deep", "average_down": True}),
        ("preact_resnet18", "resnetv2_18", {}),
        ("vgg16_bn", "vgg16_bn", {}),
        ("resnet50", "resnet50", {"output_stride": 16}),
    ],
)
def test_levels_are_numbered_as_timms(name, theirs, keywords):
    stride = {"output_stride": 16} if "output_stride" in keywords else {}
    with torch.device("meta"):
        peer = timm.create_model(theirs, features_only=True, **stride)
        ours = adapters.timm_features(name, out_indices=(0, 1, 2, 3, 4), **keywords)
    if name.startswith("vgg"):
        peer.feature_info.out_indices = (0, 1, 2, 3, 4)  # timm adds a sixth, behind the last pooling
        ours = adapters.timm_features(backbone.create(name, out_features=["conv1", "conv5"]))
    assert ours.feature_info.channels() == peer.feature_info.channels()
    assert ours.feature_info.reduction() == peer.feature_info.reduction()


def test_levels_of_networks_without_a_pooled_stem():
    ours = adapters.timm_features("cifar_resnet20")
    found = ours.eval()(torch.rand(1, 3, 32, 32))
    assert [tuple(level.shape[1:]) for level in found] == [(16, 32, 32), (16, 32, 32), (32, 16, 16), (64, 8, 8)]
    assert ours.feature_info.channels() == [level.shape[1] for level in found]
    assert ours.feature_info.reduction() == [32 // level.shape[2] for level in found]


def test_code_for_timm_trains(images):
    """A head that is built from feature_info alone."""
    torch.manual_seed(0)

    class Detector(nn.Module):
        def __init__(self, features: nn.Module) -> None:
            super().__init__()
            self.features = features
            self.heads = nn.ModuleList(nn.Conv2d(channels, 6, 1) for channels in features.feature_info.channels())

        def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
            return [head(level) for head, level in zip(self.heads, self.features(x))]

    ours = adapters.timm_features("resnet18", out_indices=(0, 2, 3, 4), norm="frozen_bn", freeze_at=2)
    model = Detector(ours)
    check_training_step(model, lambda: sum(level.square().mean() for level in model(images)))
    shapes = [(level.shape[2], level.shape[3]) for level in model.eval()(images)]
    assert shapes == [(-(-65 // stride), -(-97 // stride)) for stride in ours.feature_info.reduction()]


def test_checkpointing_is_switched_as_timms(images):
    torch.manual_seed(0)
    ours = adapters.timm_features("resnet18", out_indices=(0, 4), norm="frozen_bn").train()
    grads = []
    for enable in (False, True):
        ours.set_grad_checkpointing(enable)
        assert ours.network.checkpointing is enable
        ours.zero_grad()
        sum(level.mean() for level in ours(images)).backward()
        grads.append(ours.network.layer1[0].conv1.weight.grad.clone())
    torch.testing.assert_close(grads[0], grads[1])


def test_copies_and_folded_copies_have_hooks_of_their_own(images):
    ours = adapters.timm_features(randomize(backbone.create("resnet18")).eval())
    folded = copy.deepcopy(ours)
    folded.network = backbone.fold(folded.network)
    with torch.no_grad():
        expected = ours(images)
        for other in (copy.deepcopy(ours), folded):
            for one, level in zip(other(images), expected, strict=True):
                torch.testing.assert_close(one, level, atol=1e-4, rtol=1e-4)
    assert not ours.network.maxpool._forward_pre_hooks


def test_timm_reads_the_preprocessing(images):
    network = randomize(backbone.create("resnet18")).eval()
    network.preprocessing = Preprocessing("BGR", 255, (25.5, 51.0, 76.5), (255.0, 127.5, 51.0))
    expected = list(network(images.flip(1)).values())
    ours = adapters.timm_features(network, out_indices=(1, 2, 3, 4))
    data = timm.data.resolve_model_data_config(ours)
    assert data["mean"] == pytest.approx((0.3, 0.2, 0.1))
    assert data["std"] == pytest.approx((0.2, 0.5, 1.0))
    assert data["input_size"] == (3, 224, 224)
    for one, other in zip(ours(images), expected, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("indices", [(0, 5), (), (-6,), 6, 0, ("res2",)])
def test_unknown_levels_are_named(indices):
    with pytest.raises(ArchitectureError, match="levels 0 to 4"):
        adapters.timm_features(backbone.create("resnet18"), out_indices=indices)
