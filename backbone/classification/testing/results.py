"""What a test found."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor


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
