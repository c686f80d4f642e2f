"""Detectors of torchvision in a file: the layers and settings that they have, and their classes."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from detectron2.config import CfgNode
from torch import Tensor

from backbone import WeightsError
from backbone.common.text import some
from backbone.engine.config import get, put
from backbone.weights.content import WeightsFile
from backbone.weights.identify import find_backbones
from backbone.weights.weight_metadata import WeightMetadata

from ..config import load_config
from ..config.names import FPN_SUFFIX
from . import torchvision_names as names
from .foreign import DetectorLayout, ForeignDetector, Translation
from .keys import WEIGHT_KEYS

# By which torchvision's detectors of networks are known that there is no head or network for here.
UNKNOWN = {
    "head.regression_head.bbox_ctrness.": "an FCOS",
    "head.classification_head.module_list.": "an SSD",
    "roi_heads.keypoint_predictor.": "a Keypoint R-CNN",
    "backbone.body.0.": "a detector on a network that is no ResNet",
}
RGB = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
COUNTER = "num_batches_tracked"
# The least logit that a class may have that is not there: its probability is 0 in float32.
ABSENT = -100.0
SIZES, RATIOS = [[32], [64], [128], [256], [512]], [[0.5, 1.0, 2.0]]


def coco_labels() -> dict[str, int]:
    """Return the names of COCO's 80 classes with their labels among torchvision's 91."""
    from torchvision.models.detection import FasterRCNN_ResNet50_FPN_Weights

    categories = FasterRCNN_ResNet50_FPN_Weights.COCO_V1.meta["categories"]
    return {name: label for label, name in enumerate(categories) if label and name != "N/A"}


class TorchvisionLayout(DetectorLayout):
    """torchvision's Faster and Mask R-CNN on ResNets with a pyramid, of either version."""

    project = "torchvision"

    def recognise(self, found: Collection[str]) -> bool:
        return any(name.startswith((names.BODY, names.PYRAMID, *UNKNOWN)) for name in found)

    def read(self, content: Any, tensors: Mapping[str, Tensor], source: str) -> ForeignDetector:
        """See `DetectorLayout.read`.

        Rows of classes that COCO does not use are left out, and the background's row comes last.
        """
        _refuse_unknown(tensors, source)
        theirs = {names.modern(name): name for name in tensors}
        levels = _levels(tensors, theirs, source)
        form = names.form_of(theirs, levels)
        _check_anchors(tensors, theirs, source)
        labels, notes = _labels(tensors, theirs, source)
        rows = _Rows(list(labels.values()))
        own = dict(form.layers())
        translation, unknown = Translation(), []
        for name, former in theirs.items():
            layer, _, leaf = name.rpartition(".")
            if name.startswith(names.BODY):
                translation.put(former, names.OWN_BODY + name.removeprefix(names.BODY), tensors[former])
            elif layer in own:
                tensor, how = rows.read(layer, tensors[former])
                translation.put(former, f"{own[layer]}.{leaf}", tensor, how)
            else:
                unknown.append(former)
        if unknown:
            raise WeightsError(f"{source}: torchvision's detectors of this form have no {some(unknown)}")
        classes = [] if any(name.startswith("class ") for name in labels) else list(labels)
        config, eps_note = _config(translation.tensors, form, len(labels), source)
        wants = {key: get(config, key) for key in (*WEIGHT_KEYS.all, *WANTED)}
        return ForeignDetector(
            source,
            True,
            translation.tensors,
            wants,
            classes,
            project=self.project,
            config=config,
            translation=translation,
            category_ids=list(labels.values()) if classes else [],
            notes=[*notes, *eps_note],
        )

    def write(
        self, tensors: Mapping[str, Tensor], config: CfgNode, category_ids: Sequence[int], source: str
    ) -> Translation:
        """See `DetectorLayout.write`. COCO's classes get its labels, 1 to 90 with gaps; others 1, 2, 3, ..."""
        labels = labels_for(category_ids)
        rows, form = _Rows(labels), names.own_form_of(tensors)
        theirs = {own: name for name, own in form.layers()}
        eps = config.MODEL.BACKBONE.NORM_EPS
        translation = Translation()
        for name, tensor in tensors.items():
            layer, _, leaf = name.rpartition(".")
            if name.startswith(names.OWN_BODY):
                change = leaf == "running_var" and eps != USUAL_EPS
                how = f"of epsilon {USUAL_EPS:g} in place of {eps:g}" if change else ""
                value = tensor + (eps - USUAL_EPS) if change else tensor
                translation.put(name, names.BODY + name.removeprefix(names.OWN_BODY), value, how)
                if leaf == "running_var" and f"{layer}.{COUNTER}" not in tensors:
                    # Frozen norms of torchvision drop it, others need it.
                    counter = f"{names.BODY}{layer.removeprefix(names.OWN_BODY)}.{COUNTER}"
                    translation.tensors[counter] = torch.zeros((), dtype=torch.long)
            elif layer in theirs:
                value, how = rows.write(theirs[layer], tensor)
                translation.put(name, f"{theirs[layer]}.{leaf}", value, how)
            else:
                raise WeightsError(f"{source}: torchvision's detectors have no {name}; nothing is written")
        return translation


USUAL_EPS = 1e-5
# Beside what all weights decide: what the same tensors compute otherwise, or do not fit without.
WANTED = (
    "INPUT.EXACT_RESIZE",
    "MODEL.BACKBONE.OUTPUT_STRIDE",
    "MODEL.FPN.NORM",
    "MODEL.ANCHOR_GENERATOR.SIZES",
    "MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS",
    "MODEL.ANCHOR_GENERATOR.OFFSET",
    "MODEL.RPN.CONV_DIMS",
    "MODEL.ROI_HEADS.NAME",
    "MODEL.ROI_BOX_HEAD.NUM_CONV",
    "MODEL.ROI_BOX_HEAD.NUM_FC",
    "MODEL.ROI_BOX_HEAD.FC_DIM",
    "MODEL.ROI_BOX_HEAD.CONV_DIM",
    "MODEL.ROI_BOX_HEAD.NORM",
    "MODEL.ROI_BOX_HEAD.BBOX_REG_WEIGHTS",
    "MODEL.ROI_BOX_HEAD.MIN_SIZE_TEST",
    "MODEL.ROI_MASK_HEAD.NUM_CONV",
    "MODEL.ROI_MASK_HEAD.NORM",
    *WEIGHT_KEYS.whole,
)


def labels_for(category_ids: Sequence[int]) -> list[int]:
    """Return torchvision's label of each class: COCO's own where these are its 80 classes, else 1, 2, 3, ..."""
    of_coco = list(coco_labels().values())
    return of_coco if list(category_ids) == of_coco else list(range(1, len(category_ids) + 1))


class _Rows:
    """The rows of the layers that score classes: torchvision has the background's first, we have it last.

    Args:
        labels: torchvision's label of each of our classes, rising.
    """

    def __init__(self, labels: Sequence[int]) -> None:
        self.labels = list(labels)
        gaps = self.labels != list(range(1, len(labels) + 1))
        self.of_classes = "rows of classes that are none left out" if gaps else ""
        self.filled = "rows of labels without a class added" if gaps else ""

    def read(self, layer: str, tensor: Tensor) -> tuple[Tensor, str]:
        """Return a tensor of torchvision's `layer` with our rows, and what was done in words."""
        if layer == names.CLASS_SCORE:
            return tensor[[*self.labels, 0]], _joined("background moved behind the classes", self.of_classes)
        if layer == names.BOX_DELTAS:
            boxes = tensor.unflatten(0, (-1, 4))[self.labels].flatten(0, 1)
            return boxes, _joined("background's boxes left out", self.of_classes)
        if layer == names.MASKS:
            return tensor[self.labels], _joined("background's mask left out", self.of_classes)
        return tensor, ""

    def write(self, layer: str, tensor: Tensor) -> tuple[Tensor, str]:
        """Return a tensor of ours with the rows of torchvision's `layer`, and what was done in words."""
        number = len(self.labels)
        if layer == names.CLASS_SCORE:
            rows = tensor.new_full((self.labels[-1] + 1, *tensor.shape[1:]), ABSENT if tensor.ndim == 1 else 0)
            rows[self.labels], rows[0] = tensor[:-1], tensor[-1]
            return rows, _joined("background moved before the classes", self.filled)
        if layer in (names.BOX_DELTAS, names.MASKS):
            each = 4 if layer == names.BOX_DELTAS else 1
            rows = tensor.new_zeros((self.labels[-1] + 1, each, *tensor.shape[1:]))
            shared = len(tensor) == each and number > 1
            rows[self.labels] = tensor.unflatten(0, (-1, each))
            what = "the same for each class" if shared else ""
            return rows.flatten(0, 1), _joined("rows of the background added", what, self.filled)
        return tensor, ""


def _joined(*words: str) -> str:
    return ", ".join(filter(None, words))


def _refuse_unknown(tensors: Collection[str], source: str) -> None:
    found = next((words for start, words in UNKNOWN.items() if any(name.startswith(start) for name in tensors)), None)
    if found:
        raise WeightsError(
            f"{source}: holds {found} of torchvision, which has no counterpart here (Faster and Mask R-CNN on ResNets "
            "have); tools/convert_weights.py --backbone-only takes a ResNet out"
        )


def _tensor(tensors: Mapping[str, Tensor], theirs: Mapping[str, str], name: str, source: str) -> Tensor:
    if name not in theirs:
        raise WeightsError(f"{source}: lacks {name}, by which torchvision's detectors are known")
    return tensors[theirs[name]]


def _levels(tensors: Mapping[str, Tensor], theirs: Mapping[str, str], source: str) -> tuple[int, ...]:
    """Return the levels of the pyramid: torchvision numbers them from 0, whichever stage is the first."""
    taken = [_tensor(tensors, theirs, f"{names.PYRAMID}inner_blocks.0.0.weight", source).shape[1]]
    number = len({name for name in theirs if re.fullmatch(r"backbone\.fpn\.inner_blocks\.\d+\.0\.weight", name)})
    for stage in (1, 2, 3, 4):
        last = next((f"{names.BODY}layer{stage}.0.conv{i}.weight" for i in (3, 2) if _has(theirs, stage, i)), "")
        if _tensor(tensors, theirs, last, source).shape[0] == taken[0]:
            return tuple(range(stage + 1, stage + 1 + number))
    raise WeightsError(f"{source}: its pyramid stands on no stage of its network")


def _has(theirs: Mapping[str, str], stage: int, conv: int) -> bool:
    return f"{names.BODY}layer{stage}.0.conv{conv}.weight" in theirs


def _check_anchors(tensors: Mapping[str, Tensor], theirs: Mapping[str, str], source: str) -> None:
    number = len(_tensor(tensors, theirs, "rpn.head.cls_logits.weight", source))
    if number != len(RATIOS[0]):
        raise WeightsError(
            f"{source}: has {number} anchors at a place, torchvision's own detectors have {len(RATIOS[0])}; of which "
            "sizes they are, the file does not say"
        )


def _labels(tensors: Mapping[str, Tensor], theirs: Mapping[str, str], source: str) -> tuple[dict[str, int], list[str]]:
    """Return the names of the classes with torchvision's labels, and what was decided, in words."""
    number = len(_tensor(tensors, theirs, f"{names.CLASS_SCORE}.bias", source))
    coco = coco_labels()
    if number == max(coco.values()) + 1:
        gaps = number - 1 - len(coco)
        return coco, [f"{number} rows of classes: COCO's {len(coco)} are taken, {gaps} that are none are left out"]
    return {f"class {label}": label for label in range(1, number)}, []


def _config(tensors: Mapping[str, Tensor], form: names.Form, classes: int, source: str) -> tuple[CfgNode, list[str]]:
    """Return our config, unfrozen, of torchvision's detector, and a note on the norms' epsilon."""
    config = load_config("coco_mask_rcnn_r50_fpn.yaml" if form.masks else "coco_faster_rcnn_r50_fpn.yaml").clone()
    config.defrost()
    body = {key.removeprefix(names.OWN_BODY): value for key, value in tensors.items() if key.startswith(names.OWN_BODY)}
    networks = find_backbones(WeightsFile(source, "torch", "torchvision", body, WeightMetadata()))
    if not networks or form.levels != (2, 3, 4, 5):
        raise WeightsError(f"{source}: its network or pyramid is none that a detector here has")
    counted = any(key.endswith(COUNTER) for key in body)
    head, masks = "roi_heads.box_head.", "roi_heads.mask_head."
    values = {
        "INPUT.FORMAT": "RGB",
        "INPUT.FLOAT_RESIZE": True,
        "INPUT.EXACT_RESIZE": False,
        "MODEL.PIXEL_MEAN": [255 * value for value in RGB["mean"]],
        "MODEL.PIXEL_STD": [255 * value for value in RGB["std"]],
        "MODEL.BACKBONE.NAME": networks[0] + FPN_SUFFIX,
        "MODEL.BACKBONE.NORM_EPS": USUAL_EPS if counted else 0.0,
        "MODEL.RESNETS.NORM": "BN" if counted else "FrozenBN",
        "MODEL.FPN.NORM": "BN" if "pyramid" in form.norms else "",
        "MODEL.FPN.OUT_CHANNELS": len(tensors["backbone.fpn_lateral2.weight"]),
        "MODEL.ANCHOR_GENERATOR.NAME": "TorchvisionAnchorGenerator",
        "MODEL.ANCHOR_GENERATOR.SIZES": SIZES,
        "MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS": RATIOS,
        "MODEL.ANCHOR_GENERATOR.OFFSET": 0.0,
        "MODEL.RPN.CONV_DIMS": [-1] * form.rpn,
        "MODEL.RPN.POST_NMS_TOPK_TRAIN": 2000,
        "MODEL.ROI_HEADS.NAME": "RegionROIHeads",
        "MODEL.ROI_HEADS.NUM_CLASSES": classes,
        "MODEL.ROI_BOX_HEAD.NUM_CONV": form.convs,
        "MODEL.ROI_BOX_HEAD.NUM_FC": form.fcs,
        "MODEL.ROI_BOX_HEAD.FC_DIM": len(tensors[f"{head}fc1.weight"]),
        "MODEL.ROI_BOX_HEAD.NORM": "BN" if "box" in form.norms else "",
        "MODEL.ROI_BOX_HEAD.POOLER_TYPE": "ROIAlign",
        "MODEL.ROI_BOX_HEAD.POOLER_SAMPLING_RATIO": 2,
        "MODEL.ROI_BOX_HEAD.MIN_SIZE_TEST": 0.01,
    }
    if form.convs:
        values["MODEL.ROI_BOX_HEAD.CONV_DIM"] = len(tensors[f"{head}conv1.weight"])
    if form.masks:
        values |= {
            "MODEL.ROI_MASK_HEAD.NUM_CONV": form.masks,
            "MODEL.ROI_MASK_HEAD.CONV_DIM": len(tensors[f"{masks}mask_fcn1.weight"]),
            "MODEL.ROI_MASK_HEAD.NORM": "BN" if "mask" in form.norms else "",
            "MODEL.ROI_MASK_HEAD.POOLER_TYPE": "ROIAlign",
            "MODEL.ROI_MASK_HEAD.POOLER_SAMPLING_RATIO": 2,
        }
    for key, value in values.items():
        put(config, key, value)
    note = "frozen norms have an epsilon of 0, as in torchvision's own detectors on COCO and what was fine-tuned from "
    note += f"them; MODEL.BACKBONE.NORM_EPS {USUAL_EPS:g} where it was trained from a classifier"
    return config, [] if counted else [note]
