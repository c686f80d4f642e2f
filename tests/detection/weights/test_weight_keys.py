"""Weights that were trained with another preprocessing, stem, stride or pooling than the config's."""

from __future__ import annotations

import json

import pytest
import runs
import torch

import backbone
import detection
from backbone import ConfigError, Preprocessing, WeightMetadata
from backbone.engine.config import read_yaml
from detection.modeling.build import build
from detection.weights.keys import WEIGHT_KEYS
from detection.weights.load import load_initial, open_starting_weights

C4 = "coco_faster_rcnn_r50.yaml"
BGR = Preprocessing("BGR", 255, (103.06, 115.90, 123.15), (1.0, 1.0, 1.0))


@pytest.fixture(scope="module")
def caffe_like(tmp_path_factory):
    """Weights of a ResNet-18 as Caffe's would be: BGR, mean only, pooling that rounds up."""
    network = backbone.create("resnet18", norm="bn", ceil_pool=True, num_classes=5)
    network.preprocessing = BGR
    path = tmp_path_factory.mktemp("weights") / "caffe_like.safetensors"
    backbone.save_weights(network, path)
    return path


def config(*overrides: object):
    return detection.get_config("mini_faster_rcnn_r18.yaml", overrides)


def test_sets_what_the_weights_ask_and_says_it(caffe_like):
    weights = open_starting_weights(str(caffe_like))
    resolved, notes = WEIGHT_KEYS.resolve(config(), weights.wants, weights.source, set())
    assert resolved.INPUT.FORMAT == "BGR"
    assert resolved.MODEL.PIXEL_MEAN == [103.06, 115.90, 123.15]
    assert resolved.MODEL.PIXEL_STD == [1.0, 1.0, 1.0]
    assert resolved.MODEL.BACKBONE.CEIL_POOL is True
    assert "INPUT.FORMAT RGB -> BGR" in notes[0] and "CEIL_POOL False -> True" in notes[0]
    again, notes = WEIGHT_KEYS.resolve(resolved, weights.wants, weights.source, set())
    assert again == resolved and notes == []


@pytest.mark.parametrize(
    ("key", "value"),
    [("INPUT.FORMAT", "RGB"), ("MODEL.PIXEL_STD", [58.0, 57.0, 57.0]), ("MODEL.BACKBONE.STEM", "deep")],
)
def test_a_key_of_the_command_line_that_disagrees_is_an_error(caffe_like, key, value):
    weights = open_starting_weights(str(caffe_like))
    with pytest.raises(ConfigError, match=f"{key} is .* but the weights in .*caffe_like.*leave the key out"):
        WEIGHT_KEYS.resolve(config(key, value), weights.wants, weights.source, {key})


@pytest.mark.parametrize(
    "values", ["PIXEL_MEAN: abc", "PIXEL_STD: 5", "PIXEL_MEAN: [a, b, c]", "BACKBONE: {STEM: [1]}"]
)
def test_a_checkpoint_whose_config_has_values_of_another_kind_is_an_error(values):
    wants = WEIGHT_KEYS.of_checkpoint({"config": f"MODEL: {{{values}}}"}, "a.pth")
    with pytest.raises(ConfigError, match=r"^a\.pth: MODEL\..* is .*, expected"):
        WEIGHT_KEYS.resolve(config(), wants, "a.pth", set())


def test_a_preprocessing_that_is_only_usual_changes_nothing():
    usual = Preprocessing("RGB", 1, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), assumed=True)
    wants = WEIGHT_KEYS.of_backbone(WeightMetadata(preprocessing=usual), {})
    settled, notes = WEIGHT_KEYS.resolve(config(), wants, "file", set(), assumed=True)
    assert settled == config()
    assert any("MODEL.PIXEL_MEAN" in note and "kept" in note and "127.5" in note for note in notes)


def test_stride_placement_matters_to_bottlenecks_alone():
    wants = {"MODEL.RESNETS.STRIDE_IN_1X1": True}
    assert WEIGHT_KEYS.resolve(config(), wants, "file", set())[0].MODEL.RESNETS.STRIDE_IN_1X1 is False
    of_50 = config("MODEL.BACKBONE.NAME", "resnet50_fpn")
    assert WEIGHT_KEYS.resolve(of_50, wants, "file", set())[0].MODEL.RESNETS.STRIDE_IN_1X1 is True


def test_a_stride_that_the_file_does_not_tell_is_noted():
    of_50 = ("MODEL.BACKBONE.NAME", "resnet50_fpn", "MODEL.RESNETS.STRIDE_IN_1X1")
    doubt = "MODEL.RESNETS.STRIDE_IN_1X1 True kept; the file does not say"
    for settings, wants, given, expected in (
        ((*of_50, "True"), {}, set(), True),
        ((*of_50, "False"), {}, set(), False),
        ((*of_50, "True"), {}, {"MODEL.RESNETS.STRIDE_IN_1X1"}, False),
        ((*of_50, "True"), {"MODEL.RESNETS.STRIDE_IN_1X1": True}, set(), False),
        (("MODEL.RESNETS.STRIDE_IN_1X1", "True"), {}, set(), False),
    ):
        _, notes = WEIGHT_KEYS.resolve(config(*settings), wants, "file", given, assumed=True)
        assert any(doubt in note for note in notes) == expected


def test_deep_stem_and_average_down_are_built(tmp_path):
    network = backbone.create("resnet50", stem="deep", average_down=True, norm="frozen_bn")
    backbone.save_weights(network, tmp_path / "d.pth")
    weights = open_starting_weights(str(tmp_path / "d.pth"))
    resolved, _ = WEIGHT_KEYS.resolve(
        config("MODEL.BACKBONE.NAME", "resnet50_fpn"), weights.wants, weights.source, set()
    )
    assert resolved.MODEL.BACKBONE.STEM == "deep" and resolved.MODEL.BACKBONE.AVERAGE_DOWN
    built = detection.modeling.backbone.build_network(resolved)
    assert built.average_down and "conv1.0.weight" in built.state_dict()


@pytest.mark.parametrize(
    ("said", "name"), [(True, "mini_faster_rcnn_r18.yaml"), (False, "mini_faster_rcnn_r18.yaml"), (True, C4)]
)
def test_shortcuts_of_option_a_are_built(said, name, tmp_path):
    """What tools/pretrain.py makes of imagenet_resnet18.yaml, with and without its metadata."""
    network = backbone.create("resnet18", shortcut="A", num_classes=5)
    backbone.save_weights(network, tmp_path / "a.pth") if said else torch.save(network.state_dict(), tmp_path / "a.pth")
    weights = open_starting_weights(str(tmp_path / "a.pth"))
    begun = detection.get_config(name, ["MODEL.DEVICE", "cpu", *(("MODEL.BACKBONE.NAME", "resnet18") * (name == C4))])
    resolved, notes = WEIGHT_KEYS.resolve(begun, weights.wants, weights.source, set(), assumed=weights.assumed)
    assert "set as the weights ask: MODEL.BACKBONE.SHORTCUT '' -> A" in notes[0]
    assert "backbone, " in load_initial(build(resolved), weights, resolved)
    # The reverse: torchvision's weights are of option B.
    key = "MODEL.BACKBONE.SHORTCUT"
    torch.save(backbone.create("resnet18").state_dict(), tmp_path / "b.pth")
    weights = open_starting_weights(str(tmp_path / "b.pth"))
    assert WEIGHT_KEYS.resolve(config(), weights.wants, weights.source, set(), assumed=True)[1] == []
    with pytest.raises(ConfigError, match=f"{key} is A on the command line, but the weights .* network with B"):
        WEIGHT_KEYS.resolve(config(key, "A"), weights.wants, weights.source, {key})


def test_dilation_follows_the_weights(tmp_path):
    network = backbone.create("resnet50", output_stride=16, dilation_style="mmdetection")
    backbone.save_weights(network, tmp_path / "d.pth")
    weights = open_starting_weights(str(tmp_path / "d.pth"))
    begun = config("MODEL.BACKBONE.NAME", "resnet50_fpn", "MODEL.BACKBONE.OUTPUT_STRIDE", 16)
    resolved, notes = WEIGHT_KEYS.resolve(begun, weights.wants, weights.source, set(), assumed=weights.assumed)
    assert resolved.MODEL.BACKBONE.DILATION_STYLE == "mmdetection" and "DILATION_STYLE torchvision -> mmdet" in notes[0]


@pytest.fixture(scope="module")
def trained(caffe_like, tmp_path_factory):
    folder = tmp_path_factory.mktemp("adopt") / "run"
    printed = runs.train(folder, "--weights", str(caffe_like), changes={"SOLVER.MAX_ITER": 2})
    return folder, printed


def test_a_training_from_them(trained, caffe_like):
    folder, printed = trained
    assert "set as the weights ask: INPUT.FORMAT RGB -> BGR" in printed
    settled = read_yaml(folder / "config.yaml")
    assert settled["INPUT"]["FORMAT"] == "BGR" and settled["MODEL"]["BACKBONE"]["CEIL_POOL"]


def test_it_resumes_without_the_file(trained, caffe_like):
    folder, _ = trained
    changes = {"SOLVER.MAX_ITER": 3}
    # The length is a change that --force lets pass; the adopted keys are none.
    printed = runs.train(folder, "--resume", "--force", "--weights", str(caffe_like), changes=changes)
    assert "changed config (--force): SOLVER.MAX_ITER" in printed
    assert read_yaml(folder / "config.yaml")["INPUT"]["FORMAT"] == "BGR"


def test_evaluation_follows_the_checkpoint(trained, tmp_path):
    folder, _ = trained
    changes = {"DATASETS.TEST": "mini_val", "TEST.PICTURES": 0}
    printed = runs.train(
        tmp_path / "eval", "--eval-only", "--weights", str(folder / "model_final.pth"), changes=changes
    )
    assert "set as the weights ask: INPUT.FORMAT RGB -> BGR" in printed
    assert "bbox" in json.loads((tmp_path / "eval" / "results.json").read_text())
    changes["INPUT.FORMAT"] = "RGB"
    printed = runs.train(
        tmp_path / "other",
        *("--eval-only", "--weights", str(folder / "model_final.pth")),
        changes=changes,
        status=2,
    )
    assert "INPUT.FORMAT is RGB on the command line" in printed and "Traceback" not in printed


def test_pooling_of_the_detector_is_that_of_the_weights(trained):
    from detection.inference.detector import load_trained_detector

    detection.register()
    folder, _ = trained
    detector = load_trained_detector(folder / "model_final.pth", "cpu")
    pool = detector.model.backbone.bottom_up.maxpool
    assert pool.ceil_mode and pool.padding == 0
    assert detector.config.INPUT.FORMAT == "BGR"
    assert isinstance(pool, torch.nn.MaxPool2d)
