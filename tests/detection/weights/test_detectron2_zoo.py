"""Detectors of detectron2's model zoo here, and ours there, against detectron2's own model and predictor."""

from __future__ import annotations

import pickle
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from detectron2.config import get_cfg
from detectron2.engine import DefaultPredictor
from detectron2.modeling import build_model
from detectron2.structures import Instances
from randomize import randomize
from torch import nn

import detection
from backbone import ConfigError, WeightsError
from backbone.common.images import read_image
from backbone.engine.config import differences, get, to_plain
from detection.config.detectron2_config import from_detectron2, to_detectron2, zoo_config, zoo_names
from detection.config.names import classes_key
from detection.export.detectron2_file import write_detectron2
from detection.inference.detector import load_trained_detector
from detection.weights.detectron2_files import recognise
from detection.weights.load import open_starting_weights
from detection.weights.projects import interpret

SMALL = ["INPUT.MIN_SIZE_TEST", 128]
REGIONS = [*SMALL, "MODEL.RPN.POST_NMS_TOPK_TEST", 40, "MODEL.ROI_BOX_HEAD.FC_DIM", 32]
PYRAMID = ["MODEL.FPN.OUT_CHANNELS", 32]
KINDS = {
    "c4": ("COCO-Detection/faster_rcnn_R_50_C4_3x", REGIONS),
    "dc5": ("COCO-Detection/faster_rcnn_R_50_DC5_3x", REGIONS),
    "fpn with masks": (
        "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_3x",
        [*REGIONS, *PYRAMID, "MODEL.ROI_MASK_HEAD.CONV_DIM", 16],
    ),
    "cascade with masks": (
        "Misc/cascade_mask_rcnn_R_50_FPN_3x",
        [*REGIONS, *PYRAMID, "MODEL.ROI_MASK_HEAD.CONV_DIM", 16],
    ),
    # Its tensors are those of another config too, with other preprocessing.
    "gn": (
        "Misc/scratch_mask_rcnn_R_50_FPN_9x_gn",
        [*REGIONS, *PYRAMID, "MODEL.ROI_MASK_HEAD.CONV_DIM", 32, "MODEL.ROI_BOX_HEAD.CONV_DIM", 32],
    ),
    "keypoints": (
        "COCO-Keypoints/keypoint_rcnn_R_50_FPN_3x",
        [*REGIONS, *PYRAMID, "MODEL.RPN.POST_NMS_TOPK_TEST", 100, "MODEL.ROI_KEYPOINT_HEAD.CONV_DIMS", (16, 16)],
    ),
    "retinanet": ("COCO-Detection/retinanet_R_50_FPN_3x", [*SMALL, *PYRAMID]),
}
# As in the messages.
WITHOUT_COUNTERPART = "ProposalNetwork|PrecomputedProposals|PanopticFPN|SemanticSegmentor|deformable|depth 152"


@pytest.fixture(scope="module", autouse=True)
def registered():
    detection.register()


@torch.no_grad()
def spread(model: nn.Module, sample: dict[str, Any]) -> None:
    """Scale the last layers of all stages to what they see, so that boxes move by some pixels, and scores differ."""
    generator = torch.Generator().manual_seed(1)
    if points := getattr(getattr(model, "roi_heads", None), "keypoint_head", None):
        # Before the maps of keypoints overflow.
        points.score_lowres.weight.zero_()
        points.score_lowres.register_forward_pre_hook(lambda layer, inputs: scale_to(layer, inputs[0]))
    for layer, size, mean in last_layers(model):
        seen: list[torch.Tensor] = []
        hook = layer.register_forward_pre_hook(lambda _, inputs, seen=seen: seen.append(inputs[0]))
        model([sample])
        hook.remove()
        values = torch.randn(layer.weight.shape, generator=generator)
        columns = torch.cat([value.transpose(0, 1).flatten(1).T for value in seen])
        if isinstance(layer, nn.Conv2d) and layer.kernel_size == (3, 3):
            columns = torch.cat(
                [nn.functional.unfold(value, 3, padding=1).transpose(1, 2).flatten(0, 1) for value in seen]
            )
        layer.weight.copy_(values * size / columns.std(0).mean() / layer.weight[0].numel() ** 0.5)
        layer.bias.copy_(
            torch.randn(layer.bias.shape, generator=generator) * 0.1 - layer.weight.flatten(1) @ columns.mean(0) + mean
        )


def scale_to(layer: nn.ConvTranspose2d, seen: torch.Tensor) -> None:
    if not layer.weight.any():
        layer.weight.normal_(std=float(2 / (seen.square().mean().sqrt() * layer.in_channels**0.5)))


def last_layers(model: nn.Module) -> list[tuple[nn.Module, float, float]]:
    """Return the last layers in the order in which they run, with the size and the mean of what they should give."""
    if hasattr(model, "head"):
        return [(model.head.cls_score, 1.5, -4.0), (model.head.bbox_pred, 0.3, 0.0)]
    rpn, predictors = model.proposal_generator.rpn_head, model.roi_heads.box_predictor
    layers = [(rpn.objectness_logits, 2.0), (rpn.anchor_deltas, 0.1)]
    for predictor in predictors if isinstance(predictors, nn.ModuleList) else [predictors]:
        layers += [(predictor.cls_score, 3.0), (predictor.bbox_pred, 0.5)]
    return [(*pair, 0.0) for pair in layers]


@pytest.fixture(
    scope="module", params=[kind if kind != "gn" else pytest.param(kind, marks=pytest.mark.slow) for kind in KINDS]
)
def stock(request, tmp_path_factory, shared_data) -> tuple[str, Path, Any, list[tuple[Any, Instances]]]:
    """Kind, file, config and detections on real images of detectron2's own model with random weights."""
    (name, small), path = KINDS[request.param], tmp_path_factory.mktemp("zoo") / "zoo.pkl"
    config = zoo_config(name)
    config.merge_from_list([*small, "MODEL.DEVICE", "cpu", "MODEL.WEIGHTS", ""])
    torch.manual_seed(0)
    predictor = DefaultPredictor(config)
    model = predictor.model
    randomize(model.backbone)
    if hasattr(getattr(model, "roi_heads", None), "res5"):
        randomize(model.roi_heads.res5)
    images = [read_image(sorted((shared_data / "coco" / "val2017").glob("*.jpg"))[0])]
    spread(model, {"image": torch.from_numpy(images[0][::3, ::3].copy()).permute(2, 0, 1)})
    arrays = {key: value.numpy() for key, value in model.state_dict().items()}
    path.write_bytes(pickle.dumps({"model": arrays, "__author__": "Detectron2 Model Zoo"}))
    return request.param, path, config, [(image, predictor(image)["instances"]) for image in images]


def check_same(found: Instances, expected: Instances) -> None:
    assert len(found) == len(expected) > 20
    assert torch.equal(found.pred_classes, expected.pred_classes)
    assert (found.pred_boxes.tensor - expected.pred_boxes.tensor).abs().max() < 0.01
    assert (found.scores - expected.scores).abs().max() < 1e-4
    if expected.has("pred_masks"):
        assert (found.pred_masks != expected.pred_masks).float().mean() < 1e-5
    if expected.has("pred_keypoints"):
        # Where two places of a map are nearly equal, rounding may choose the other.
        apart = (found.pred_keypoints - expected.pred_keypoints).abs().flatten(2).amax(2)
        assert apart.shape[1] == 17 and (apart < 0.01).float().mean() > 0.99


@pytest.mark.proves(
    "detectron2",
    "Faster, Mask, Cascade, Keypoint R-CNN, RetinaNet",
    "in, out",
    "detections of its DefaultPredictor; its model loads our file strictly",
)
def test_in_and_out_again(stock, tmp_path):
    kind, path, config, expected = stock
    name, small = KINDS[kind]
    several = recognise(open_names(path))
    assert name in several and (len(several) == 1 or kind == "gn")
    if kind == "gn":
        with pytest.raises(
            WeightsError, match=f"may be of {several[0]} or {name}, which differ in their preproc.*--conf"
        ):
            load_trained_detector(path, "cpu", small)
    detector = load_trained_detector(path, "cpu", small, config=f"detectron2:{name}" if kind == "gn" else None)
    ends = [(1, "person")] if kind == "keypoints" else [(1, "person"), (90, "toothbrush")]
    assert list(zip(detector.category_ids, detector.classes))[:: len(detector.classes) - 1 or 1] == ends
    for image, instances in expected:
        check_same(detector.detect(image), instances)

    done = write_detectron2(detector, tmp_path / "again.pkl")
    assert done.tensors == len(open_names(path))
    back = get_cfg()
    back.merge_from_file(str(tmp_path / "again.yaml"))
    assert set(differences(to_plain(config.MODEL), to_plain(back.MODEL))) == {"WEIGHTS"}
    assert str(tmp_path / "again.pkl") == back.MODEL.WEIGHTS
    assert "matching_heuristics" not in pickle.loads((tmp_path / "again.pkl").read_bytes())
    # Its predictor loads by DetectionCheckpointer, which only warns of what does not fit.
    predictor = DefaultPredictor(back)
    predictor.model.load_state_dict(open_names(tmp_path / "again.pkl"))
    for image, instances in expected:
        check_same(predictor(image)["instances"], instances)
    # What was written opens here too, with the classes and the config that it carries.
    again = open_starting_weights(str(tmp_path / "again.pkl"))
    assert again.classes == detector.classes and again.wants["INPUT.FORMAT"] == "BGR"
    state = detector.model.state_dict()
    assert again.tensors.keys() == state.keys() and all(torch.equal(again.tensors[key], state[key]) for key in state)
    with pytest.raises(WeightsError, match="exists already"):
        write_detectron2(detector, tmp_path / "again.pkl")


def open_names(path: Path) -> dict[str, torch.Tensor]:
    return {key: torch.from_numpy(value) for key, value in pickle.loads(path.read_bytes())["model"].items()}


def meta_names(name: str) -> dict[str, torch.Tensor]:
    """Return names and shapes of detectron2's model of a zoo config, without memory."""
    config = zoo_config(name)
    config.MODEL.DEVICE = "meta"
    with torch.device("meta"):
        return build_model(config).state_dict()


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("COCO-Detection/faster_rcnn_R_101_FPN_3x", "COCO-Detection/faster_rcnn_R_101_FPN_3x"),
        ("COCO-InstanceSegmentation/mask_rcnn_R_50_C4_1x", "COCO-InstanceSegmentation/mask_rcnn_R_50_C4_3x"),
        ("COCO-InstanceSegmentation/mask_rcnn_X_101_32x8d_FPN_3x",) * 2,
        ("COCO-Detection/retinanet_R_101_FPN_3x",) * 2,
        ("PascalVOC-Detection/faster_rcnn_R_50_C4",) * 2,
        ("Cityscapes/mask_rcnn_R_50_FPN",) * 2,
        ("LVISv1-InstanceSegmentation/mask_rcnn_R_50_FPN_1x",) * 2,
        ("COCO-Keypoints/keypoint_rcnn_X_101_32x8d_FPN_3x",) * 2,
        ("Misc/cascade_mask_rcnn_R_50_FPN_1x", "Misc/cascade_mask_rcnn_R_50_FPN_3x"),
        ("Misc/mask_rcnn_R_50_FPN_1x_cls_agnostic", "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_3x"),
        ("Misc/mask_rcnn_R_50_FPN_3x_syncbn", None),
    ],
)
def test_recognised_by_its_tensors(name, found):
    tensors = meta_names(name)
    names = recognise(tensors)
    if found is None:
        assert names == [name, "Misc/scratch_mask_rcnn_R_50_FPN_9x_syncbn"]
        ours = interpret({"__author__": "Detectron2 Model Zoo"}, tensors, "zoo.pkl")
        assert ours.config is None and not {"MODEL.PIXEL_STD", "MODEL.RESNETS.STRIDE_IN_1X1"} & ours.wants.keys()
        ours = interpret({"__author__": "Detectron2 Model Zoo"}, tensors, f"detectron2:{names[1]}")
        assert ours.config.MODEL.PIXEL_STD == [57.375, 57.12, 58.395] == ours.wants["MODEL.PIXEL_STD"]
        assert ours.config.MODEL.RESNETS.NORM == "SyncBN" and len(ours.classes) == 80
    else:
        assert names == [found]
        ours = interpret({"__author__": "Detectron2 Model Zoo"}, tensors, "zoo.pkl")
        assert len(ours.classes) == get(zoo_config(name), classes_key(zoo_config(name)))
        assert ours.wants["MODEL.RESNETS.STRIDE_IN_1X1"] == ("X_101" not in name) and not ours.usual


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("COCO-Detection/rpn_R_50_C4_1x", "an RPN alone"),
        ("COCO-PanopticSegmentation/panoptic_fpn_R_50_3x", "a panoptic"),
    ],
)
def test_refused_by_name(name, said):
    with pytest.raises(WeightsError, match=f"zoo.pkl: holds {said}.* of detectron2, which has no counterpart here"):
        interpret({}, meta_names(name), "zoo.pkl")


def test_files_of_trainings_let_the_command_line_win():
    tensors = meta_names(KINDS["c4"][0])
    ours = interpret({"iteration": 9}, tensors, "model_final.pth")
    assert ours.usual and not ours.classes
    assert "INPUT.FORMAT" in ours.wanted(set()) and "INPUT.FORMAT" not in ours.wanted({"INPUT.FORMAT"})
    config = from_detectron2(get_cfg(), "its config")
    config.MODEL.BACKBONE.STEM = "deep"
    with pytest.raises(ConfigError, match="detectron2 does not know the deep stem"):
        to_detectron2(config, "its config")
    with pytest.raises(ConfigError, match="no config 'COCO-Detection/faster_rcnn_R_50_C4'; did you mean"):
        detection.get_config("detectron2:COCO-Detection/faster_rcnn_R_50_C4")
    config = detection.get_config("detectron2:COCO-Detection/faster_rcnn_R_50_DC5_1x", ["SOLVER.MAX_ITER", 5])
    assert (config.MODEL.BACKBONE.OUTPUT_STRIDE, config.MODEL.BACKBONE.DILATION_STYLE) == (16, "mmdetection")
    assert (config.MODEL.BACKBONE.NAME, config.SOLVER.MAX_ITER, config.SEED) == ("resnet50", 5, 0)


def test_every_name_of_the_zoo_is_loaded_or_refused():
    """By one line that says what has no counterpart here, before anything is downloaded."""
    refused, reasons = [], set()
    for name in zoo_names():
        try:
            config = detection.get_config(f"detectron2:{name}")
        except ConfigError as error:
            assert str(error).startswith(f"detectron2:{name}: ") and "\n" not in str(error)
            refused.append(name)
            reasons.add(re.search(WITHOUT_COUNTERPART, str(error))[0])
        else:
            assert config.is_frozen()
    kinds = re.compile("rpn_R_50|fast_rcnn_R_50|anoptic|semantic|dconv")
    assert refused == [name for name in zoo_names() if kinds.search(name)]
    assert reasons == set(WITHOUT_COUNTERPART.split("|"))
    with pytest.raises(ConfigError, match="deformable"):
        load_trained_detector("detectron2:Misc/mask_rcnn_R_50_FPN_3x_dconv_c3-c5")
    with pytest.raises(ConfigError, match="PanopticFPN"):
        open_starting_weights("detectron2:COCO-PanopticSegmentation/panoptic_fpn_R_50_1x")
