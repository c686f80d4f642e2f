"""Our dilated ResNets with torchvision's heads against torchvision's whole networks."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import backbone
from backbone.common.errors import ConfigError, WeightsError
from backbone.engine.starting_weights import StartingWeights
from backbone.segmentation import default_config, load_config
from backbone.segmentation.networks import atrous_rates, build
from backbone.segmentation.optimizer import make_optimizer
from backbone.segmentation.session import check_batch
from backbone.segmentation.weights import WEIGHT_KEYS, fit_head, load_initial, load_whole, open_starting_weights

CLASSES = [f"class {index}" for index in range(21)]


def config_of(**keys):
    config = default_config()
    config.MODEL.DEVICE = "cpu"
    pairs = [part for key, value in keys.items() for part in (key.replace("__", "."), value)]
    config.merge_from_list(pairs)
    return config


def randomised(network: nn.Module) -> nn.Module:
    """Statistics and affine terms of BN away from 0 and 1, so that a mistake in them shows."""
    torch.manual_seed(3)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.2)
            nn.init.uniform_(module.bias, -0.2, 0.2)
            nn.init.uniform_(module.running_mean, -0.2, 0.2)
            nn.init.uniform_(module.running_var, 0.6, 1.4)
    return network.eval()


@pytest.mark.parametrize(("stride", "rates"), [(8, (12, 24, 36)), (16, (6, 12, 18))])
def test_output_stride_and_rates(stride, rates):
    config = config_of(MODEL__NAME="resnet18", MODEL__HEAD__NAME="deeplabv3", MODEL__OUTPUT_STRIDE=stride)
    network = build(config, 4).eval()
    assert atrous_rates(config) == rates
    assert [conv[0].dilation[0] for conv in list(network.classifier[0].convs)[1:4]] == list(rates)
    assert network.backbone.feature_info["res5"].stride == stride
    with torch.no_grad():
        assert network(torch.randn(1, 3, 50, 70))["out"].shape == (1, 4, 50, 70)
        assert network(torch.randn(1, 3, 50, 70), (20, 30))["out"].shape == (1, 4, 20, 30)


def test_the_auxiliary_head_is_for_training_alone(tmp_path):
    network = build(config_of(MODEL__NAME="resnet18"), 3)
    assert set(network.train()(torch.randn(2, 3, 33, 33))) == {"out", "aux"}
    assert set(network.eval()(torch.randn(2, 3, 33, 33))) == {"out"}
    torch.save(network.state_dict(), tmp_path / "with.pth")
    without = build(config_of(MODEL__NAME="resnet18", MODEL__HEAD__AUX_WEIGHT=0.0), 3)
    load_whole(without, open_starting_weights(str(tmp_path / "with.pth")), CLASSES[:3])
    torch.save(without.state_dict(), tmp_path / "without.pth")
    load_whole(network, open_starting_weights(str(tmp_path / "without.pth")), CLASSES[:3])


def test_heads_learn_faster_and_every_parameter_once():
    config = config_of(MODEL__NAME="resnet18", MODEL__FREEZE_AT=2, SOLVER__BASE_LR=0.1, SOLVER__WEIGHT_DECAY_NORM=0.0)
    network = build(config, 3)
    groups = make_optimizer(network, config).param_groups
    rates = {id(parameter): group["lr"] for group in groups for parameter in group["params"]}
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    assert sum(len(group["params"]) for group in groups) == len(rates) == len(trained)
    assert rates[id(network.backbone.layer4[0].conv1.weight)] == 0.1
    assert rates[id(network.classifier[0].weight)] == pytest.approx(1.0)
    assert id(network.backbone.layer1[0].conv1.weight) not in rates
    assert {group["weight_decay"] for group in groups if group["params"][0].ndim == 1} == {0.0}


@pytest.mark.parametrize("norm", ["frozen_bn", "sync_bn", "gn"])
def test_norms(norm):
    network = build(config_of(MODEL__NAME="resnet18", MODEL__NORM=norm), 3)
    network.train()(torch.randn(2, 3, 33, 33))["out"].sum().backward()
    kinds = {type(module).__name__ for module in network.backbone.modules()}
    name = {"frozen_bn": "FrozenBatchNorm2d", "sync_bn": "SyncBatchNorm2d", "gn": "GroupNorm"}[norm]
    assert name in kinds and "BatchNorm2d" not in kinds
    assert type(network.classifier[1]).__name__ == ("SyncBatchNorm2d" if norm == "sync_bn" else "BatchNorm2d")


def test_a_backbone_file_sets_its_preprocessing_and_shortcuts(tmp_path):
    source = backbone.create("resnet18", shortcut="A")
    source.preprocessing = backbone.Preprocessing("BGR", 255, (103.53, 116.28, 123.675), (1.0, 1.0, 1.0))
    backbone.save_weights(source, tmp_path / "net.safetensors")
    weights = open_starting_weights(str(tmp_path / "net.safetensors"))
    config, notes = WEIGHT_KEYS.resolve(config_of(MODEL__NAME="resnet18"), weights.wants, weights.source, ())
    assert config.INPUT.FORMAT == "BGR" and config.MODEL.PIXEL_STD == [1.0, 1.0, 1.0]
    assert any("INPUT.FORMAT RGB -> BGR" in note for note in notes) and config.MODEL.SHORTCUT == "A"
    network = build(config, 3)
    load_initial(network, weights, CLASSES[:3], new_classifier=False)
    assert torch.equal(network.backbone.layer4[1].conv2.weight, source.layer4[1].conv2.weight)
    with pytest.raises(ConfigError, match="INPUT.FORMAT is RGB on the command line, .* network with BGR"):
        WEIGHT_KEYS.resolve(config_of(), weights.wants, weights.source, ("INPUT.FORMAT",))
    with pytest.raises(WeightsError, match="holds a backbone only"):
        load_whole(network, weights, CLASSES[:3])


def test_whole_weights_of_other_classes(tmp_path):
    torch.save(build(config_of(MODEL__NAME="resnet18"), 5).state_dict(), tmp_path / "five.pth")
    weights = open_starting_weights(str(tmp_path / "five.pth"))
    network = build(config_of(MODEL__NAME="resnet18"), 3)
    with pytest.raises(WeightsError, match="gives 5 classes, the data has 3; MODEL.NEW_CLASSIFIER True"):
        load_initial(network, weights, CLASSES[:3], new_classifier=False)
    before = network.classifier[4].weight.clone()
    said = load_initial(network, weights, CLASSES[:3], new_classifier=True)
    assert "begin anew" in said and torch.equal(network.classifier[4].weight, before)
    assert torch.equal(network.classifier[0].weight, weights.tensors["classifier.0.weight"])


def test_mistakes():
    with pytest.raises(ConfigError, match="vgg16: cannot be dilated"):
        build(config_of(MODEL__NAME="vgg16"), 3)
    alone = config_of(MODEL__HEAD__NAME="deeplabv3", SOLVER__IMS_PER_BATCH=2)
    with pytest.raises(ConfigError, match="2 images or more"):
        check_batch(alone, 2)
    check_batch(alone, 1)
    alone.MODEL.HEAD.NAME, alone.SOLVER.ACCUMULATE = "pspnet", 2
    with pytest.raises(ConfigError, match="pspnet normalises image means .* in each part of SOLVER.ACCUMULATE"):
        check_batch(alone, 1)


def checkpoint_of(head: str, stride: int, **rates) -> StartingWeights:
    metadata = {"output_stride": stride, "head": head, **rates}
    return StartingWeights("net.pth", True, {}, metadata=metadata)


@pytest.mark.parametrize(
    ("trained", "keys", "testing", "settled", "noted"),
    [
        (("fcn", 8), {}, True, ("fcn", 8, ()), "MODEL.OUTPUT_STRIDE 16 -> 8, as the weights were trained"),
        (("fcn", 8), {}, False, ("fcn", 16, ()), "MODEL.OUTPUT_STRIDE 16 kept; the weights were trained with 8"),
        (("fcn", 8), {"OUTPUT_STRIDE": 32}, True, ("fcn", 32, ()), "MODEL.OUTPUT_STRIDE 32 kept"),
        (("fcn", 16), {}, True, ("fcn", 16, ()), ""),
        (("deeplabv3", 16, 6, 12, 18), {}, True, ("deeplabv3", 16, ()), "MODEL.HEAD.NAME fcn -> deeplabv3"),
        (("deeplabv3", 8, 3, 6), {}, True, ("deeplabv3", 8, (3, 6)), "MODEL.HEAD.ATROUS_RATES (12, 24, 36) -> (3, 6)"),
        (("deeplabv3", 16, 6, 12, 18), {"OUTPUT_STRIDE": 8}, True, ("deeplabv3", 8, ()), "trained with 16"),
        (("fcn", "x"), {}, True, ("fcn", 16, ()), "the file does not say, torchvision's own weights want 8"),
    ],
)
def test_a_whole_network_is_tested_as_it_was_trained(trained, keys, testing, settled, noted):
    config = load_config("mini_fcn_r18.yaml", [part for key, value in keys.items() for part in (f"MODEL.{key}", value)])
    head, stride, *rates = trained
    weights = checkpoint_of(head, stride, atrous_rates=rates)
    fitted, notes = fit_head(config, weights, {f"MODEL.{key}" for key in keys}, testing=testing)
    model = fitted.MODEL
    assert (model.HEAD.NAME, model.OUTPUT_STRIDE, tuple(model.HEAD.ATROUS_RATES)) == settled
    assert noted in "; ".join(notes) and bool(notes) == bool(noted)
    assert fit_head(fitted, StartingWeights("backbone.pth", False, {}), (), testing=True) == (fitted, [])


def test_another_head_on_the_command_line_is_refused():
    config = load_config("mini_fcn_r18.yaml", [])
    with pytest.raises(ConfigError, match="MODEL.HEAD.NAME is fcn, but net.pth has a head of deeplabv3"):
        fit_head(config, checkpoint_of("deeplabv3", 8), {"MODEL.HEAD.NAME"}, testing=True)
