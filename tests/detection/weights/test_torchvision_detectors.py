"""Detectors of torchvision here, and ours there, against torchvision's own models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import resnet18
from torchvision.models.detection import FasterRCNN, FasterRCNN_ResNet50_FPN_Weights, MaskRCNN, fcos_resnet50_fpn
from torchvision.models.detection.backbone_utils import BackboneWithFPN, resnet_fpn_backbone
from torchvision.models.detection.faster_rcnn import FastRCNNConvFCHead, FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.rpn import RPNHead

import detection
from backbone import WeightsError
from backbone.common.images import read_image
from detection.inference.detector import Detector, load_trained_detector
from detection.inference.run import detect
from detection.inference.transform import TestTransform
from detection.weights.load import open_starting_weights
from detection.weights.torchvision_files import coco_labels

SIZES = {"min_size": 128, "max_size": 200, "rpn_pre_nms_top_n_test": 200, "rpn_post_nms_top_n_test": 60}
SMALL = ["INPUT.MIN_SIZE_TEST", 128, "INPUT.MAX_SIZE_TEST", 200, "MODEL.RPN.PRE_NMS_TOPK_TEST", 200]
SMALL += ["MODEL.RPN.POST_NMS_TOPK_TEST", 60]
CATEGORIES = FasterRCNN_ResNet50_FPN_Weights.COCO_V1.meta["categories"]


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
    heads, rpn = model.roi_heads, model.rpn.head
    last = ((rpn.cls_logits, 2.0), (rpn.bbox_pred, 0.1), (heads.box_predictor.cls_score, 2.0))
    for layer, size in (*last, (heads.box_predictor.bbox_pred, 0.5)):
        seen: list[Tensor] = []
        hook = layer.register_forward_pre_hook(lambda _, inputs, seen=seen: seen.append(inputs[0]))
        model([image])
        hook.remove()
        columns = torch.cat([value.transpose(0, 1).flatten(1).T for value in seen])
        values = torch.randn(layer.weight.shape, generator=generator)
        layer.weight.copy_(values * size / columns.std(0).mean() / layer.weight[0].numel() ** 0.5)
        layer.bias.copy_(
            torch.randn(layer.bias.shape, generator=generator) * 0.1 - layer.weight.flatten(1) @ columns.mean(0)
        )
    if len(heads.box_predictor.cls_score.bias) == len(CATEGORIES):
        # As training leaves labels that no object has.
        heads.box_predictor.cls_score.bias[[i for i, name in enumerate(CATEGORIES) if name == "N/A"]] = -60.0


@pytest.fixture(scope="module")
def image(shared_data) -> Any:
    return read_image(sorted((shared_data / "coco" / "val2017").glob("*.jpg"))[0])


@pytest.fixture(scope="module", params=[first, second])
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


def tensor_of(image: Any) -> Tensor:
    """Return a BGR uint8 image as torchvision takes it."""
    return torch.from_numpy(image[:, :, ::-1].copy()).permute(2, 0, 1).float() / 255


def check_same(detector: Detector, image: Any, expected: dict[str, Tensor]) -> None:
    found = detector.detect(image)
    assert len(found) == len(expected["boxes"]) > 20
    labels = torch.tensor(detector.category_ids)[found.pred_classes]
    assert torch.equal(labels, expected["labels"])
    assert (found.pred_boxes.tensor - expected["boxes"]).abs().max() < 0.01
    assert (found.scores - expected["scores"]).abs().max() < 1e-4


def test_finds_the_same_with_its_own_resizing(stock, image):
    model, path, expected = stock
    detector = load_trained_detector(path, "cpu", SMALL)
    is_coco = len(model.roi_heads.box_predictor.cls_score.bias) == len(CATEGORIES)
    wanted = list(coco_labels()) if is_coco else [f"class {number}" for number in range(1, 6)]
    assert detector.classes == wanted
    check_same(detector, image, expected)
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
    table = {row[0]: row for row in weights.translation.rows()}
    assert table["roi_heads.box_predictor.cls_score"][3].startswith("background moved behind the classes")


def test_names_of_before_0_13_are_read(stock, tmp_path):
    model, path, _ = stock
    if model.roi_heads.box_predictor.cls_score.out_features != len(CATEGORIES):
        pytest.skip("the second version is younger")
    old = {}
    for name, value in model.state_dict().items():
        mask = f"mask_head.mask_fcn{int(name.split('.')[2]) + 1}" if ".mask_head." in name else ""
        new = (
            f"roi_heads.{mask}.{name.split('.')[-1]}" if mask else name.replace("rpn.head.conv.0.0.", "rpn.head.conv.")
        )
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
