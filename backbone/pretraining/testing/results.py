"""What a test found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from ...text import table as text_table

PaperErrors = tuple[float | None, float | None]


@dataclass(frozen=True)
class Errors:
    """Errors of a network, or of an ensemble, on a set.

    Attributes:
        protocol: its name.
        top1, top5: share of the images whose class is not the first guess, or not among the first five (with fewer
            classes than five: among all of them, so 0).
        images: that were tested.
        left_out: where the images come from that could not be read; they count neither as right nor as wrong.
        seconds: wall time, loading included.
        guesses: (all images of the set, 5) int64, the likeliest classes, likeliest first; -1 where left out.
    """

    protocol: str
    top1: float
    top5: float
    images: int
    left_out: tuple[str, ...]
    seconds: float
    guesses: Tensor = field(compare=False, repr=False)

    def to_json(self) -> dict[str, Any]:
        """Return all but `guesses`, in plain types."""
        return {
            "protocol": self.protocol,
            "top1_error": self.top1,
            "top5_error": self.top5,
            "images": self.images,
            "left_out": list(self.left_out),
            "seconds": round(self.seconds, 3),
        }


def table(rows: Sequence[tuple[Errors, PaperErrors | None]]) -> str:
    """Return a Markdown table of errors in percent.

    Args:
        rows: each with the paper's top-1 and top-5 error in percent, or None; without any, their columns are missing.
    """
    header = ["protocol", "images", "top-1 error %", "paper", "top-5 error %", "paper"]
    cells = []
    for errors, paper in rows:
        paper1, paper5 = paper or (None, None)
        cells.append([errors.protocol, errors.images, 100 * errors.top1, paper1, 100 * errors.top5, paper5])
    if all(row[3] is None and row[5] is None for row in cells):
        kept = (0, 1, 2, 4)
        header, cells = [header[i] for i in kept], [[row[i] for i in kept] for row in cells]
    if any(errors.left_out for errors, _ in rows):
        header.append("left out")
        cells = [[*row, len(errors.left_out)] for row, (errors, _) in zip(cells, rows)]
    return text_table(cells, header)
