"""Names of MMDetection's Faster and Mask R-CNN and RetinaNet, and ours."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping

from torch import Tensor

from backbone import WeightsError
from backbone.common.text import some
from backbone.weights.layouts import LAYOUTS

from .foreign import Change, Translation

BACKBONE, SHARED = "backbone.", "roi_head.shared_head."
HEADS = ("neck.", "rpn_head.", "roi_head.", "bbox_head.")
OWN_BODY, OWN_RES5 = "backbone.bottom_up.", "roi_heads.res5."
SCORES, DELTAS = "proposal_generator.rpn_head.objectness_logits", "proposal_generator.rpn_head.anchor_deltas"
COUNTER = ".num_batches_tracked"
# Their layer and ours, with {} for a number that grows by the second entry and is multiplied by the third; the pyramid
# has its own rule, since it numbers its levels from the first one that it takes.
LAYERS = (
    ("rpn_head.rpn_conv", "proposal_generator.rpn_head.conv", 0, 1),
    ("rpn_head.rpn_cls", SCORES, 0, 1),
    ("rpn_head.rpn_reg", DELTAS, 0, 1),
    ("roi_head.bbox_head.shared_fcs.{}", "roi_heads.box_head.fc{}", 1, 1),
    ("roi_head.bbox_head.fc_cls", "roi_heads.box_predictor.cls_score", 0, 1),
    ("roi_head.bbox_head.fc_reg", "roi_heads.box_predictor.bbox_pred", 0, 1),
    ("roi_head.mask_head.convs.{}.conv", "roi_heads.mask_head.mask_fcn{}", 1, 1),
    ("roi_head.mask_head.upsample", "roi_heads.mask_head.deconv", 0, 1),
    ("roi_head.mask_head.conv_logits", "roi_heads.mask_head.predictor", 0, 1),
    ("bbox_head.cls_convs.{}.conv", "head.cls_subnet.{}", 0, 2),
    ("bbox_head.reg_convs.{}.conv", "head.bbox_subnet.{}", 0, 2),
    ("bbox_head.retina_cls", "head.cls_score", 0, 1),
    ("bbox_head.retina_reg", "head.bbox_pred", 0, 1),
)


def has_mmdetection_names(names: Collection[str]) -> bool:
    """Whether a detector's names are MMDetection's, of any of its kinds."""
    has_network = any(name.startswith(f"{BACKBONE}layer1.0.") for name in names)
    return has_network and any(re.match(r"(neck\.(lateral|fpn)_convs|rpn_head|roi_head|bbox_head)\.", n) for n in names)


def to_ours(tensors: Mapping[str, Tensor], anchors: Change, source: str) -> Translation:
    """Return a detector's tensors by our names.

    Args:
        anchors: puts rows of a layer with rows for each anchor into our order of anchors.

    Raises:
        WeightsError: some are of a layer that is none of these detectors'.
    """
    has_pyramid = any(name.startswith("neck.") for name in tensors)
    network = {name: value for name, value in tensors.items() if name.startswith(BACKBONE)}
    ours = LAYOUTS["mmdet"].to_ours({name.removeprefix(BACKBONE): value for name, value in network.items()}, {})
    body = dict(zip(network, ours, strict=True))
    levels = _Levels.of_theirs(tensors)
    translation, unknown = Translation(), []
    for former, tensor in tensors.items():
        if former in body:
            translation.put(former, (OWN_BODY if has_pyramid else BACKBONE) + body[former], tensor)
        elif former.startswith(f"{SHARED}layer4."):
            translation.put(former, OWN_RES5 + former.removeprefix(f"{SHARED}layer4."), tensor)
        elif former.startswith("ema_"):
            translation.leave(former, "averaged copy of a training")
        elif name := _renamed(former, levels.to_ours, 0):
            _put(translation, former, name, tensor, name, anchors)
        else:
            unknown.append(former)
    if unknown:
        raise WeightsError(f"{source}: has no counterpart here for {some(unknown)} of MMDetection")
    return translation


def to_theirs(tensors: Mapping[str, Tensor], anchors: Change, network: Mapping[str, str], source: str) -> Translation:
    """Return our detector's tensors by MMDetection's names; see `to_ours`.

    Args:
        network: MMDetection's name of each of the network's tensors, by ours.

    Raises:
        WeightsError: MMDetection has no place for one.
    """
    levels = _Levels.of_ours(tensors)
    translation = Translation()
    for former, tensor in tensors.items():
        inner = former.removeprefix(OWN_BODY).removeprefix(BACKBONE)
        if former.startswith(BACKBONE) and inner in network:
            translation.put(former, BACKBONE + network[inner], tensor)
        elif former.startswith(OWN_RES5):
            translation.put(former, f"{SHARED}layer4." + former.removeprefix(OWN_RES5), tensor)
        elif name := _renamed(former, levels.to_theirs, 1):
            _put(translation, former, name, tensor, former, anchors)
        else:
            raise WeightsError(f"{source}: MMDetection's detectors have no {former}; nothing is written")
    return translation


def _put(translation: Translation, former: str, name: str, tensor: Tensor, own: str, anchors: Change) -> None:
    ordered = tensor
    if own.rpartition(".")[0] in (SCORES, DELTAS, "head.cls_score", "head.bbox_pred"):
        ordered = anchors(tensor)
    changed = ordered is not tensor
    translation.put(former, name, ordered, "anchors in the other order: by ratio, by size" if changed else "")


class _Levels:
    """Names of the pyramid's layers, between both projects: theirs count from the first level, ours are of its name.

    Args:
        first: of our levels, 2 or 3; number: of levels with a lateral layer.
    """

    def __init__(self, first: int, number: int) -> None:
        self.pairs = {f"neck.fpn_convs.{number + extra}.conv": f"backbone.top_block.p{6 + extra}" for extra in (0, 1)}
        for index in range(number):
            self.pairs[f"neck.lateral_convs.{index}.conv"] = f"backbone.fpn_lateral{first + index}"
            self.pairs[f"neck.fpn_convs.{index}.conv"] = f"backbone.fpn_output{first + index}"

    @classmethod
    def of_theirs(cls, names: Collection[str]) -> _Levels:
        number = len({name for name in names if re.fullmatch(r"neck\.lateral_convs\.\d+\.conv\.weight", name)})
        # Of the four stages, the last ones.
        return cls(6 - number, number)

    @classmethod
    def of_ours(cls, names: Collection[str]) -> _Levels:
        numbers = [int(found[1]) for name in names if (found := re.match(r"backbone\.fpn_lateral(\d)\.weight", name))]
        return cls(min(numbers, default=2), len(numbers))

    @property
    def to_ours(self) -> dict[str, str]:
        return self.pairs

    @property
    def to_theirs(self) -> dict[str, str]:
        return {ours: theirs for theirs, ours in self.pairs.items()}


def _renamed(name: str, pyramid: Mapping[str, str], side: int) -> str | None:
    """Return the other project's name of a head's or a pyramid's tensor, named as on `side` (0 theirs, 1 ours)."""
    layer, _, leaf = name.rpartition(".")
    if layer in pyramid:
        return f"{pyramid[layer]}.{leaf}"
    for *pair, more, times in LAYERS:
        match = re.fullmatch(re.escape(pair[side]).replace(r"\{\}", r"(\d+)"), layer)
        if match is None:
            continue
        number = int(match[1]) if match.groups() else 0
        number = (number + more) * times if side == 0 else number // times - more
        return f"{pair[1 - side].format(number)}.{leaf}"
    return None


def reordered(outer: int, inner: int) -> Callable[[Tensor], Tensor]:
    """Return what takes a layer's rows for `outer` x `inner` anchors to `inner` x `outer`; nothing if one is 1."""

    def change(tensor: Tensor) -> Tensor:
        if outer == 1 or inner == 1:
            return tensor
        rows = tensor.unflatten(0, (outer, inner, -1))
        return rows.transpose(0, 1).flatten(0, 2).contiguous()

    return change
