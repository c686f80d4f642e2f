"""Detectors of detectron2 in a file: which of its model zoo's, with which config, which classes."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from detectron2.config import CfgNode, get_cfg
from detectron2.data import MetadataCatalog
from torch import Tensor

from backbone.engine.config import get, put
from backbone.engine.starting_weights import classes_in

from ..config.detectron2_config import from_detectron2, to_detectron2, zoo_config, zoo_names
from ..config.names import classes_key, is_retinanet
from .detectron2_names import PYRAMID, RES5, has_detectron2_names, network_prefix, refuse_unknown, to_ours, to_theirs
from .foreign import DetectorLayout, ForeignDetector, Translation
from .keys import WEIGHT_KEYS

PREDICTOR = "roi_heads.box_predictor."
ONE_STAGE = "head."
DEPTHS = {6: "50", 23: "101"}  # of the network, by the blocks of res4
COCO = ("COCO-Detection/faster", "COCO-InstanceSegmentation/mask")
# Folder and first word of the zoo's configs for boxes and for masks, by the number of classes.
SETS = {
    20: ("PascalVOC-Detection/faster", None),
    8: (None, "Cityscapes/mask"),
    1230: (None, "LVISv0.5-InstanceSegmentation/mask"),
    1203: (None, "LVISv1-InstanceSegmentation/mask"),
}


class Detectron2Layout(DetectorLayout):
    """detectron2's detectors, of its model zoo or of trainings with it."""

    project = "detectron2"
    suffixes = (".pkl", ".pth")

    def recognise(self, names: Collection[str]) -> bool:
        return has_detectron2_names(names)

    def read(self, content: Any, tensors: Mapping[str, Tensor], source: str) -> ForeignDetector:
        """See `DetectorLayout.read`.

        What a file of the zoo wants of the config follows from the config that it was trained with. Files of trainings
        with detectron2 do not say; its defaults are taken.
        """
        refuse_unknown(tensors, source)
        ours = to_ours(tensors)
        translation = _translation(tensors, ours)
        classes, metadata = classes_in(content)
        wants = WEIGHT_KEYS.of_checkpoint(content, source)
        read = ForeignDetector(
            source, True, ours, wants, classes, metadata=metadata, project=self.project, translation=translation
        )
        if wants:
            return read
        is_of_zoo = isinstance(content.get("__author__"), str)
        found = config_of(tensors)
        config = found or from_detectron2(get_cfg(), source)
        wants = {key: get(config, key) for key in (*WEIGHT_KEYS.all, "MODEL.BACKBONE.OUTPUT_STRIDE")}
        ids: list[int] = []
        if is_of_zoo and not classes:
            classes, ids = named_classes(config, tensors)
        return replace(read, wants=wants, classes=classes, category_ids=ids, config=found, usual=not is_of_zoo)

    def write(
        self, tensors: Mapping[str, Tensor], config: CfgNode, category_ids: Sequence[int], source: str
    ) -> Translation:
        to_detectron2(config, source)
        return _translation(tensors, to_theirs(tensors))


def _translation(former: Mapping[str, Tensor], renamed: Mapping[str, Tensor]) -> Translation:
    """Return the translation between the same tensors in the same order."""
    translation = Translation()
    for old, (name, tensor) in zip(former, renamed.items()):
        translation.put(old, name, tensor)
    return translation


def config_of(tensors: Mapping[str, Tensor]) -> CfgNode | None:
    """Return our config, unfrozen, of a detector of detectron2's zoo; None where its tensors are those of no such one.

    Args:
        tensors: by detectron2's names.
    """
    name = recognise(tensors)
    if name is None:
        return None
    config = from_detectron2(zoo_config(name), f"detectron2's {name}")
    heads = config.MODEL
    put(config, classes_key(config), number_of_classes(tensors))
    if is_retinanet(config):
        return config
    heads.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG = _rows(tensors, f"{PREDICTOR}bbox_pred.weight") == 4
    heads.ROI_MASK_HEAD.CLS_AGNOSTIC_MASK = _rows(tensors, "roi_heads.mask_head.predictor.weight") == 1
    return config


def recognise(tensors: Mapping[str, Tensor]) -> str | None:
    """Return the name of the zoo's config whose detector these tensors are of, the longest schedule's; or None."""
    prefix = network_prefix(tensors)
    blocks = {match[1] for name in tensors if (match := re.match(rf"{re.escape(prefix)}res4\.(\d+)\.", name))}
    middle, outer = (tensors.get(f"{prefix}res2.0.conv{index}.weight") for index in (2, 3))
    if len(blocks) not in DEPTHS or middle is None or outer is None or _has_norms_beside(tensors, prefix):
        return None
    network = f"R_{DEPTHS[len(blocks)]}"
    if middle.shape[:2] == (256, 8) and network == "R_101":
        network = "X_101_32x8d"
    elif tuple(middle.shape[:2]) != (64, 64):
        return None
    known = zoo_names()
    if _is_retinanet(tensors):
        anchors = _rows(tensors, f"{ONE_STAGE}bbox_pred.weight")
        names = (f"COCO-Detection/retinanet_{network}_FPN_{schedule}" for schedule in ("3x", "1x"))
        return next((name for name in names if name in known and anchors == 36), None)
    form, anchors = "DC5", 15
    if prefix == PYRAMID:
        form, anchors = "FPN", 3
    elif any(name.startswith(RES5) for name in tensors):
        form = "C4"
    has_masks = any(name.startswith("roi_heads.mask_head.") for name in tensors)
    if _rows(tensors, "proposal_generator.rpn_head.objectness_logits.weight") != anchors:
        return None
    ends = (f"{form}_3x", f"{form}_1x", form)
    sets = SETS.get(number_of_classes(tensors), COCO)
    firsts = filter(None, (sets[has_masks], COCO[has_masks]))
    wanted = (f"{first}_rcnn_{network}_{end}" for first in firsts for end in ends)
    return next((name for name in wanted if name in known), None)


def number_of_classes(tensors: Mapping[str, Tensor]) -> int:
    """Return the classes without the background; 0 for heads of another form."""
    if _is_retinanet(tensors):
        anchors = _rows(tensors, f"{ONE_STAGE}bbox_pred.weight") // 4
        return _rows(tensors, f"{ONE_STAGE}cls_score.weight") // max(1, anchors)
    return max(0, _rows(tensors, f"{PREDICTOR}cls_score.weight") - 1)


def named_classes(config: CfgNode, tensors: Mapping[str, Tensor]) -> tuple[list[str], list[int]]:
    """Return names and category ids of the classes of the config's test set as detectron2 knows it, as many as the
    tensors have; without such names, [] and []."""
    import detectron2.data.datasets  # noqa: F401  (it enters the sets that detectron2 knows)

    known = MetadataCatalog.get(config.DATASETS.TEST[0]) if config.DATASETS.TEST else None
    names = list(known.get("thing_classes") or []) if known is not None else []
    if not names or len(names) != number_of_classes(tensors):
        return [], []
    ids = known.get("thing_dataset_id_to_contiguous_id") or {index + 1: index for index in range(len(names))}
    return names, sorted(ids, key=ids.get)


def _is_retinanet(tensors: Mapping[str, Tensor]) -> bool:
    return f"{ONE_STAGE}cls_score.weight" in tensors


def _rows(tensors: Mapping[str, Tensor], name: str) -> int:
    value = tensors.get(name)
    return value.shape[0] if value is not None and value.ndim else 0


def _has_norms_beside(tensors: Mapping[str, Tensor], prefix: str) -> bool:
    """Whether there are norms without running moments (GroupNorm), in the pyramid or in the heads, or heads of other
    layers than the zoo's usual ones."""
    norms = [name for name in tensors if ".norm." in name]
    return (
        f"{prefix}stem.conv1.norm.running_var" not in tensors
        or any(not name.startswith((prefix, RES5)) for name in norms)
        or any(name.startswith(("roi_heads.box_head.conv", "roi_heads.box_predictor.0.")) for name in tensors)
    )
