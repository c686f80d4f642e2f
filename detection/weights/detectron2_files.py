"""Detectors of detectron2 in a file: which config of its model zoo they have, and which classes."""

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
from ..config.load import ZOO, load_config
from ..config.names import classes_key, is_retinanet
from .detectron2_names import PYRAMID, RES5, has_detectron2_names, network_prefix, refuse_unknown, to_ours, to_theirs
from .foreign import DetectorLayout, ForeignDetector, Translation
from .keys import WEIGHT_KEYS

PREDICTOR = "roi_heads.box_predictor."
ONE_STAGE, KEYPOINTS = "head.", "roi_heads.keypoint_head."
DEPTHS = {6: "50", 23: "101"}  # of the network, by the blocks of res4
COCO = ("COCO-Detection/faster", "COCO-InstanceSegmentation/mask")
# By the form of the heads on regions. Those of one form share all names and shapes, and differ in their preprocessing.
MISC = {
    "cascade": ("Misc/cascade_mask_rcnn_R_50_FPN_3x",),
    "gn": ("Misc/mask_rcnn_R_50_FPN_3x_gn", "Misc/scratch_mask_rcnn_R_50_FPN_9x_gn"),
    "syncbn": ("Misc/mask_rcnn_R_50_FPN_3x_syncbn", "Misc/scratch_mask_rcnn_R_50_FPN_9x_syncbn"),
}
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

    def refuse_name(self, source: str) -> None:
        if zoo_name(source):
            load_config(source)

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
        # The name under which it was asked for says more than its tensors.
        named = zoo_name(source)
        names = [named] if named else recognise(tensors)
        configs = [config_of(name, tensors) for name in names]
        config = configs[0] if configs else from_detectron2(get_cfg(), source)
        # Where several configs have such tensors, what they agree on.
        wants = {key: get(config, key) for key in (*WEIGHT_KEYS.all, "MODEL.BACKBONE.OUTPUT_STRIDE")}
        wants = {key: value for key, value in wants.items() if all(get(other, key) == value for other in configs)}
        found = config if len(configs) == 1 else None
        doubt = f"may be of {' or '.join(names)}, which differ in their preprocessing" if len(names) > 1 else ""
        ids: list[int] = []
        if is_of_zoo and not classes:
            classes, ids = named_classes(config, tensors)
        return replace(
            read, wants=wants, classes=classes, category_ids=ids, config=found, doubt=doubt, usual=not is_of_zoo
        )

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


def config_of(name: str, tensors: Mapping[str, Tensor]) -> CfgNode:
    """Return our config, unfrozen, of a detector that was trained with a config of detectron2's zoo.

    Args:
        tensors: by detectron2's names.
    """
    config = from_detectron2(zoo_config(name), f"detectron2's {name}")
    heads = config.MODEL
    put(config, classes_key(config), number_of_classes(tensors))
    if is_retinanet(config):
        return config
    heads.MASK_ON = _has_masks(tensors)
    if heads.KEYPOINT_ON:
        heads.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS = tensors[f"{KEYPOINTS}score_lowres.weight"].shape[1]
    if number_of_classes(tensors) > 1:  # of a single class, both forms are the same
        heads.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG = _rows_of_regions(tensors, "bbox_pred.weight") == 4
        heads.ROI_MASK_HEAD.CLS_AGNOSTIC_MASK = _rows(tensors, "roi_heads.mask_head.predictor.weight") == 1
    return config


def recognise(tensors: Mapping[str, Tensor]) -> list[str]:
    """Return the names of the zoo's configs that have such tensors: of configs that compute the same, the one of the
    longest schedule. [] for tensors of no such config."""
    prefix = network_prefix(tensors)
    blocks = {match[1] for name in tensors if (match := re.match(rf"{re.escape(prefix)}res4\.(\d+)\.", name))}
    middle, outer = (tensors.get(f"{prefix}res2.0.conv{index}.weight") for index in (2, 3))
    heads = _form_of_heads(tensors, prefix)
    if len(blocks) not in DEPTHS or middle is None or outer is None or heads is None:
        return []
    network = f"R_{DEPTHS[len(blocks)]}"
    if middle.shape[:2] == (256, 8) and network == "R_101":
        network = "X_101_32x8d"
    elif tuple(middle.shape[:2]) != (64, 64):
        return []
    known = zoo_names()
    if _is_retinanet(tensors):
        anchors = _rows(tensors, f"{ONE_STAGE}bbox_pred.weight")
        names = (f"COCO-Detection/retinanet_{network}_FPN_{schedule}" for schedule in ("3x", "1x"))
        return [name for name in names if name in known and anchors == 36][:1]
    form, anchors = "DC5", 15
    if prefix == PYRAMID:
        form, anchors = "FPN", 3
    elif any(name.startswith(RES5) for name in tensors):
        form = "C4"
    has_masks = _has_masks(tensors)
    if _rows(tensors, "proposal_generator.rpn_head.objectness_logits.weight") != anchors:
        return []
    if heads in MISC:
        is_there = network == "R_50" and form == "FPN" and (has_masks or heads == "cascade")
        return list(MISC[heads]) if is_there else []
    if any(name.startswith(KEYPOINTS) for name in tensors):
        name = f"COCO-Keypoints/keypoint_rcnn_{network}_{form}_3x"
        return [name] if name in known and not has_masks else []
    ends = (f"{form}_3x", f"{form}_1x", form)
    sets = SETS.get(number_of_classes(tensors), COCO)
    firsts = filter(None, (sets[has_masks], COCO[has_masks]))
    wanted = (f"{first}_rcnn_{network}_{end}" for first in firsts for end in ends)
    return [name for name in wanted if name in known][:1]


def zoo_name(source: str) -> str | None:
    """Return the name of a config in detectron2's zoo where weights are asked for by that name; else None."""
    name = source.removeprefix(ZOO).removesuffix(".yaml")
    return name if source.startswith(ZOO) and name in zoo_names() else None


def number_of_classes(tensors: Mapping[str, Tensor]) -> int:
    """Return the classes without the background; 0 for heads of another form."""
    if _is_retinanet(tensors):
        anchors = _rows(tensors, f"{ONE_STAGE}bbox_pred.weight") // 4
        return _rows(tensors, f"{ONE_STAGE}cls_score.weight") // max(1, anchors)
    return max(0, _rows_of_regions(tensors, "cls_score.weight") - 1)


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


def _rows_of_regions(tensors: Mapping[str, Tensor], layer: str) -> int:
    """Return the rows of a layer of the box predictor; of a cascade, its first one."""
    return _rows(tensors, PREDICTOR + layer) or _rows(tensors, f"{PREDICTOR}0.{layer}")


def _has_masks(tensors: Mapping[str, Tensor]) -> bool:
    return any(name.startswith("roi_heads.mask_head.") for name in tensors)


def _form_of_heads(tensors: Mapping[str, Tensor], prefix: str) -> str | None:
    """Return "plain" for the zoo's usual heads, or the form in MISC; None for others."""
    norms = {name.rpartition(".norm.")[0] for name in tensors if ".norm." in name}
    beside = {name for name in norms if not name.startswith((prefix, RES5))}
    moments = {name for name in norms if f"{name}.norm.running_var" in tensors}
    convs = sum(bool(re.fullmatch(r"roi_heads\.box_head\.conv\d+\.weight", name)) for name in tensors)
    stages = {match[1] for name in tensors if (match := re.match(rf"{re.escape(PREDICTOR)}(\d+)\.", name))}
    if not _is_retinanet(tensors) and "proposal_generator.rpn_head.conv.weight" not in tensors:
        return None
    if not beside and not convs and moments == norms:
        return {0: "plain", 3: "cascade"}.get(len(stages))
    # Four convolutions and one layer of all features, with norms here, in the pyramid and before the masks.
    everywhere = {f"backbone.fpn_{kind}{level}" for kind in ("lateral", "output") for level in range(2, 6)}
    everywhere |= {
        f"roi_heads.{part}{index}" for part in ("box_head.conv", "mask_head.mask_fcn") for index in range(1, 5)
    }
    if beside != everywhere or convs != 4 or stages or "roi_heads.box_head.fc2.weight" in tensors:
        return None
    return "syncbn" if moments == norms else "gn" if not moments else None
