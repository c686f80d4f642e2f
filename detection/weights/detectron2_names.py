"""Names of detectron2's detectors, and ours: only those of the network differ, and of a C4 head's conv5."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from torch import Tensor

from backbone import WeightsError
from backbone.weights.layouts.base import Rule, renamed
from backbone.weights.layouts.detectron2 import READ, WRITE

PYRAMID, PLAIN, REGIONS = "backbone.bottom_up.", "backbone.", "roi_heads."
RES5 = f"{REGIONS}res5."
RETINANET_HEAD = tuple(f"head.{part}." for part in ("cls_subnet", "bbox_subnet", "cls_score", "bbox_pred"))
# What this project has no head for, by the beginning of a name.
UNKNOWN = {
    "head.ctrness.": "an FCOS",
    "sem_seg_head.": "a panoptic or semantic segmentation network",
    "roi_heads.densepose_head.": "a DensePose R-CNN",
    "roi_heads.mask_head.coarse_head.": "a PointRend",
}


def has_detectron2_names(names: Collection[str]) -> bool:
    """Whether a detector's backbone has the names of detectron2's own ResNet."""
    return any(f"{prefix}stem.conv1.weight" in names for prefix in (PYRAMID, PLAIN))


def refuse_unknown(names: Collection[str], source: str) -> None:
    """Raise WeightsError for a detector of detectron2 that there is no head for here."""
    found = next((words for start, words in UNKNOWN.items() if any(name.startswith(start) for name in names)), None)
    if found is None and any(".conv2_offset." in name for name in names):
        found = "a network with deformable convolution"
    if found is None and not any(name.startswith((REGIONS, *RETINANET_HEAD)) for name in names):
        one_stage = any(name.startswith("head.") for name in names)
        found = "another one-stage detector than RetinaNet" if one_stage else "an RPN alone"
    if found:
        raise WeightsError(
            f"{source}: holds {found} of detectron2, which has no counterpart here (Faster, Mask, Cascade and "
            "Keypoint R-CNN and RetinaNet have); tools/convert_weights.py --backbone-only takes its backbone out"
        )


def to_ours(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of a detectron2 detector under our names.

    Raises:
        WeightsError: two get one name.
    """
    return _renamed(_renamed(tensors, network_prefix(tensors), READ), RES5, READ, stage="layer4.")


def to_theirs(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of our detector under detectron2's names; a C4 head may have them already."""
    return _renamed(_renamed(tensors, network_prefix(tensors), WRITE), RES5, WRITE, stage="layer4.")


def res5_as_in(own: Collection[str], tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Return the tensors with detectron2's names of conv5 where the model's head is detectron2's, else as they are."""
    if not any(name.startswith(RES5) and ".norm." in name for name in own):
        return tensors
    return _renamed(tensors, RES5, WRITE, stage="layer4.")


def network_prefix(names: Collection[str]) -> str:
    """Return what stands before the names of the network."""
    return PYRAMID if any(name.startswith(PYRAMID) for name in names) else PLAIN


def _renamed(
    tensors: Mapping[str, Tensor], prefix: str, rules: Sequence[Rule], *, stage: str = ""
) -> dict[str, Tensor]:
    """Rename what stands below `prefix`, which the rules know as `stage`, theirs as res5."""
    result: dict[str, Tensor] = {}
    read, written = (stage, "res5.") if stage and rules is WRITE else ("res5." if stage else "", stage)
    for name, value in tensors.items():
        new = name
        if name.startswith(prefix):
            (inner,) = renamed({read + name.removeprefix(prefix): value}, rules)
            new = prefix + inner.removeprefix(written)
        if new in result:
            raise WeightsError(f"two tensors for {new}, the second is {name}")
        result[new] = value
    return result
