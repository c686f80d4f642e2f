"""Whether two runtimes have found the same objects."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from backbone import ExportError

BOX_TOLERANCE = 1e-3  # pixels
SCORE_TOLERANCE = 1e-4
MASK_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Agreement:
    """Differences over the objects of one image.

    Attributes:
        objects: compared.
        box, score, mask: largest differences: pixels, and probabilities.
    """

    objects: int
    box: float
    score: float
    mask: float | None = None


def agreement(found: dict[str, np.ndarray], expected: dict[str, np.ndarray], where: str) -> Agreement:
    """Pair the objects of two results and compare them.

    Objects of nearly the same score may stand in another order. One whose score is that of the last kept may have
    fallen behind the limit on one side, and is left out.

    Args:
        found, expected: "boxes" (N, 4), "scores" (N,), "classes" (N,) and maybe "masks" (N, 1, 28, 28).

    Raises:
        ExportError: an object has no partner within the tolerances.
    """
    last = max((side["scores"].min() for side in (found, expected) if len(side["scores"])), default=0.0)
    free = np.ones(len(found["scores"]), dtype=bool)
    pairs = []
    for row in range(len(expected["scores"])):
        partner = _partner(found, expected, row, free)
        if partner is not None:
            free[partner] = False
            pairs.append((row, partner))
        elif expected["scores"][row] > last + SCORE_TOLERANCE:
            raise ExportError(f"{where}: {_object(expected, row)} is not found; nothing was kept")
    surplus = np.flatnonzero(free & (found["scores"] > last + SCORE_TOLERANCE))
    if len(surplus):
        raise ExportError(f"{where}: finds {_object(found, surplus[0])}, which the detector does not; nothing was kept")
    rows, partners = np.array(pairs, dtype=int).reshape(-1, 2).T
    largest = {
        name: float(np.abs(found[name][partners] - expected[name][rows]).max(initial=0.0))
        for name in ("boxes", "scores", "masks")
        if name in expected
    }
    if largest.get("masks", 0) > MASK_TOLERANCE:
        raise ExportError(f"{where}: masks differ by {largest['masks']:.2g}; nothing was kept")
    return Agreement(len(rows), largest["boxes"], largest["scores"], largest.get("masks"))


def _partner(found: dict[str, np.ndarray], expected: dict[str, np.ndarray], row: int, free: np.ndarray) -> int | None:
    boxes = np.abs(found["boxes"] - expected["boxes"][row]).max(axis=1, initial=0.0)
    scores = np.abs(found["scores"] - expected["scores"][row])
    fits = free & (found["classes"] == expected["classes"][row])
    fits &= (boxes <= BOX_TOLERANCE) & (scores <= SCORE_TOLERANCE)
    return int(np.flatnonzero(fits)[boxes[fits].argmin()]) if fits.any() else None


def _object(side: dict[str, np.ndarray], row: int) -> str:
    box = ", ".join(f"{value:.2f}" for value in side["boxes"][row])
    return f"class {side['classes'][row]} at ({box}) with score {side['scores'][row]:.4f}"
