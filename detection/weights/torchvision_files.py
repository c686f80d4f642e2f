"""Detectors of torchvision in a file: the layers and settings that they have, and their classes."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from detectron2.config import CfgNode
from torch import Tensor
from torchvision.models import detection as models
from torchvision.models import list_models

from backbone import ConfigError, WeightsError
from backbone.common.text import some
from backbone.engine.config import get
from backbone.weights.zoo_list import torchvision_network

from . import torchvision_names as names
from .foreign import DetectorLayout, ForeignDetector, Translation
from .keys import WEIGHT_KEYS
from .torchvision_config import COUNTER, RATIOS, USUAL_EPS, anchor_sizes, config_of, different, wanted_keys

# By which torchvision's detectors of networks are known that there is no head or network for here.
UNKNOWN = {
    "head.regression_head.bbox_ctrness.": "an FCOS",
    "head.classification_head.module_list.": "an SSD",
    "roi_heads.keypoint_predictor.": "a Keypoint R-CNN",
    "backbone.body.0.": "a detector on a network that is no ResNet",
}
# The least logit that a class may have that is not there: its probability is 0 in float32.
ABSENT = -100.0


def coco_labels() -> dict[str, int]:
    """Return the names of COCO's 80 classes with their labels among torchvision's 91."""
    categories = models.FasterRCNN_ResNet50_FPN_Weights.COCO_V1.meta["categories"]
    return {name: label for label, name in enumerate(categories) if label and name != "N/A"}


class TorchvisionLayout(DetectorLayout):
    """torchvision's Faster and Mask R-CNN and RetinaNet on ResNets with a pyramid, of either version."""

    project = "torchvision"

    def refuse_name(self, source: str) -> None:
        zoo, _, rest = source.partition(":")
        model = rest.partition(":")[0]
        if zoo == self.project and torchvision_network(model) is None and model in list_models(module=models):
            raise ConfigError(
                f"{source}: no detector of this kind here; of torchvision's, Faster and Mask R-CNN and RetinaNet on "
                "ResNets are read"
            )

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
        sizes = len(anchor_sizes(form)[0])
        number = _check_anchors(tensors, theirs, form, sizes, source)
        labels, notes = _labels(tensors, theirs, form, number, source)
        rows = _Rows(list(labels.values()), sizes)
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
        config, eps_note = config_of(translation.tensors, form, len(labels), source)
        wants = {key: get(config, key) for key in (*WEIGHT_KEYS.all, *wanted_keys(config))}
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
        if words := different(config):
            raise ConfigError(f"{source}: torchvision does not know {words}; nothing is written")
        anchors, form = config.MODEL.ANCHOR_GENERATOR, names.own_form_of(tensors)
        rows = _Rows(labels_for(category_ids), len(anchors.SIZES[0]))
        theirs = {own: name for name, own in form.layers()}
        eps = config.MODEL.BACKBONE.NORM_EPS
        translation = Translation()
        for name, tensor in tensors.items():
            layer, _, leaf = name.rpartition(".")
            if name.startswith(names.OWN_BODY):
                change = leaf == "running_var" and eps != USUAL_EPS
                how = f"of epsilon {USUAL_EPS:g} in place of {eps:g}" if change else ""
                value = tensor + (eps - USUAL_EPS) if change else tensor
                if name == f"{names.OWN_BODY}conv1.weight" and config.INPUT.FORMAT == "BGR":
                    value, how = value.flip(1), "channels turned from BGR to RGB"
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


def labels_for(category_ids: Sequence[int]) -> list[int]:
    """Return torchvision's label of each class: COCO's own where these are its 80 classes, else 1, 2, 3, ..."""
    of_coco = list(coco_labels().values())
    return of_coco if list(category_ids) == of_coco else list(range(1, len(category_ids) + 1))


class _Rows:
    """The rows of the layers that score classes: torchvision has the background's first, we have it last.

    Args:
        labels: torchvision's label of each of our classes, rising.
        sizes: of anchors at a place; torchvision takes all sizes of a ratio, then the next ratio, we the reverse.
    """

    def __init__(self, labels: Sequence[int], sizes: int) -> None:
        self.labels, self.sizes = list(labels), sizes
        gaps = self.labels != list(range(1, len(labels) + 1))
        self.of_classes = "rows of classes that are none left out" if gaps else ""
        self.filled = "rows of labels without a class added" if gaps else ""
        self.turned = "anchors in another order" if sizes > 1 else ""

    def read(self, layer: str, tensor: Tensor) -> tuple[Tensor, str]:
        """Return a tensor of torchvision's `layer` with our rows, and what was done in words."""
        if layer == names.CLASS_SCORE:
            return tensor[[*self.labels, 0]], _joined("background moved behind the classes", self.of_classes)
        if layer == names.BOX_DELTAS:
            boxes = tensor.unflatten(0, (-1, 4))[self.labels].flatten(0, 1)
            return boxes, _joined("background's boxes left out", self.of_classes)
        if layer == names.MASKS:
            return tensor[self.labels], _joined("background's mask left out", self.of_classes)
        if layer in names.OF_ANCHORS:
            rows = tensor.unflatten(0, (len(RATIOS[0]), self.sizes, -1)).transpose(0, 1)
            if layer != names.SCORES:
                return rows.flatten(0, 2), self.turned
            return rows[:, :, self.labels].flatten(0, 2), _joined(self.turned, "label 0 left out", self.of_classes)
        return tensor, ""

    def write(self, layer: str, tensor: Tensor) -> tuple[Tensor, str]:
        """Return a tensor of ours with the rows of torchvision's `layer`, and what was done in words."""
        number, absent = len(self.labels), ABSENT if tensor.ndim == 1 else 0
        if layer == names.CLASS_SCORE:
            rows = tensor.new_full((self.labels[-1] + 1, *tensor.shape[1:]), absent)
            rows[self.labels], rows[0] = tensor[:-1], tensor[-1]
            return rows, _joined("background moved before the classes", self.filled)
        if layer in (names.BOX_DELTAS, names.MASKS):
            each = 4 if layer == names.BOX_DELTAS else 1
            rows = tensor.new_zeros((self.labels[-1] + 1, each, *tensor.shape[1:]))
            shared = len(tensor) == each and number > 1
            rows[self.labels] = tensor.unflatten(0, (-1, each))
            what = "the same for each class" if shared else ""
            return rows.flatten(0, 1), _joined("rows of the background added", what, self.filled)
        if layer in names.OF_ANCHORS:
            own = tensor.unflatten(0, (self.sizes, -1, number if layer == names.SCORES else 4)).transpose(0, 1)
            if layer != names.SCORES:
                return own.flatten(0, 2).clone(), self.turned
            rows = tensor.new_full((*own.shape[:2], self.labels[-1] + 1, *tensor.shape[1:]), absent)
            rows[:, :, self.labels] = own
            return rows.flatten(0, 2), _joined(self.turned, "label 0 added", self.filled)
        return tensor, ""


def _joined(*words: str) -> str:
    return ", ".join(filter(None, words))


def _refuse_unknown(tensors: Collection[str], source: str) -> None:
    found = next((words for start, words in UNKNOWN.items() if any(name.startswith(start) for name in tensors)), None)
    if found:
        raise WeightsError(
            f"{source}: holds {found} of torchvision, which has no counterpart here (Faster and Mask R-CNN and "
            "RetinaNet on ResNets have); tools/convert_weights.py --backbone-only takes a ResNet out"
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


def _check_anchors(
    tensors: Mapping[str, Tensor], theirs: Mapping[str, str], form: names.Form, sizes: int, source: str
) -> int:
    """Return how many anchors stand at a place: as many as torchvision's own detectors have."""
    layer = "rpn.head.bbox_pred" if form.rpn else names.DELTAS
    number, usual = len(_tensor(tensors, theirs, f"{layer}.weight", source)) // 4, sizes * len(RATIOS[0])
    if number != usual:
        raise WeightsError(
            f"{source}: has {number} anchors at a place, torchvision's own detectors have {usual}; of which sizes they "
            "are, the file does not say"
        )
    return number


def _labels(
    tensors: Mapping[str, Tensor], theirs: Mapping[str, str], form: names.Form, anchors: int, source: str
) -> tuple[dict[str, int], list[str]]:
    """Return the names of the classes with torchvision's labels, and what was decided, in words."""
    layer, shared = (names.CLASS_SCORE, 1) if form.rpn else (names.SCORES, anchors)
    number = len(_tensor(tensors, theirs, f"{layer}.bias", source)) // shared
    coco = coco_labels()
    if number == max(coco.values()) + 1:
        gaps = number - 1 - len(coco)
        return coco, [f"{number} rows of classes: COCO's {len(coco)} are taken, {gaps} that are none are left out"]
    return {f"class {label}": label for label in range(1, number)}, []
