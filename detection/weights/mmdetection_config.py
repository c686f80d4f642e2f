"""MMDetection's config of a detector, as parsed, in our keys; what its detectors have that ours have not is refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from backbone import WeightsError

# Of a detector with a pyramid; the anchors of others and of RetinaNet differ.
PYRAMID, C4, DC5, RETINANET = "FPN", "C4", "DC5", "RetinaNet"
RATIOS = [0.5, 1.0, 2.0]
# Path in the config -> the values that ours can be; the first is taken where the config says nothing.
ONLY: dict[str, tuple[Any, ...]] = {
    "anchor_generator.type": ("AnchorGenerator",),
    "anchor_generator.scale_major": (True,),
    "anchor_generator.centers": (None,),
    "bbox_coder.type": ("DeltaXYWHBBoxCoder",),
    "bbox_coder.clip_border": (True,),
    "bbox_coder.add_ctr_clamp": (False,),
    "loss_cls.use_sigmoid": (True,),
}
ONLY_ON_REGIONS: dict[str, tuple[Any, ...]] = {
    "bbox_coder.type": ("DeltaXYWHBBoxCoder",),
    "bbox_coder.clip_border": (True,),
    "bbox_coder.add_ctr_clamp": (False,),
    "loss_cls.use_sigmoid": (False,),
}
ONLY_POOLED: dict[str, tuple[Any, ...]] = {
    "type": ("SingleRoIExtractor",),
    "finest_scale": (56,),
    "roi_layer.type": ("RoIAlign",),
}


def settings(theirs: Mapping[str, Any], form: str, source: str, *, masks: bool) -> dict[str, Any]:
    """Return our keys with the values that the config has, and MMDetection's usual ones where it has none.

    Args:
        theirs: the config as a tree; {} where none is known.

    Raises:
        WeightsError: it asks for what no detector here does.
    """
    model = _at(theirs, "model", {})
    tests = _at(model, "test_cfg", None) or _at(theirs, "test_cfg", {})
    head = _at(model, "bbox_head" if form == RETINANET else "rpn_head", {})
    _check(head, ONLY, source)
    values = _anchors(head, form, source) | _images(theirs, model)
    values["MODEL.BACKBONE.NORM_EPS"] = _at(model, "backbone.norm_cfg.eps", 1e-5)
    if form == RETINANET:
        if _at(model, "neck.add_extra_convs", "on_input") not in (True, "on_input"):
            raise WeightsError(f"{source}: its P6 comes from the pyramid, here it comes from the last stage")
        values["MODEL.FPN.RELU_BEFORE_P7"] = bool(_at(model, "neck.relu_before_extra_convs", False))
        return values | _one_stage(head, tests, source)
    return values | _two_stages(_at(model, "roi_head", {}), head, tests, form, source, masks=masks)


def _one_stage(head: Mapping[str, Any], tests: Mapping[str, Any], source: str) -> dict[str, Any]:
    return {
        "MODEL.RETINANET.CLIP_BEFORE_NMS": True,
        "MODEL.RETINANET.BBOX_REG_WEIGHTS": _weights(head, (1.0, 1.0, 1.0, 1.0), source),
        "MODEL.RETINANET.SCORE_THRESH_TEST": _at(tests, "score_thr", 0.05),
        "MODEL.RETINANET.TOPK_CANDIDATES_TEST": _at(tests, "nms_pre", 1000),
        "MODEL.RETINANET.NMS_THRESH_TEST": _overlap(tests, 0.5, source),
        "TEST.DETECTIONS_PER_IMAGE": _at(tests, "max_per_img", 100),
    }


def _two_stages(
    regions: Mapping[str, Any],
    rpn: Mapping[str, Any],
    tests: Mapping[str, Any],
    form: str,
    source: str,
    *,
    masks: bool,
) -> dict[str, Any]:
    head, proposals, last = _at(regions, "bbox_head", {}), _at(tests, "rpn", {}), _at(tests, "rcnn", {})
    _check(head, ONLY_ON_REGIONS, source)
    if not isinstance(head, Mapping) or _at(regions, "type", "StandardRoIHead") != "StandardRoIHead":
        raise WeightsError(f"{source}: its head on regions is none that a detector here has")
    if masks and _at(last, "mask_thr_binary", 0.5) != 0.5:
        raise WeightsError(f"{source}: its masks begin at {last['mask_thr_binary']}, here at 0.5")
    kept = next((proposals[name] for name in ("max_per_img", "max_num", "nms_post") if name in proposals), 1000)
    values = {
        "MODEL.RPN.BBOX_REG_WEIGHTS": _weights(rpn, (1.0, 1.0, 1.0, 1.0), source),
        "MODEL.RPN.PRE_NMS_TOPK_TEST": _at(proposals, "nms_pre", 1000 if form == PYRAMID else 6000),
        "MODEL.RPN.POST_NMS_TOPK_TEST": kept,
        "MODEL.RPN.NMS_THRESH": _at(proposals, "nms_thr", None) or _overlap(proposals, 0.7, source),
        "MODEL.PROPOSAL_GENERATOR.MIN_SIZE": max(0, _at(proposals, "min_bbox_size", 0)),
        "MODEL.ROI_BOX_HEAD.BBOX_REG_WEIGHTS": _weights(head, (0.1, 0.1, 0.2, 0.2), source),
        "MODEL.ROI_HEADS.SCORE_THRESH_TEST": _at(last, "score_thr", 0.05),
        "MODEL.ROI_HEADS.NMS_THRESH_TEST": _overlap(last, 0.5, source),
        "TEST.DETECTIONS_PER_IMAGE": _at(last, "max_per_img", 100),
    }
    side = {"BOX": 14 if form == C4 else 7, "MASK": 14}
    for part in ("BOX", "MASK") if masks else ("BOX",):
        pooled = _at(regions, f"{'bbox' if part == 'BOX' else 'mask'}_roi_extractor", None)
        # Without one, masks take the regions of the boxes.
        pooled = pooled if isinstance(pooled, Mapping) else _at(regions, "bbox_roi_extractor", {})
        _check(pooled, ONLY_POOLED, source)
        if part == "MASK" and form == C4:
            # Its head pools once.
            continue
        layer = _at(pooled, "roi_layer", {})
        values |= {
            f"MODEL.ROI_{part}_HEAD.POOLER_RESOLUTION": _at(layer, "output_size", side[part]),
            f"MODEL.ROI_{part}_HEAD.POOLER_SAMPLING_RATIO": _at(layer, "sampling_ratio", 0),
            f"MODEL.ROI_{part}_HEAD.POOLER_TYPE": "ROIAlignV2" if _at(layer, "aligned", True) else "ROIAlign",
        }
    return values


def _anchors(head: Mapping[str, Any], form: str, source: str) -> dict[str, Any]:
    """Return the keys of the anchors: their sizes are multiples of each level's stride."""
    theirs = _at(head, "anchor_generator", {})
    usual = {PYRAMID: [4, 8, 16, 32, 64], RETINANET: [8, 16, 32, 64, 128]}.get(form, [16])
    bases = _at(theirs, "base_sizes", None) or _at(theirs, "strides", usual)
    scales = _at(theirs, "scales", None)
    if scales is None and (form == RETINANET or "octave_base_scale" in theirs):
        number = _at(theirs, "scales_per_octave", 3)
        scales = [_at(theirs, "octave_base_scale", 4) * 2 ** (index / number) for index in range(number)]
    scales = scales or ([8] if form == PYRAMID else [2, 4, 8, 16, 32])
    try:
        sizes = [[float(base * scale) for scale in scales] for base in bases]
        ratios = [[float(ratio) for ratio in _at(theirs, "ratios", RATIOS)]]
    except (TypeError, ValueError):
        raise WeightsError(f"{source}: the anchors of its config are not understood") from None
    offset = _at(theirs, "center_offset", 0.0)
    if offset and _at(theirs, "base_sizes", None):
        raise WeightsError(f"{source}: its anchors are off by a share of their base sizes; here it is of the stride")
    return {
        "MODEL.ANCHOR_GENERATOR.SIZES": sizes,
        "MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS": ratios,
        "MODEL.ANCHOR_GENERATOR.OFFSET": float(offset),
    }


def _images(theirs: Mapping[str, Any], model: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keys of the size of test images: the longer and the shorter side that they fit into."""
    steps = list(_steps(theirs.get("test_pipeline")))
    scales = (step.get("scale") or step.get("img_scale") for step in steps)
    scale = next((scale for scale in scales if _is_size(scale)), (1333, 800))
    multiples = [_at(model, "data_preprocessor.pad_size_divisor", None), *(step.get("size_divisor") for step in steps)]
    return {
        "INPUT.MIN_SIZE_TEST": min(scale),
        "INPUT.MAX_SIZE_TEST": max(scale),
        "MODEL.BACKBONE.SIZE_DIVISIBILITY": next((value for value in multiples if isinstance(value, int)), 32),
    }


def _steps(pipeline: Any) -> list[Mapping[str, Any]]:
    """Return the steps of a pipeline, those inside of others too."""
    steps = [step for step in pipeline if isinstance(step, Mapping)] if isinstance(pipeline, list) else []
    return steps + [inner for step in steps for inner in _steps(step.get("transforms"))]


def _is_size(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and len(value) == 2 and all(isinstance(side, int) for side in value)


def _weights(head: Mapping[str, Any], usual: tuple[float, ...], source: str) -> tuple[float, ...]:
    """Return detectron2's weights of a box's four numbers: the inverse of MMDetection's standard deviations."""
    means = _at(head, "bbox_coder.target_means", (0.0,) * 4)
    stds = _at(head, "bbox_coder.target_stds", usual)
    try:
        if any(means) or len(stds) != 4:
            raise ValueError
        # 0.1 has no exact inverse; the nearest number with few digits is meant.
        return tuple(round(1 / std, 6) for std in stds)
    except (TypeError, ValueError, ZeroDivisionError):
        raise WeightsError(f"{source}: boxes are coded with means {means} and deviations {stds}") from None


def _overlap(tests: Mapping[str, Any], usual: float, source: str) -> float:
    kind = _at(tests, "nms.type", "nms")
    if kind != "nms":
        raise WeightsError(f"{source}: is tested with {kind}; only NMS is taken over")
    return _at(tests, "nms.iou_threshold", _at(tests, "nms.iou_thr", usual))


def _check(section: Any, only: Mapping[str, tuple[Any, ...]], source: str) -> None:
    for path, known in only.items():
        value = _at(section, path, known[0])
        if value not in known:
            raise WeightsError(f"{source}: {path} is {value!r} in its config, here it can be {known[0]!r} alone")


def _at(section: Any, path: str, usual: Any) -> Any:
    """Return the value at a path with dots, or the usual one."""
    for name in path.split("."):
        if not isinstance(section, Mapping) or section.get(name) is None:
            return usual
        section = section[name]
    return section
