"""How well single images are segmented, and the order in which they are shown: the worst first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..common.confusion import most_confused
from ..common.text import table
from .evaluation import metrics

LISTED = 10  # images of a table
KEPT = 20  # confusions of an image


@dataclass(frozen=True)
class ImageScore:
    """The figures of an image with truth.

    Attributes:
        index: in its set.
        miou: NaN where the truth is void all over.
        wrong: share of its pixels that are wrong.
        confusions: (true class, predicted one, pixels), the most frequent ones first.
        labels: classes in truth or prediction.
    """

    index: int
    name: str
    miou: float
    wrong: float
    confusions: tuple[tuple[int, int, int], ...]
    labels: tuple[int, ...]


def score_image(index: int, name: str, counts: np.ndarray, classes: Sequence[str]) -> ImageScore:
    """Return the figures of an image, of its own confusion matrix (see `evaluation.metrics`)."""
    figures, known = metrics(counts, classes), counts[:, : len(classes)]
    present = np.flatnonzero(counts.sum(1) + known.sum(0)).tolist()
    confusions = most_confused(counts, len(classes), KEPT)
    return ImageScore(index, name, figures["mIoU"], 1 - figures["pACC"], tuple(confusions), tuple(present))


def worst_first(scores: Sequence[ImageScore]) -> list[ImageScore]:
    """Return the images that have figures by rising mIoU, equal ones in order."""
    defined = [score for score in scores if score.miou == score.miou]
    return sorted(defined, key=lambda score: (score.miou, score.index))


def confused_words(confused: tuple[int, int, int], classes: Sequence[str]) -> str:
    """Return a confusion in words."""
    truth, found, _ = confused
    return f"{classes[truth]} taken for {classes[found]}"


def worst_table(scores: Sequence[ImageScore], classes: Sequence[str]) -> str:
    """Return the worst images as a table."""
    rows = [
        (
            score.name,
            100 * score.miou,
            100 * score.wrong,
            *(confused_words(one, classes) for one in score.confusions[:1]),
        )
        for score in worst_first(scores)[:LISTED]
    ]
    rows = [(*row, "")[:4] for row in rows]
    return table(rows, ("worst images", "mIoU %", "wrong %", "most"))
