"""Our networks in transformers' detectors, against a detector with transformers' own ResNet and the same weights."""

from __future__ import annotations

import pytest
import torch
import transformers
from adapter_checks import check_training_step
from randomize import randomize

import backbone
from backbone import ArchitectureError, Preprocessing, adapters
from backbone.networks import FrozenBatchNorm2d
from backbone.weights.save import converted

SMALL = {
    "d_model": 32,
    "encoder_layers": 1,
    "decoder_layers": 2,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 32,
    "decoder_ffn_dim": 32,
    "num_queries": 6,
    "num_labels": 3,
}
LABELS = [
    {"class_labels": torch.tensor([1, 2]), "boxes": torch.tensor([[0.5, 0.5, 0.4, 0.3], [0.3, 0.6, 0.2, 0.2]])},
    {"class_labels": torch.zeros(0, dtype=torch.long), "boxes": torch.zeros(0, 4)},
]


@pytest.fixture(autouse=True)
def silent():
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))


def detr(backbone_config, **keywords):
    config = transformers.DetrConfig(backbone_config=backbone_config, **SMALL, **keywords)
    return transformers.DetrForObjectDetection(config)


def conditional_detr(backbone_config):
    config = transformers.ConditionalDetrConfig(backbone_config=backbone_config, **SMALL)
    return transformers.ConditionalDetrForObjectDetection(config)


def deformable_detr(backbone_config):
    config = transformers.DeformableDetrConfig(backbone_config=backbone_config, **SMALL)
    return transformers.DeformableDetrForObjectDetection(config)


def rt_detr(backbone_config):
    heads = {key: value for key, value in SMALL.items() if key not in ("encoder_layers", "num_queries")}
    config = transformers.RTDetrConfig(
        backbone_config=backbone_config,
        encoder_in_channels=backbone_config.channels,
        feat_strides=backbone_config.strides,
        encoder_hidden_dim=32,
        decoder_in_channels=[32, 32, 32],
        num_queries=12,
        num_denoising=4,
        **heads,
    )
    return transformers.RTDetrForObjectDetection(config)


DEEP = {"stem": "deep", "average_down": True}
BUILDERS = [
    (detr, {"out_features": ("res5",)}),
    (conditional_detr, {}),
    (deformable_detr, {"out_features": ("res3", "res4", "res5")}),
    (rt_detr, {"out_features": ("res3", "res4", "res5"), **DEEP}),
]


@pytest.mark.parametrize(("build", "keywords"), BUILDERS)
def test_detector_trains_and_survives_saving(build, keywords, images, tmp_path):
    torch.manual_seed(0)
    model = build(adapters.transformers_config("resnet18", freeze_at=2, **keywords))
    network = adapters.network_of(model)
    assert all("BatchNorm" not in type(m).__name__ or isinstance(m, FrozenBatchNorm2d) for m in network.modules())
    # transformers initialises every layer of its models anew, with a deviation of 0.02.
    weight = network.layer4[1].conv2.weight
    assert weight.std().item() == pytest.approx((2 / (512 * 9)) ** 0.5, rel=0.02)
    randomize(network)
    check_training_step(model, lambda: model(pixel_values=images, labels=LABELS).loss)
    model.save_pretrained(tmp_path)
    again = type(model).from_pretrained(tmp_path)
    for name, value in model.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name
    with torch.no_grad():
        one, other = (m.eval()(pixel_values=images) for m in (again, model))
    assert torch.equal(one.logits, other.logits)
    assert torch.equal(one.pred_boxes, other.pred_boxes)
    # The folder is a weights file of its backbone too.
    alone = backbone.create("resnet18", freeze_at=2, **keywords).eval()
    assert backbone.load_weights(alone, tmp_path).fits
    with torch.no_grad():
        for value, truth in zip(alone(images).values(), network.eval()(images).values()):
            torch.testing.assert_close(value, truth, rtol=1e-4, atol=1e-4)
    frozen = [{n for n, p in adapters.network_of(m).named_parameters() if not p.requires_grad} for m in (again, model)]
    assert frozen[0] == frozen[1] != set()


# What transformers builds the same network from. Its RT-DETR has a projection more in networks of basic blocks.
RESNET18 = "resnet18", {"layer_type": "basic", "hidden_sizes": [64, 128, 256, 512], "depths": [2, 2, 2, 2]}
RESNET50 = "resnet50", {"layer_type": "bottleneck", "hidden_sizes": [256, 512, 1024, 2048], "depths": [3, 4, 6, 3]}
PEERS = [
    (detr, RESNET18, "ResNetConfig", ("res4", "res5"), {}),
    (rt_detr, RESNET50, "RTDetrResNetConfig", ("res3", "res4", "res5"), DEEP),
]


@pytest.mark.parametrize(("build", "table", "own_config", "stages", "keywords"), PEERS)
def test_equals_detector_with_transformers_own_resnet(build, table, own_config, stages, keywords, images):
    torch.manual_seed(0)
    name, settings = table
    ours = build(adapters.transformers_config(name, out_features=stages, **keywords))
    # Their stage1 is res2.
    own = getattr(transformers, own_config)(**settings, out_features=[f"stage{int(stage[-1]) - 1}" for stage in stages])
    own.channels, own.strides = (getattr(ours.config.backbone_config, name) for name in ("channels", "strides"))
    peer = build(own)
    body = peer.model.backbone.model
    body.requires_grad_(True)  # transformers 5 freezes the whole of DETR's ResNet, not its first two stages
    network = randomize(adapters.network_of(ours))
    tensors = converted(network, "huggingface")[0]
    tensors = {key.removeprefix("resnet."): value for key, value in tensors.items()}
    missing, unexpected = body.load_state_dict(tensors, strict=False)
    assert not missing
    assert all(key.endswith("num_batches_tracked") for key in unexpected)
    rest = {key: value for key, value in peer.state_dict().items() if ".backbone.model." not in key}
    assert not ours.load_state_dict(rest, strict=False).unexpected_keys
    mask = torch.ones(2, 64, 96, dtype=torch.long)
    mask[1, :, 60:] = 0
    outputs = [model.eval()(pixel_values=images, pixel_mask=mask, labels=LABELS) for model in (ours, peer)]
    for key in ("logits", "pred_boxes", "loss"):
        torch.testing.assert_close(outputs[0][key], outputs[1][key], atol=1e-4, rtol=1e-4)
    for output in outputs:
        output.loss.backward()
    grad = network.layer2[0].conv1.weight.grad
    expected = body.encoder.stages[1].layers[0].layer[0].convolution.weight.grad
    assert (grad - expected).abs().max() <= 1e-3 * expected.abs().max()


def test_batch_norm_is_frozen_by_detr_itself(images):
    torch.manual_seed(0)
    model = detr(adapters.transformers_config("resnet18", norm="bn", out_features=("res5",)))
    network = randomize(adapters.network_of(model))
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in network.modules())
    before = network.bn1.running_mean.clone()
    model.train()(pixel_values=images, labels=LABELS).loss.backward()
    assert torch.equal(network.bn1.running_mean, before)
    assert network.conv1.weight.grad.abs().sum() > 0


def test_backbone_interface(images):
    config = adapters.transformers_config("resnet18", out_features=("res3", "res5"))
    model = transformers.AutoBackbone.from_config(config).eval()
    assert model.stage_names == ["stem", "res2", "res3", "res4", "res5"]
    assert model.out_features == ["res3", "res5"]
    assert model.out_indices == [2, 4]
    assert model.channels == config.channels == [128, 512]
    assert config.strides == [8, 32]
    assert model.out_feature_channels == {"stem": 64, "res2": 64, "res3": 128, "res4": 256, "res5": 512}
    output = model(images)
    assert output.hidden_states is None
    assert [tuple(m.shape) for m in output.feature_maps] == [(2, 128, 8, 12), (2, 512, 2, 3)]
    every = model(images, output_hidden_states=True)
    assert [m.shape[1] for m in every.hidden_states] == [64, 64, 128, 256, 512]
    assert torch.equal(every.feature_maps[0], output.feature_maps[0])
    as_tuple = model.forward_with_filtered_kwargs(images, output_attentions=False, return_dict=False)
    assert torch.equal(as_tuple[0][1], output.feature_maps[1])
    by_index = type(config)(architecture="resnet18", out_indices=[2, 4])
    assert by_index.out_features == ["res3", "res5"]
    assert by_index.to_dict()["out_features"] == ["res3", "res5"]


def test_shallow_outputs_leave_deep_stages_unbuilt():
    config = adapters.transformers_config("resnet18", out_features=("res2", "res3"))
    model = transformers.AutoBackbone.from_config(config)
    assert not hasattr(model.network, "layer3")
    assert model.channels == [64, 128]


def test_default_outputs_are_the_stages():
    assert adapters.transformers_config("resnet18", out_features=("res4", "res3")).out_features == ["res3", "res4"]
    assert adapters.transformers_config("cifar_resnet20").out_features == ["res2", "res3", "res4"]
    assert adapters.transformers_config("vgg16").channels == [64, 128, 256, 512, 512]


def test_registering_twice_is_harmless():
    adapters.register_transformers()
    adapters.register_transformers()
    config = transformers.AutoConfig.for_model("detection_backbone", architecture="resnet34")
    assert config.architecture == "resnet34"


def test_what_weights_ask_survives_saving(images, tmp_path):
    network = randomize(backbone.create("resnet18", ceil_pool=True))
    network.preprocessing = Preprocessing("BGR", 255, (25.5, 51.0, 76.5), (255.0, 127.5, 51.0))
    backbone.save_weights(network, tmp_path / "caffe.pth")
    model = detr(adapters.transformers_config("resnet18", out_features=("res5",)))
    adapters.load_weights_into(model, tmp_path / "caffe.pth")
    expected = network.eval()(images.flip(1))["res5"]
    model.save_pretrained(tmp_path)
    again = transformers.DetrForObjectDetection.from_pretrained(tmp_path)
    assert adapters.network_of(again).preprocessing == network.preprocessing
    for loaded in (model, again):
        features = loaded.model.backbone.model.eval()(images).feature_maps[-1]
        torch.testing.assert_close(features, expected, atol=1e-4, rtol=1e-4)
        statistics = adapters.image_statistics(loaded)
        assert statistics["image_mean"] == pytest.approx([0.3, 0.2, 0.1])
        assert statistics["image_std"] == pytest.approx([0.2, 0.5, 1.0])
    processor = transformers.DetrImageProcessor(do_resize=False, do_pad=False, **adapters.image_statistics(model))
    pixels = torch.randint(0, 256, (3, 32, 40), dtype=torch.uint8)
    processed = processor(images=[pixels], return_tensors="pt")["pixel_values"][0]
    # What the network sees: the adapter's turn to BGR after the processor's normalisation.
    torch.testing.assert_close(processed.flip(0), network.preprocessing(pixels), atol=1e-4, rtol=1e-4)


def test_what_a_checkpoint_lacks_is_initialised(tmp_path):
    model = detr(adapters.transformers_config("resnet18", norm="gn", freeze_at=0, out_features=("res5",)))
    state = model.state_dict()
    lacking = {name: value for name, value in state.items() if "layer4.1" not in name and "bn1" not in name}
    model.save_pretrained(tmp_path, state_dict=lacking)
    again = transformers.DetrForObjectDetection.from_pretrained(tmp_path)
    block = adapters.network_of(again).layer4[1]
    assert block.conv1.weight.std().item() == pytest.approx((2 / (512 * 9)) ** 0.5, rel=0.02)
    assert (block.bn1.weight == 1).all()
    assert (block.bn1.bias == 0).all()


@pytest.mark.parametrize(
    ("name", "keywords", "words"),
    [
        ("resnet19", {}, "did you mean"),
        ("resnet18", {"freez_at": 2}, "did you mean 'freeze_at'"),
        ("resnet18", {"norm": "batch"}, "norm must be one of"),
        ("resnet18", {"weights": "file.pth"}, "load_weights_into"),
        ("resnet18", {"num_classes": 3}, "num_labels"),
        ("resnet18", {"out_features": ("res7",)}, "res7"),
        ("resnet18", {"out_features": "res5"}, "must list some of"),
    ],
)
def test_mistakes_are_named(name, keywords, words):
    with pytest.raises(ArchitectureError, match=words) as caught:
        adapters.transformers_config(name, **keywords)
    assert "\n" not in str(caught.value)
