"""Detectors of torchvision here, and ours there, against torchvision's own models."""

from __future__ import annotations

import json
import re
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import detection as models
from torchvision.models import resnet18
from torchvision.models.detection import (
    FasterRCNN,
    FasterRCNN_ResNet50_FPN_Weights,
    MaskRCNN,
    RetinaNet,
    fcos_resnet50_fpn,
)
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN, resnet_fpn_backbone
from torchvision.models.detection.faster_rcnn import FastRCNNConvFCHead, FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.retinanet import RetinaNetHead
from torchvision.models.detection.rpn import RPNHead
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

import detection
from backbone import ConfigError, WeightsError
from backbone.common.images import read_image
from detection.export import torchvision_file
from detection.export.torchvision_file import write_torchvision
from detection.inference.detector import Detector, load_trained_detector
from detection.inference.run import detect
from detection.inference.transform import TestTransform
from detection.modeling.build import build
from detection.weights.foreign import check_kind
from detection.weights.load import open_starting_weights
from detection.weights.torchvision_config import COUNTER
from detection.weights.torchvision_files import TorchvisionLayout, coco_labels

SIZES = {"min_size": 128, "max_size": 200, "rpn_pre_nms_top_n_test": 200, "rpn_post_nms_top_n_test": 60}
CATEGORIES = FasterRCNN_ResNet50_FPN_Weights.COCO_V1.meta["categories"]
UNUSED = [label for label, name in enumerate(CATEGORIES) if name == "N/A"]


def first() -> nn.Module:
    """Return a Mask R-CNN of the first version's form: frozen norms of epsilon 0, COCO's 91 labels."""
    network = resnet_fpn_backbone(backbone_name="resnet18", weights=None)
    parts = {"box_head": TwoMLPHead(256 * 49, 32), "box_predictor": FastRCNNPredictor(32, 91)}
    masks = {"mask_head": MaskRCNNHeads(256, [16] * 4, 1), "mask_predictor": MaskRCNNPredictor(16, 16, 91)}
    model = MaskRCNN(network, **parts, **masks, **SIZES)
    for module in model.modules():
        if hasattr(module, "running_var"):
            module.eps = 0.0
    return model


def second() -> nn.Module:
    """Return a Mask R-CNN of the second version's form: norms everywhere, four convolutions; five labels."""
    layers = {f"layer{stage}": str(stage - 1) for stage in (1, 2, 3, 4)}
    network = BackboneWithFPN(resnet18(), layers, [64, 128, 256, 512], 256, norm_layer=nn.BatchNorm2d)
    return MaskRCNN(
        network,
        rpn_head=RPNHead(256, 3, conv_depth=2),
        box_head=FastRCNNConvFCHead((256, 7, 7), [16] * 4, [32], norm_layer=nn.BatchNorm2d),
        box_predictor=FastRCNNPredictor(32, 6),
        mask_head=MaskRCNNHeads(256, [16] * 4, 1, norm_layer=nn.BatchNorm2d),
        mask_predictor=MaskRCNNPredictor(16, 16, 6),
        **SIZES,
    )


def one_stage(version: int) -> nn.Module:
    """Return a RetinaNet: P6 from P5 and COCO's labels, or P6 from the network, norms in the head and five labels."""
    network = resnet_fpn_backbone(
        backbone_name="resnet18",
        weights=None,
        norm_layer=nn.BatchNorm2d,
        returned_layers=[2, 3, 4],
        extra_blocks=LastLevelP6P7(256 if version == 1 else 512, 256),
    )
    norm, number = (None, 91) if version == 1 else (partial(nn.GroupNorm, 32), 6)
    head = RetinaNetHead(256, 9, number, norm_layer=norm)
    sizes = {"min_size": 128, "max_size": 200, "topk_candidates": 100, "detections_per_img": 1000}
    generator = AnchorGenerator(
        tuple((x, int(x * 2 ** (1 / 3)), int(x * 2 ** (2 / 3))) for x in (32, 64, 128, 256, 512)),
        ((0.5, 1.0, 2.0),) * 5,
    )
    return RetinaNet(network, number, head=head, anchor_generator=generator, **sizes)


@torch.no_grad()
def fill(model: nn.Module, image: Tensor) -> None:
    """Give the norms moments, and scale the last layers to what they see, so that many boxes move and score apart."""
    generator = torch.Generator().manual_seed(1)
    for layer in model.modules():
        if hasattr(layer, "running_var"):
            shape = layer.running_var.shape
            for values, least, span in ((layer.weight, 0.4, 0.3), (layer.running_var, 0.5, 1.0)):
                values.copy_(torch.rand(shape, generator=generator) * span + least)
            for values in (layer.bias, layer.running_mean):
                values.copy_(torch.randn(shape, generator=generator) * 0.1)
    for layer, size in last_layers(model):
        seen: list[Tensor] = []
        hook = layer.register_forward_pre_hook(lambda _, inputs, seen=seen: seen.append(inputs[0]))
        model([image])
        hook.remove()
        columns = torch.cat([value.transpose(0, 1).flatten(1).T for value in seen])
        values = torch.randn(layer.weight.shape, generator=generator)
        layer.weight.copy_(values * size / columns.std(0).mean() / layer.weight[0].numel() ** 0.5)
        mean = columns.mean(0).repeat_interleave(layer.weight[0].numel() // columns.shape[1])
        layer.bias.copy_(torch.randn(layer.bias.shape, generator=generator) * 0.1 - layer.weight.flatten(1) @ mean)
    # As training leaves labels that no object has; RetinaNet has no background beside them.
    scores, is_retinanet = score_layer(model).bias, isinstance(model, RetinaNet)
    labels = len(CATEGORIES) if len(scores) % len(CATEGORIES) == 0 else 6
    unused = [*(UNUSED if labels > 6 else ()), *([0] if is_retinanet else ())]
    scores.view(-1, labels)[:, unused] = -60.0


def last_layers(model: nn.Module) -> list[tuple[nn.Module, float]]:
    """Return the layers that give scores and boxes, with the spread of their outputs."""
    if isinstance(model, RetinaNet):
        heads = model.head
        return [(heads.classification_head.cls_logits, 2.0), (heads.regression_head.bbox_reg, 0.3)]
    rpn, heads = model.rpn.head, model.roi_heads.box_predictor
    return [(rpn.cls_logits, 2.0), (rpn.bbox_pred, 0.1), (heads.cls_score, 2.0), (heads.bbox_pred, 0.5)]


def score_layer(model: nn.Module) -> nn.Module:
    return last_layers(model)[0 if isinstance(model, RetinaNet) else 2][0]


@pytest.fixture(scope="module")
def image(shared_data) -> Any:
    return read_image(sorted((shared_data / "coco" / "val2017").glob("*.jpg"))[0])


@pytest.fixture(scope="module", params=[first, second, partial(one_stage, 1), partial(one_stage, 2)])
def stock(request, tmp_path_factory, image) -> tuple[nn.Module, Path, dict[str, Tensor]]:
    """torchvision's model, its file, and what it finds on a real image."""
    detection.register()
    torch.manual_seed(0)
    model = request.param().eval()
    fill(model, tensor_of(image))
    path = tmp_path_factory.mktemp("torchvision") / "detector.pth"
    torch.save({"model": model.state_dict(), "epoch": 3}, path)
    with torch.no_grad():
        return model, path, model([tensor_of(image)])[0]


def small(model: nn.Module) -> list[object]:
    """Return the settings of the models above."""
    sizes = ["INPUT.MIN_SIZE_TEST", 128, "INPUT.MAX_SIZE_TEST", 200]
    if isinstance(model, RetinaNet):
        return [*sizes, "MODEL.RETINANET.TOPK_CANDIDATES_TEST", 100, "TEST.DETECTIONS_PER_IMAGE", 1000]
    return [*sizes, "MODEL.RPN.PRE_NMS_TOPK_TEST", 200, "MODEL.RPN.POST_NMS_TOPK_TEST", 60]


def tensor_of(image: Any) -> Tensor:
    """Return a BGR uint8 image as torchvision takes it."""
    return torch.from_numpy(image[:, :, ::-1].copy()).permute(2, 0, 1).float() / 255


def check_same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    """Check that each object has one that is the same; those of equal scores may come in another order."""
    # torchvision's RetinaNet keeps boxes that lie outside of the image, without area.
    rows = []
    for side in (found, expected):
        kept = ((side["boxes"][:, 2:] - side["boxes"][:, :2]) > 0).all(1)
        # 0.01 pixels and 1e-4 of a score are both 1 here; another label is far away.
        parts = (side["boxes"][kept] * 100, side["scores"][kept, None] * 1e4, side["labels"][kept, None] * 1e6)
        rows.append(torch.cat(parts, dim=1).double())
    assert len(rows[0]) == len(rows[1]) > 20
    apart = (rows[0][:, None] - rows[1][None]).abs().amax(-1)
    assert apart.amin(0).max() < 1 and apart.amin(1).max() < 1


def found_by(detector: Detector, image: Any) -> dict[str, Tensor]:
    found = detector.detect(image)
    labels = torch.tensor(detector.category_ids)[found.pred_classes]
    return {"boxes": found.pred_boxes.tensor, "scores": found.scores, "labels": labels}


@pytest.mark.proves(
    "torchvision", "Faster, Mask R-CNN, RetinaNet", "in", "detections of torchvision's own models, resizing included"
)
def test_finds_the_same_with_its_own_resizing(stock, image):
    model, path, expected = stock
    detector = load_trained_detector(path, "cpu", small(model))
    is_coco = len(score_layer(model).bias) % len(CATEGORIES) == 0
    wanted = list(coco_labels()) if is_coco else [f"class {number}" for number in range(1, 6)]
    assert detector.classes == wanted
    check_same(found_by(detector, image), expected)
    if "masks" not in expected:
        return
    # The masks before they are pasted, which each project does in its own way; then, roughly, behind it.
    model.transform.postprocess, pasted = (lambda result, *_: result), model.transform.postprocess
    with torch.no_grad():
        raw = model([tensor_of(image)])[0]["masks"]
    model.transform.postprocess = pasted
    sample = TestTransform(detector.config)(image)
    (found,) = detector.model.inference([sample], do_postprocess=False)
    assert (found.pred_masks - raw).abs().max() < 1e-3
    whole = detect(detector.tested, [sample])[0].pred_masks
    assert (whole != (expected["masks"][:, 0] > 0.5)).float().mean() < 0.02


def test_a_run_takes_the_layers_and_the_settings(stock):
    weights = open_starting_weights(str(stock[1]))
    assert weights.whole and weights.project == "torchvision"
    wanted = weights.wanted({"MODEL.BACKBONE.NORM_EPS", "INPUT.FLOAT_RESIZE"})
    assert wanted["MODEL.ANCHOR_GENERATOR.NAME"] == "TorchvisionAnchorGenerator"
    assert "MODEL.BACKBONE.NORM_EPS" not in wanted and "INPUT.FLOAT_RESIZE" not in wanted
    done = [row[3] for row in weights.translation.rows()]
    said = "anchors in another order" if isinstance(stock[0], RetinaNet) else "background moved behind the classes"
    assert any(words.startswith(said) for words in done)


def test_a_config_of_another_kind_is_refused(stock):
    model, path, _ = stock
    kinds = ["coco_faster_rcnn_r50_fpn.yaml", "coco_retinanet_r50_fpn.yaml"]
    own, other = kinds[:: -1 if isinstance(model, RetinaNet) else 1]
    weights = open_starting_weights(str(path))
    check_kind(weights, detection.get_config(own))
    with pytest.raises(WeightsError, match="of torchvision, but the config is of"):
        check_kind(weights, detection.get_config(other))


def test_names_of_before_0_13_are_read(stock, tmp_path):
    model, path, _ = stock
    if len(score_layer(model).bias) % len(CATEGORIES):
        pytest.skip("the second versions are younger")
    old = {}
    for name, value in model.state_dict().items():
        mask = f"mask_head.mask_fcn{int(name.split('.')[2]) + 1}" if ".mask_head." in name else ""
        new = (
            f"roi_heads.{mask}.{name.split('.')[-1]}" if mask else name.replace("rpn.head.conv.0.0.", "rpn.head.conv.")
        )
        if match := re.fullmatch(r"(head\.\w+\.conv)\.(\d)\.0(\.\w+)", name):
            new = f"{match[1]}.{2 * int(match[2])}{match[3]}"
        old[new.replace(".0.weight", ".weight").replace(".0.bias", ".bias") if ".fpn." in new else new] = value
    torch.save(old, tmp_path / "old.pth")
    today, former = open_starting_weights(str(path)), open_starting_weights(str(tmp_path / "old.pth"))
    assert today.wants == former.wants and today.tensors.keys() == former.tensors.keys()
    assert all(torch.equal(value, former.tensors[name]) for name, value in today.tensors.items())


def test_what_there_is_no_head_for_is_refused_by_name(tmp_path):
    with torch.device("meta"):
        names = fcos_resnet50_fpn(weights=None, weights_backbone=None).state_dict()
    torch.save({name: torch.zeros(1) for name in names}, tmp_path / "fcos.pth")
    with pytest.raises(WeightsError, match=r"fcos\.pth: holds an FCOS of torchvision, which has no counterpart here"):
        open_starting_weights(str(tmp_path / "fcos.pth"))
    for name in ("ssd300_vgg16", "fcos_resnet50_fpn:COCO_V1", "fasterrcnn_mobilenet_v3_large_fpn"):
        with pytest.raises(ConfigError, match=f"^torchvision:{name}: no detector of this kind here"):
            open_starting_weights(f"torchvision:{name}")


def test_other_anchors_are_refused(tmp_path):
    model = FasterRCNN(
        resnet_fpn_backbone(backbone_name="resnet18", weights=None),
        box_head=TwoMLPHead(256 * 49, 4),
        box_predictor=FastRCNNPredictor(4, 3),
        rpn_head=RPNHead(256, 5),
    )
    torch.save(model.state_dict(), tmp_path / "other.pth")
    with pytest.raises(WeightsError, match="has 5 anchors at a place, torchvision's own detectors have 3"):
        open_starting_weights(str(tmp_path / "other.pth"))


@pytest.mark.proves(
    "torchvision", "Faster, Mask R-CNN, RetinaNet", "out", "torchvision's models load it strictly and find the same"
)
def test_out_again_loads_strictly_and_finds_the_same(stock, image, tmp_path):
    model, path, expected = stock
    detector = load_trained_detector(path, "cpu", small(model))
    done = write_torchvision(detector, tmp_path / "again.pth")
    again = torch.load(tmp_path / "again.pth", weights_only=True)
    assert done.tensors == len(again)
    # Into a model of one's own, whose norms add the usual epsilon.
    for layer in model.modules():
        if hasattr(layer, "running_var"):
            layer.eps = 1e-5
    kept = {name: value.clone() for name, value in model.state_dict().items()}
    model.load_state_dict(again)
    with torch.no_grad():
        found = model([tensor_of(image)])[0]
    model.load_state_dict(kept)
    check_same(found, expected)
    names = json.loads((tmp_path / "again.json").read_text())["categories"]
    labels = detector.category_ids
    assert [names[label] for label in labels] == detector.classes and len(names) == labels[-1] + 1
    with pytest.raises(WeightsError, match="exists already"):
        write_torchvision(detector, tmp_path / "again.pth")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ([], "anchors that are not rounded"),
        (["MODEL.ANCHOR_GENERATOR.NAME", "TorchvisionAnchorGenerator"], "RoIAlign moved by half a pixel"),
        (["MODEL.RESNETS.STRIDE_IN_1X1", True], "a stride in the first 1x1 convolution"),
        (["MODEL.FPN.NORM", "GN"], "GroupNorm in such a detector"),
    ],
)
def test_what_torchvision_has_not_is_refused_with_the_reason(changes, said):
    config = detection.get_config("coco_faster_rcnn_r50_fpn.yaml", changes)
    with pytest.raises(ConfigError, match=rf"^mine\.pth: torchvision does not know {said}.*; nothing is written"):
        TorchvisionLayout().write({}, config, [1], "mine.pth")


@pytest.mark.parametrize(
    ("kind", "version"), [("fasterrcnn", ""), ("maskrcnn", "_v2"), ("retinanet", ""), ("retinanet", "_v2")]
)
def test_torchvisions_own_functions_build_what_was_read(kind, version):
    """Of the shapes alone; version 1 here has the norms that are trained."""
    with torch.device("meta"):
        model = getattr(models, f"{kind}_resnet50_fpn{version}")(weights=None, weights_backbone=None)
        read = TorchvisionLayout().read({}, model.state_dict(), "x.pth")
        read.config.MODEL.DEVICE = "meta"
        state = build(read.config).state_dict()
    # The config freezes the first norms, which count no batches then.
    shapes = {name: value.shape for name, value in read.tensors.items() if name in state or COUNTER not in name}
    assert {name: value.shape for name, value in state.items()} == shapes
    written = TorchvisionLayout().write(read.tensors, read.config, read.category_ids, "x.pth")
    assert {n: v.shape for n, v in written.tensors.items()} == {n: v.shape for n, v in model.state_dict().items()}
    call = torchvision_file._call(read.config, torchvision_file.own_form_of(state), read.category_ids)
    assert str(call) == f"{kind}_resnet50_fpn{version}(weights=None, weights_backbone=None, num_classes=91)"
