"""Names of torchvision's Faster and Mask R-CNN and RetinaNet, and ours; of both, which layers a detector has."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass

BODY, OWN_BODY = "backbone.body.", "backbone.bottom_up."
PYRAMID, OWN_RPN, RETINA = "backbone.fpn.", "proposal_generator.rpn_head.", "head."
REGIONS = "roi_heads."
SUBNETS = {"classification_head": "cls_subnet", "regression_head": "bbox_subnet"}
SCORES, OWN_SCORES = "head.classification_head.cls_logits", "head.cls_score"
DELTAS, OWN_DELTAS = "head.regression_head.bbox_reg", "head.bbox_pred"
# Layers with rows for each anchor, RetinaNet's.
OF_ANCHORS = (SCORES, DELTAS)
# The same in both projects.
CLASS_SCORE, BOX_DELTAS = "roi_heads.box_predictor.cls_score", "roi_heads.box_predictor.bbox_pred"
MASKS, OWN_MASKS = "roi_heads.mask_predictor.mask_fcn_logits", "roi_heads.mask_head.predictor"
# Names of files that torchvision wrote before 0.13, as its own loading renames them.
FORMER = (
    (re.compile(r"(backbone\.fpn\.(?:inner|layer)_blocks\.\d+)\.(weight|bias)"), lambda m: f"{m[1]}.0.{m[2]}"),
    (re.compile(r"(rpn\.head\.conv)\.(weight|bias)"), lambda m: f"{m[1]}.0.0.{m[2]}"),
    (re.compile(r"(roi_heads\.mask_head)\.mask_fcn(\d)\.(.*)"), lambda m: f"{m[1]}.{int(m[2]) - 1}.0.{m[3]}"),
    (re.compile(r"(head\.\w+_head\.conv)\.(\d)\.(weight|bias)"), lambda m: f"{m[1]}.{int(m[2]) // 2}.0.{m[3]}"),
)


def modern(name: str) -> str:
    """Return today's name of a tensor."""
    for pattern, new in FORMER:
        if match := pattern.fullmatch(name):
            return new(match)
    return name


@dataclass(frozen=True)
class Form:
    """Which layers a detector has.

    Attributes:
        levels: of the pyramid, which stand on stages of the network: (2, 3, 4, 5); of RetinaNet (3, 4, 5).
        rpn: convolutions before the RPN's two outputs; 0 for RetinaNet.
        convs, fcs: of the box head; masks: convolutions of the mask head; subnets: of each of RetinaNet's two.
        norms: which of "pyramid", "box", "mask" and "subnets" have norms.
    """

    levels: tuple[int, ...]
    rpn: int = 0
    convs: int = 0
    fcs: int = 0
    masks: int = 0
    subnets: int = 0
    norms: frozenset[str] = frozenset()

    def layers(self) -> Iterator[tuple[str, str]]:
        """Yield torchvision's and our name of each layer above the network."""
        for index, level in enumerate(self.levels):
            for theirs, own in (("inner_blocks", "lateral"), ("layer_blocks", "output")):
                yield f"{PYRAMID}{theirs}.{index}.0", f"backbone.fpn_{own}{level}"
                yield f"{PYRAMID}{theirs}.{index}.1", f"backbone.fpn_{own}{level}.norm"
        for level in ("p6", "p7"):
            yield f"{PYRAMID}extra_blocks.{level}", f"backbone.top_block.{level}"
        for index in range(self.rpn):
            yield f"rpn.head.conv.{index}.0", f"{OWN_RPN}conv" + (f".conv{index}" if self.rpn > 1 else "")
        yield "rpn.head.cls_logits", f"{OWN_RPN}objectness_logits"
        yield "rpn.head.bbox_pred", f"{OWN_RPN}anchor_deltas"
        for index in range(self.convs):
            yield f"{REGIONS}box_head.{index}.0", f"{REGIONS}box_head.conv{index + 1}"
            yield f"{REGIONS}box_head.{index}.1", f"{REGIONS}box_head.conv{index + 1}.norm"
        for index in range(self.fcs):
            # Behind the convolutions stand a flattening, then a ReLU behind each layer.
            theirs = f"fc{index + 6}" if self.is_plain else str(self.convs + 1 + 2 * index)
            yield f"{REGIONS}box_head.{theirs}", f"{REGIONS}box_head.fc{index + 1}"
        for index in range(self.masks):
            yield f"{REGIONS}mask_head.{index}.0", f"{REGIONS}mask_head.mask_fcn{index + 1}"
            yield f"{REGIONS}mask_head.{index}.1", f"{REGIONS}mask_head.mask_fcn{index + 1}.norm"
        yield f"{REGIONS}mask_predictor.conv5_mask", f"{REGIONS}mask_head.deconv"
        yield MASKS, OWN_MASKS
        yield from ((name, name) for name in (CLASS_SCORE, BOX_DELTAS))
        step = 3 if "subnets" in self.norms else 2
        for theirs, own in SUBNETS.items():
            for index in range(self.subnets):
                yield f"{RETINA}{theirs}.conv.{index}.0", f"{RETINA}{own}.{step * index}"
                yield f"{RETINA}{theirs}.conv.{index}.1", f"{RETINA}{own}.{step * index + 1}"
        yield SCORES, OWN_SCORES
        yield DELTAS, OWN_DELTAS

    @property
    def is_plain(self) -> bool:
        """Whether the box head is two fully connected layers."""
        return (self.convs, self.fcs) == (0, 2)


def form_of(names: Collection[str], levels: tuple[int, ...]) -> Form:
    """Return the layers of torchvision's detector, by its modern names; `levels` follow from the shapes."""

    def number(pattern: str) -> int:
        return len({match[0] for name in names if (match := re.match(pattern, name))})

    head, masks = rf"{REGIONS}box_head\.", rf"{REGIONS}mask_head\."
    norms = {
        "pyramid": r"backbone\.fpn\.inner_blocks\.0\.1\.weight",
        "box": head + r"0\.1\.weight",
        "mask": masks + r"0\.1\.weight",
        "subnets": r"head\.classification_head\.conv\.0\.1\.weight",
    }
    return Form(
        levels,
        rpn=number(r"rpn\.head\.conv\.\d+\.0\.weight"),
        convs=number(head + r"\d+\.0\.weight"),
        fcs=number(head + r"(\d+|fc\d)\.weight"),
        masks=number(masks + r"\d+\.0\.weight"),
        subnets=number(r"head\.classification_head\.conv\.\d+\.0\.weight"),
        norms=frozenset(part for part, pattern in norms.items() if number(pattern)),
    )


def own_form_of(names: Collection[str]) -> Form:
    """Return the layers of our detector, by its names."""

    def found(pattern: str) -> set[str]:
        return {match[1] for name in names if (match := re.fullmatch(pattern, name))}

    conv = rf"{re.escape(OWN_RPN)}conv(?:\.conv(\d+))?\.weight"
    norms = {
        "pyramid": r"backbone\.fpn_lateral(\d)\.norm\.weight",
        "box": r"roi_heads\.box_head\.conv(\d+)\.norm\.weight",
        "mask": r"roi_heads\.mask_head\.mask_fcn(\d+)\.norm\.weight",
        "subnets": r"head\.cls_subnet\.(1)\.weight",
    }
    norms = frozenset(part for part, pattern in norms.items() if found(pattern))
    return Form(
        tuple(sorted(map(int, found(r"backbone\.fpn_lateral(\d)\.weight")))),
        rpn=len(found(conv)),
        convs=len(found(r"roi_heads\.box_head\.conv(\d+)\.weight")),
        fcs=len(found(r"roi_heads\.box_head\.fc(\d+)\.weight")),
        masks=len(found(r"roi_heads\.mask_head\.mask_fcn(\d+)\.weight")),
        subnets=len(found(r"head\.cls_subnet\.(\d+)\.weight")) // (2 if "subnets" in norms else 1),
        norms=norms,
    )
