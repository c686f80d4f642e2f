"""Detectors of MMDetection in a file: their form and settings, from the tensors and the config beside them."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode
from torch import Tensor

from backbone import WeightsError
from backbone.common.preprocessing import MSRA, USUAL
from backbone.common.text import count
from backbone.engine.config import get, put
from backbone.weights.content import WeightsFile
from backbone.weights.identify import find_backbones
from backbone.weights.layouts import LAYOUTS
from backbone.weights.layouts.base import with_counters
from backbone.weights.openmmlab_config import config_in, openmmlab_weight_metadata
from backbone.weights.weight_metadata import WeightMetadata

from ..config.detectron2_config import from_detectron2, zoo_config
from ..config.names import FPN_SUFFIX, P6P7_SUFFIX, classes_key
from ..modeling.backbone import build_network
from . import mmdetection_names as names
from .foreign import DetectorLayout, ForeignDetector, Translation
from .keys import WEIGHT_KEYS
from .mmdetection_config import C4, DC5, PYRAMID, RETINANET, settings

COCO = {False: "COCO-Detection/faster_rcnn", True: "COCO-InstanceSegmentation/mask_rcnn"}
RPN_ROWS, RETINA_ROWS = "rpn_head.rpn_cls.weight", "bbox_head.retina_reg.weight"
CLASS_ROWS, BOX_ROWS = "roi_head.bbox_head.fc_cls.weight", "roi_head.bbox_head.fc_reg.weight"
MASK_ROWS = "roi_head.mask_head.conv_logits.weight"


class MMDetectionLayout(DetectorLayout):
    """MMDetection's Faster and Mask R-CNN and RetinaNet, of its releases 2 and 3."""

    project = "mmdet"

    def recognise(self, found: Collection[str]) -> bool:
        return names.has_mmdetection_names(found)

    def read(self, content: Any, tensors: Mapping[str, Tensor], source: str) -> ForeignDetector:
        """See `DetectorLayout.read`.

        The config in the file's `meta` is parsed, never run. Without one, MMDetection's usual settings are taken, and
        the style is that of the file's name: "caffe" or "pytorch".
        """
        form = _form(tensors, source)
        theirs, meta = config_in(content), _section(content, "meta")
        masks = MASK_ROWS in tensors
        values = settings(theirs, form, source, masks=masks)
        sizes, ratios = (len(values[f"MODEL.ANCHOR_GENERATOR.{key}"][0]) for key in ("SIZES", "ASPECT_RATIOS"))
        rows = len(tensors[RETINA_ROWS]) // 4 if form == RETINANET else len(tensors[RPN_ROWS])
        if rows != sizes * ratios:
            raise WeightsError(f"{source}: has {rows} anchors at a place, its config has {sizes * ratios}")
        translation = names.to_ours(tensors, names.reordered(ratios, sizes), source)
        metadata, notes = _metadata(content, theirs, tensors, source)
        config = _config(translation.tensors, form, masks, metadata, source)
        for key, value in (values | _shapes(tensors, form)).items():
            put(config, key, value)
        classes = _classes(meta)
        if len(classes) not in (0, get(config, classes_key(config))):
            raise WeightsError(
                f"{source}: names {count(len(classes), 'class', 'classes')}, its heads have another number"
            )
        ids = list(_section(meta, "dataset_meta").get("category_ids") or ())
        decided = [key for key in values if not (key.startswith(CHOSEN) or key.endswith(CHOSEN_ENDS))]
        wants = {key: get(config, key) for key in (*WEIGHT_KEYS.all, *WANTED, *decided)}
        return ForeignDetector(
            source,
            True,
            translation.tensors,
            wants,
            classes,
            usual=not theirs,
            notes=notes,
            project=self.project,
            config=config,
            translation=translation,
            category_ids=ids if len(ids) == len(classes) else [],
        )

    def write(
        self, tensors: Mapping[str, Tensor], config: CfgNode, category_ids: Sequence[int], source: str
    ) -> Translation:
        """See `DetectorLayout.write`."""
        anchors = config.MODEL.ANCHOR_GENERATOR
        change = names.reordered(len(anchors.SIZES[0]), len(anchors.ASPECT_RATIOS[0]))
        body = _network(tensors)
        with torch.device("meta"):
            network = build_network(config)
        places = {id(value): name for name, value in LAYOUTS["mmdet"].from_ours(body, network).items()}
        known = {name: places[id(value)] for name, value in body.items()}
        translation = names.to_theirs(tensors, change, known, source)
        return replace(translation, tensors=with_counters(translation.tensors))


# Beside what all weights decide: what the same tensors compute otherwise, or do not fit without.
WANTED = (
    "MODEL.BACKBONE.OUTPUT_STRIDE",
    "MODEL.RPN.CONV_DIMS",
    "MODEL.ROI_BOX_HEAD.NUM_FC",
    "MODEL.ROI_BOX_HEAD.FC_DIM",
)
# What the user chooses for a test; `predict` takes the values of the file.
CHOSEN, CHOSEN_ENDS = ("TEST.", "INPUT."), ("_TEST", "NMS_THRESH", ".MIN_SIZE")


def _form(tensors: Mapping[str, Tensor], source: str) -> str:
    """Return the form of a detector.

    Raises:
        WeightsError: it is of another kind, or of MMDetection 1, which has the background before the classes.
    """
    if "bbox_head.fc_cls.weight" in tensors or "bbox_head.0.fc_cls.weight" in tensors:
        raise WeightsError(
            f"{source}: of MMDetection 1, whose classes begin with the background; its own "
            "tools/model_converters/upgrade_model_version.py makes a file of release 2 of it"
        )
    if RETINA_ROWS in tensors and "bbox_head.retina_cls.weight" in tensors:
        return RETINANET
    if not {RPN_ROWS, CLASS_ROWS, BOX_ROWS} <= set(tensors):
        raise WeightsError(
            f"{source}: holds a detector of MMDetection that has no counterpart here (Faster and Mask R-CNN and "
            "RetinaNet have); tools/convert_weights.py --backbone-only takes its backbone out"
        )
    if any(name.startswith(names.SHARED) for name in tensors):
        return C4
    return PYRAMID if any(name.startswith("neck.") for name in tensors) else DC5


def _metadata(
    content: Any, theirs: Mapping[str, Any], tensors: Mapping[str, Tensor], source: str
) -> tuple[WeightMetadata, list[str]]:
    """Return what is known of the backbone's weights, and what was assumed, in words."""
    body = {n.removeprefix(names.BACKBONE): value for n, value in tensors.items() if n.startswith(names.BACKBONE)}
    known = openmmlab_weight_metadata(content)
    caffe = "caffe" in Path(source).name.lower()
    usual = LAYOUTS["mmdet"].weight_metadata(body, {})
    usual = usual.updated(WeightMetadata(preprocessing=MSRA if caffe else USUAL, stride_in_1x1=caffe))
    notes = []
    if known.preprocessing is None or known.stride_in_1x1 is None:
        style = "caffe (BGR, stride in 1x1)" if caffe else "pytorch (RGB, stride in 3x3)"
        notes.append(f"no config in it; taken for MMDetection's usual detector of style {style}, as its name says")
    return usual.updated(known), notes if not theirs else []


def _config(tensors: Mapping[str, Tensor], form: str, masks: bool, metadata: WeightMetadata, source: str) -> CfgNode:
    """Return the config, unfrozen, of detectron2's detector of that form on the network of the tensors."""
    name = "COCO-Detection/retinanet_R_50_FPN_1x" if form == RETINANET else f"{COCO[masks]}_R_50_{form}_1x"
    config = from_detectron2(zoo_config(name), f"detectron2's {name}")
    body = _network(tensors)
    body |= {f"layer4.{n.removeprefix(names.OWN_RES5)}": v for n, v in tensors.items() if n.startswith(names.OWN_RES5)}
    networks = find_backbones(WeightsFile(source, "torch", "mmdet", body, metadata))
    if not networks or not any(name.endswith("running_var") for name in body):
        raise WeightsError(f"{source}: its network is none that a detector here has")
    tail = {PYRAMID: FPN_SUFFIX, RETINANET: FPN_SUFFIX + P6P7_SUFFIX}.get(form, "")
    config.MODEL.BACKBONE.NAME = networks[0] + tail
    config.INPUT.EXACT_RESIZE = False
    for key, value in WEIGHT_KEYS.of_backbone(metadata, body).items():
        put(config, key, value)
    if form == DC5 and metadata.output_stride:
        config.MODEL.BACKBONE.OUTPUT_STRIDE = metadata.output_stride
    return config


def _shapes(tensors: Mapping[str, Tensor], form: str) -> dict[str, Any]:
    """Return the keys that follow from the shapes of the heads."""
    if form == RETINANET:
        anchors = len(tensors[RETINA_ROWS]) // 4
        number = len([name for name in tensors if re.fullmatch(r"bbox_head\.cls_convs\.\d+\.conv\.weight", name)])
        classes = len(tensors["bbox_head.retina_cls.weight"]) // anchors
        return {"MODEL.RETINANET.NUM_CLASSES": classes, "MODEL.RETINANET.NUM_CONVS": number}
    hidden, seen = tensors["rpn_head.rpn_conv.weight"].shape[:2]
    fcs = [name for name in tensors if re.fullmatch(r"roi_head\.bbox_head\.shared_fcs\.\d+\.weight", name)]
    classes = len(tensors[CLASS_ROWS]) - 1
    found: dict[str, Any] = {
        "MODEL.ROI_HEADS.NUM_CLASSES": classes,
        "MODEL.RPN.CONV_DIMS": [-1 if hidden == seen else hidden],
        "MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG": len(tensors[BOX_ROWS]) == 4,
    }
    if fcs:
        found |= {"MODEL.ROI_BOX_HEAD.NUM_FC": len(fcs), "MODEL.ROI_BOX_HEAD.FC_DIM": len(tensors[fcs[0]])}
    if MASK_ROWS in tensors:
        convs = [n for n in tensors if re.fullmatch(r"roi_head\.mask_head\.convs\.\d+\.conv\.weight", n)]
        found |= {
            "MODEL.ROI_MASK_HEAD.NUM_CONV": len(convs),
            "MODEL.ROI_MASK_HEAD.CONV_DIM": tensors["roi_head.mask_head.upsample.weight"].shape[1],
            "MODEL.ROI_MASK_HEAD.CLS_AGNOSTIC_MASK": len(tensors[MASK_ROWS]) == 1,
        }
    return found


def _network(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the network's tensors of our detector, by the network's own names."""
    inner = {name.removeprefix(names.OWN_BODY).removeprefix(names.BACKBONE): name for name in tensors}
    return {own: tensors[name] for own, name in inner.items() if own.startswith(("conv1.", "bn1.", "layer"))}


def _section(content: Any, name: str) -> Mapping[str, Any]:
    found = content.get(name) if isinstance(content, Mapping) else None
    return found if isinstance(found, Mapping) else {}


def _classes(meta: Mapping[str, Any]) -> list[str]:
    """Return the names of the classes, by the keys of releases 2 and 3."""
    data = _section(meta, "dataset_meta")
    found = data.get("classes") or data.get("CLASSES") or meta.get("CLASSES") or ()
    return [found] if isinstance(found, str) else [str(name) for name in found]
