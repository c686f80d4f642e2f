"""A network is found wherever it stands in a file's tree of names. Names as the projects write them, small tensors."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable

import pytest
import torch
import torchvision
from randomize import randomize
from safetensors.torch import save_file
from torch import Tensor, nn

import backbone
from backbone.weights import convert, open_weights

State = dict[str, Tensor]
HEAD = {"fc.0.weight": torch.ones(4, 4), "fc.0.bias": torch.ones(4), "fc.2.weight": torch.ones(2, 4)}


def resnet(seed: int, **keywords: object) -> nn.Module:
    torch.manual_seed(seed)
    return randomize(torchvision.models.resnet18(num_classes=5, **keywords), seed).eval()


def of(network: nn.Module, stages: int = 2) -> State:
    """The state of torchvision's network without its classifier and later stages."""
    names = ("conv1.", "bn1.", *(f"layer{number}." for number in range(1, stages + 1)))
    return {name: value for name, value in network.state_dict().items() if name.startswith(names)}


def under(prefix: str, state: State) -> State:
    return {prefix + name: value for name, value in state.items()}


def numbered(state: State) -> State:
    """As nn.Sequential(*resnet.children()) names them."""
    places = {"conv1": 0, "bn1": 1, "layer1": 4, "layer2": 5, "layer3": 6, "layer4": 7, "fc": 9}
    return {f"{places[name.split('.')[0]]}.{name.partition('.')[2]}": value for name, value in state.items()}


def in_transformers_names(state: State) -> State:
    names = {"conv1.": "embedder.embedder.convolution.", "bn1.": "embedder.embedder.normalization."}
    for stage in (1, 2):
        for block in (0, 1):
            ours, theirs = f"layer{stage}.{block}.", f"encoder.stages.{stage - 1}.layers.{block}."
            names |= {f"{ours}downsample.0.": f"{theirs}shortcut.convolution."}
            names |= {f"{ours}downsample.1.": f"{theirs}shortcut.normalization."}
            names |= {f"{ours}conv{n}.": f"{theirs}layer.{n - 1}.convolution." for n in (1, 2)}
            names |= {f"{ours}bn{n}.": f"{theirs}layer.{n - 1}.normalization." for n in (1, 2)}
    return {next(t + name[len(o) :] for o, t in names.items() if name.startswith(o)): v for name, v in state.items()}


def compiled_layers(state: State) -> State:
    return {name.replace("layer1.", "layer1._orig_mod.", 1): value for name, value in state.items()}


ONE = torch.ones(1)
ARGS = {"args": argparse.Namespace(arch="resnet18", lr=0.1), "epoch": 3, "optimizer": {"state": {0: {"step": ONE}}}}
# What a file holds of the networks' states `a` and `b`; a is what is read.
CASES: dict[str, Callable[[State, State], dict]] = {
    "MoCo": lambda a, b: {"state_dict": {
        **under("module.encoder_q.", a), **under("module.encoder_q.", HEAD), **under("module.encoder_k.", b),
        **under("module.encoder_k.", HEAD), "module.queue": ONE, "module.queue_ptr": ONE}},
    "SwAV": lambda a, b: under("module.", {**a, "projection_head.0.weight": ONE, "prototypes.weight": ONE}),
    "SimCLR": lambda a, b: {"state_dict": under("backbone.", {**a, **HEAD}), **ARGS},
    "VISSL": lambda a, b: {"classy_state_dict": {"base_model": {"model": {
        "trunk": under("_feature_blocks.", a), "heads": {"0.clf.0.weight": ONE}}}}},
    "DETR": lambda a, b: {"model": {
        **under("backbone.0.body.", a), "transformer.encoder.layers.0.linear1.weight": ONE, "class_embed.weight": ONE}},
    "hub DETR": lambda a, b: {**under("model.backbone.conv_encoder.model.", a), "model.query.weight": ONE},
    "transformers DETR": lambda a, b: {
        **under("model.backbone.conv_encoder.model.", in_transformers_names(a)), "class_labels_classifier.weight": ONE},
    "transformers RT-DETR": lambda a, b: under("model.backbone.model.", in_transformers_names(a)),
    "transformers classifier": lambda a, b: {
        **under("resnet.", in_transformers_names(a)), "classifier.1.weight": torch.ones(5, 512),
        "classifier.1.bias": torch.ones(5)},
    "fastai": lambda a, b: {"model": {**under("0.", numbered(a)), "1.8.weight": ONE}, "opt": {"state": [{"a": ONE}]}},
    "Sequential": lambda a, b: numbered(a),
    "features": lambda a, b: under("features.", numbered(a)) | {"classifier.weight": ONE},
    "few-shot segmentation": lambda a, b: {
        **{name.replace("conv1.", "layer0.0.", 1).replace("bn1.", "layer0.1.", 1) if name.startswith(("conv1", "bn1"))
           else name: value for name, value in a.items()}, "down_query.0.weight": ONE},
    "own run": lambda a, b: {"model": a, "metadata": {"mean_image": torch.ones(3, 4, 4)}},
    "AveragedModel": lambda a, b: {"n_averaged": torch.tensor(3), **under("module.", a)},
    "timm": lambda a, b: {"state_dict": a, "state_dict_ema": b, "arch": "resnet18", **ARGS},
    "torchvision": lambda a, b: {
        "model": a, "model_ema": {"n_averaged": torch.tensor(3), **under("module.", b)}, "lr_scheduler": {}, **ARGS},
    "Lightning": lambda a, b: {"state_dict": under("model.net.", a), "ema_state_dict": under("model.net.", b)},
    "compiled": lambda a, b: under("_orig_mod.module.", a),
    "compiled layers": lambda a, b: under("module.", compiled_layers(a)),
    "segmentation": lambda a, b: {"model": {**under("backbone.", a), "classifier.1.weight": ONE}},
    "own classifier": lambda a, b: {**under("resnet.", a), "classifier.1.weight": ONE, "head.fc.weight": ONE},
    "BYOL": lambda a, b: {**under("online_net.0.", a), **under("target_net.0.", b)} | {"target.x": ONE},
}  # fmt: skip


@pytest.fixture(scope="module")
def sources() -> tuple[nn.Module, nn.Module]:
    return resnet(1), resnet(2)


def features(network: nn.Module, images: Tensor) -> Tensor:
    """The second stage of torchvision's network."""
    return network.layer2(network.layer1(network.maxpool(network.relu(network.bn1(network.conv1(images))))))


def check(path, source: nn.Module, **keywords: object) -> backbone.LoadReport:
    network = backbone.create("resnet18", out_features=("res3",), norm="bn").eval()
    report = backbone.load_weights(network, path, **keywords)
    assert report.fits
    images = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        assert torch.allclose(network(images)["res3"], features(source, images), rtol=1e-4, atol=1e-5)
    return report


@pytest.mark.parametrize("case", CASES)
@pytest.mark.proves("sequential", "backbones", "in", "every tensor of the network, found under numbered names")
def test_found_wherever_it_stands(tmp_path, sources, case):
    content = CASES[case](*map(of, sources))
    torch.save(content, tmp_path / "a.pth")
    report = check(tmp_path / "a.pth", sources[0])
    if case in ("MoCo", "SwAV", "SimCLR", "VISSL", "DETR", "fastai", "AveragedModel"):
        assert report.left_out and "no part of the network" in str(report)
    assert not any(name.startswith(("conv1", "bn1", "layer", "metadata")) for name in report.left_out)


@pytest.mark.parametrize(
    ("case", "part"),
    [("MoCo", "encoder_k"), ("timm", "state_dict_ema"), ("torchvision", "model_ema"), ("Lightning", "ema_state_dict")],
)
def test_a_copy_is_said_and_can_be_taken(tmp_path, sources, case, part):
    torch.save(CASES[case](*map(of, sources)), tmp_path / "a.pth")
    assert f"{part}" in str(check(tmp_path / "a.pth", sources[0]))
    check(tmp_path / "a.pth", sources[1], part=part)
    with pytest.warns(UserWarning, match=f"{part}.*takes its copy"):
        backbone.create("resnet18", out_features=("res3",), weights=tmp_path / "a.pth")


def test_of_several_networks_one_must_be_chosen(tmp_path, sources):
    """As DINO's checkpoints have a student and a teacher."""
    student, teacher = map(of, sources)
    content = {"student": under("module.backbone.", student), "teacher": under("backbone.", teacher), **ARGS}
    content["teacher"]["head.mlp.0.weight"] = ONE
    torch.save(content, tmp_path / "a.pth")
    for part in (None, "backbone", "nowhere"):
        with pytest.raises(backbone.WeightsError, match=r"'student.module.backbone', 'teacher.backbone'"):
            check(tmp_path / "a.pth", sources[0], part=part)
    check(tmp_path / "a.pth", sources[0], part="student")
    assert check(tmp_path / "a.pth", sources[1], part="teacher.backbone").left_out == ["head.mlp.0.weight"]


def test_an_own_tensor_that_is_missing_or_too_many_stays_an_error(tmp_path, sources):
    for change, said in (({"layer2.1.bn2.weight": None}, "1 missing"), ({"layer2.2.conv1.weight": ONE}, "not in the")):
        state = {name: value for name, value in {**of(sources[0]), **change}.items() if value is not None}
        torch.save({"state_dict": under("module.encoder_q.", state | {"neck.weight": ONE})}, tmp_path / "a.pth")
        with pytest.raises(backbone.WeightsError, match=said):
            check(tmp_path / "a.pth", sources[0])


def test_the_head_of_simclr_and_a_new_classifier(tmp_path, sources):
    torch.save({"state_dict": under("backbone.", {**of(sources[0], 4), **HEAD})}, tmp_path / "a.pth")
    network = backbone.create("resnet18", num_classes=3)
    with pytest.raises(backbone.WeightsError, match="2 missing .fc.weight, fc.bias.*new_classifier"):
        backbone.load_weights(network, tmp_path / "a.pth")
    assert backbone.load_weights(network, tmp_path / "a.pth", new_classifier=True).fits
    done = convert(tmp_path / "a.pth", tmp_path / "b.safetensors", "torchvision")
    assert done.architecture == "resnet18" and any("fc.2.weight" in note for note in done.notes)


@pytest.mark.parametrize("layout", ["torchvision", "detectron2"])
def test_the_last_stage_of_c4_stands_in_the_head(tmp_path, sources, layout):
    """detectron2's `roi_heads.res5`, MMDetection's `shared_head.layer4`."""
    network = backbone.create("resnet18", norm="bn")
    network.load_state_dict(of(sources[0], 4))
    backbone.save_weights(network, tmp_path / "plain.pth", layout=layout)
    state = torch.load(tmp_path / "plain.pth")
    state = state.get("model", state)
    moved = {
        f"roi_heads.{name}" if name.startswith(("res5.", "layer4.")) else f"backbone.{name}": value
        for name, value in state.items()
    }
    torch.save({"model": moved | {"roi_heads.box_predictor.cls_score.weight": ONE}}, tmp_path / "a.pth")
    again = backbone.create("resnet18", norm="bn")
    assert backbone.load_weights(again, tmp_path / "a.pth").fits
    assert all(torch.equal(value, network.state_dict()[name]) for name, value in again.state_dict().items())


def test_detectron2s_deep_stem(tmp_path):
    """DeepLab's: three convolutions, each with its norm inside, before res2."""
    source = backbone.create("resnet18", stem="deep", norm="frozen_bn", out_features=("res3",)).eval()
    randomize(source, 3)
    backbone.save_weights(source, tmp_path / "plain.safetensors", layout="torchvision")
    state = source.state_dict()
    stem = {
        "conv1.0": "conv1",
        "conv1.1": "conv1.norm",
        "conv1.3": "conv2",
        "conv1.4": "conv2.norm",
        "conv1.6": "conv3",
    }
    stem |= {"bn1": "conv3.norm"}
    names = {}
    for name in state:
        module, _, part = name.rpartition(".")
        if module in stem:
            names[name] = f"stem.{stem[module]}.{part}"
        else:
            stage, block, rest = name.split(".", 2)
            rest = rest.replace("downsample.0", "shortcut").replace("downsample.1", "shortcut.norm")
            rest = rest.replace("bn1", "conv1.norm").replace("bn2", "conv2.norm")
            names[name] = f"res{int(stage[-1]) + 1}.{block}.{rest}"
    torch.save({"model": {names[name]: value for name, value in state.items()}}, tmp_path / "a.pth")
    target = backbone.create("resnet18", stem="deep", norm="frozen_bn", out_features=("res3",)).eval()
    assert backbone.load_weights(target, tmp_path / "a.pth").layout == "detectron2"
    images = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(source(images)["res3"], target(images)["res3"])


def test_shards_with_an_index_and_folders(tmp_path, sources):
    state = under("model.backbone.", of(sources[0]))
    names = sorted(state)
    parts = {"model-1-of-2.safetensors": names[::2], "model-2-of-2.safetensors": names[1::2]}
    for file, inside in parts.items():
        save_file({name: state[name].contiguous() for name in inside}, tmp_path / file)
    index = tmp_path / "model.safetensors.index.json"
    weight_map = {name: file for file, inside in parts.items() for name in inside}
    index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": weight_map}))
    for path in (index, tmp_path):
        check(path, sources[0])
    (tmp_path / "one").mkdir()
    torch.save(state, tmp_path / "one" / "pytorch_model.bin")
    check(tmp_path / "one", sources[0])
    for broken, said in (
        ({names[0]: "../a.safetensors"}, "no weights file beside it"),
        ({names[0]: 5}, "no weights file beside it"),
        ({names[0]: "gone.safetensors"}, "gone.safetensors is missing"),
        ({names[0]: "model-2-of-2.safetensors"}, f"has no tensor {names[0]}"),
        ([], "not an index"),
        ({}, "names no weights file"),
    ):
        index.write_text(json.dumps({"weight_map": broken}))
        with pytest.raises(backbone.WeightsError, match=said):
            open_weights(tmp_path)
    index.unlink()
    with pytest.raises(backbone.WeightsError, match=r"a folder of 2 weights files \(model-1"):
        open_weights(tmp_path)


@pytest.mark.parametrize("make", [torch.jit.script, lambda net: torch.jit.trace(net, torch.ones(1, 3, 32, 32))])
@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_torchscript_files(tmp_path, sources, make):
    make(sources[0]).save(str(tmp_path / "a.pt"))
    check(tmp_path / "a.pt", sources[0])


def test_wrapped_networks_are_loaded_inside(tmp_path, sources):
    """torch.compile and DataParallel put a name before all of a network's own."""
    torch.save(of(sources[0]), tmp_path / "a.pth")
    for wrap in (torch.compile, nn.DataParallel):
        network = backbone.create("resnet18", out_features=("res3",))
        assert backbone.load_weights(wrap(network), tmp_path / "a.pth").fits
        assert torch.equal(network.conv1.weight, sources[0].conv1.weight)
