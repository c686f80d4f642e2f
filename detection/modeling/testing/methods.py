"""Which methods of testing a config asks for."""

from __future__ import annotations

from dataclasses import dataclass

from detectron2.config import CfgNode


@dataclass(frozen=True)
class Methods:
    """How detections are made and chosen.

    Attributes:
        score, nms, limit: least score, IoU above which NMS removes, most detections of an image.
        least_side: of a box, in pixels of the resized image.
        refine: box refinement.
        vote: least IoU of the boxes that vote; 0: no voting.
        sides: shorter sides whose features are merged (maxout); () none.
        flip: average with the flipped image.
        union_sides, union_flip: shorter sides whose detections are joined, each flipped too; () none.
        soft: "linear" or "gaussian" Soft-NMS; "" for NMS.
        sigma, least_score: of Soft-NMS: the Gaussian's width, and the decayed score below which a box is dropped.
        networks: of the ensemble, this one included.
    """

    score: float
    nms: float
    limit: int
    least_side: float = 0.0
    refine: bool = False
    vote: float = 0.0
    sides: tuple[int, ...] = ()
    flip: bool = False
    union_sides: tuple[int, ...] = ()
    union_flip: bool = False
    soft: str = ""
    sigma: float = 0.5
    least_score: float = 0.001
    networks: int = 1

    @property
    def names(self) -> list[str]:
        """The methods in words; [] for a plain test."""
        sides = ", ".join(map(str, self.sides or self.union_sides))
        parts = {
            "box refinement": self.refine,
            f"box voting at IoU {self.vote:g}": self.vote,
            f"maxout over shorter sides {sides}": self.sides,
            "mean with the flipped image": self.flip,
            f"union over shorter sides {sides}{' and flips' if self.union_flip else ''}": self.union_sides,
            f"{self.soft} Soft-NMS": self.soft,
            f"ensemble of {self.networks}": self.networks > 1,
        }
        return [name for name, on in parts.items() if on]


def methods_of(config: CfgNode) -> Methods:
    """Return the methods of the config's TEST section."""
    heads, test = config.MODEL.ROI_HEADS, config.TEST
    refine, augment, soft = test.BOX_REFINEMENT, test.AUG, test.SOFT_NMS
    return Methods(
        score=heads.SCORE_THRESH_TEST,
        nms=refine.NMS if refine.ENABLED else heads.NMS_THRESH_TEST,
        limit=test.DETECTIONS_PER_IMAGE,
        least_side=config.MODEL.ROI_BOX_HEAD.MIN_SIZE_TEST,
        refine=refine.ENABLED,
        vote=test.BOX_VOTING.IOU if test.BOX_VOTING.ENABLED else 0.0,
        sides=tuple(sorted(test.MULTI_SCALE.SIDES)) if test.MULTI_SCALE.ENABLED else (),
        flip=test.FLIP,
        union_sides=tuple(augment.MIN_SIZES) if augment.ENABLED else (),
        union_flip=augment.ENABLED and augment.FLIP,
        soft=soft.METHOD if soft.ENABLED else "",
        sigma=soft.SIGMA,
        least_score=soft.LEAST_SCORE,
        networks=1 + len(test.ENSEMBLE),
    )
