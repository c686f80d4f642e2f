"""Whether two runtimes compute the same, and have found the same objects."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from backbone import ExportError

# Of all objects. Where candidates have nearly the same score, rounding decides which of them non-maximum suppression
# keeps; what it starts from is compared tightly, see `raw`.
LEAST_SHARE = 0.99


@dataclass(frozen=True)
class Tolerance:
    """How far a file may be from its detector.

    Attributes:
        raw: of raw outputs, over an output's largest value.
        box, score: of two objects that agree: pixels, and probabilities.
        share: least one of the objects that agree.
        pixels: of masks that the file pastes otherwise than detectron2, a share of all theirs.
    """

    raw: float = 1e-4
    box: float = 1e-2
    score: float = 1e-4
    share: float = LEAST_SHARE
    pixels: float = 1e-3

    def __str__(self) -> str:
        return f"{self.box:g} px and {self.score:g} in score"


EXACT = Tolerance()


@dataclass(frozen=True)
class Agreement:
    """Two results on one image.

    Attributes:
        objects: that both have found; missed: by the file alone; surplus: found by the file alone.
        box, score: largest differences over `objects`: pixels, and probabilities.
        first: one of the objects that differ, in words; "" where none does.
        raw: {output: largest difference before non-maximum suppression, over the output's largest value}.
        pixels: share of the pixels of pasted masks that detectron2 pastes otherwise; None where a file pastes none.
    """

    objects: int
    missed: int
    surplus: int
    box: float
    score: float
    first: str = ""
    raw: dict[str, float] = field(default_factory=dict)
    pixels: float | None = None

    @property
    def of(self) -> int:
        """Objects that could agree."""
        return self.objects + max(self.missed, self.surplus)


def agreement(found: dict[str, np.ndarray], expected: dict[str, np.ndarray], tolerance: Tolerance = EXACT) -> Agreement:
    """Pair the objects of two results.

    Objects of nearly the same score may stand in another order. One whose score is that of the last kept may have
    fallen behind the limit on one side, and is left out.

    Args:
        found, expected: "boxes" (N, 4), "scores" (N,) and "classes" (N,).
    """
    last = max((side["scores"].min() for side in (found, expected) if len(side["scores"])), default=0.0)
    free = np.ones(len(found["scores"]), dtype=bool)
    pairs, missed = [], []
    for row in range(len(expected["scores"])):
        partner = _partner(found, expected, row, free, tolerance)
        if partner is not None:
            free[partner] = False
            pairs.append((row, partner))
        elif not expected["scores"][row] <= last + tolerance.score:
            missed.append(row)
    # Not `>`: NaN must not pass.
    surplus = np.flatnonzero(free & ~(found["scores"] <= last + tolerance.score))
    first = f"{_object(expected, missed[0])} is not found" if missed else ""
    if len(surplus) and not first:
        first = f"finds {_object(found, surplus[0])}, which the detector does not"
    rows, partners = np.array(pairs, dtype=int).reshape(-1, 2).T
    box, score = (
        float(np.abs(found[name][partners] - expected[name][rows]).max(initial=0.0)) for name in ("boxes", "scores")
    )
    return Agreement(len(rows), len(missed), len(surplus), box, score, first)


def joined(each: Sequence[Agreement]) -> Agreement:
    """Return the agreement on several images as one."""
    sums = {name: sum(getattr(one, name) for one in each) for name in ("objects", "missed", "surplus")}
    worst = {name: max(getattr(one, name) for one in each) for name in ("box", "score")}
    return Agreement(**sums, **worst, first=next((one.first for one in each if one.first), ""))


def share(compared: Iterable[Agreement]) -> float:
    """Return the share of the objects of all images that agree; 1 where there are none."""
    compared = list(compared)
    total = sum(one.of for one in compared)
    return sum(one.objects for one in compared) / total if total else 1.0


def check_share(compared: dict[str, Agreement], where: str, least: float = LEAST_SHARE) -> float:
    """Return `share`.

    Args:
        compared: by the name of the image.

    Raises:
        ExportError: it is below `least`.
    """
    value = share(compared.values())
    if value < least:
        image, first = next((name, one.first) for name, one in compared.items() if one.first)
        total = sum(one.of for one in compared.values())
        raise ExportError(
            f"{where}: {value:.1%} of {total} objects agree with the detector, less than {least:.0%}; on {image}, "
            f"{first}; nothing was kept"
        )
    return value


def _partner(
    found: dict[str, np.ndarray], expected: dict[str, np.ndarray], row: int, free: np.ndarray, tolerance: Tolerance
) -> int | None:
    boxes = np.abs(found["boxes"] - expected["boxes"][row]).max(axis=1, initial=0.0)
    scores = np.abs(found["scores"] - expected["scores"][row])
    fits = free & (found["classes"] == expected["classes"][row])
    fits &= (boxes <= tolerance.box) & (scores <= tolerance.score)
    return int(np.flatnonzero(fits)[boxes[fits].argmin()]) if fits.any() else None


def _object(side: dict[str, np.ndarray], row: int) -> str:
    box = ", ".join(f"{value:.2f}" for value in side["boxes"][row])
    return f"class {side['classes'][row]} at ({box}) with score {side['scores'][row]:.4f}"
