"""What a test found."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
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
        scores: (all images, 5) float32, their probabilities.
        likelihoods: (all images,) float32, the probability of the right class.
        labels: (all images,) int64, the right classes; classes: their names.
    """

    protocol: str
    top1: float
    top5: float
    images: int
    left_out: tuple[str, ...]
    seconds: float
    guesses: Tensor = field(compare=False, repr=False)
    scores: Tensor = field(compare=False, repr=False)
    likelihoods: Tensor = field(compare=False, repr=False)
    labels: np.ndarray = field(compare=False, repr=False)
    classes: list[str] = field(compare=False, repr=False)

    @cached_property
    def confusion(self) -> np.ndarray:
        """How often images of each class were taken for each, (K, K) int64 by [right class, first guess]."""
        matrix = np.zeros((len(self.classes), len(self.classes)), dtype=np.int64)
        first = self.guesses[:, 0].numpy()
        np.add.at(matrix, (self.labels[first >= 0], first[first >= 0]), 1)
        return matrix

    @property
    def class_accuracy(self) -> np.ndarray:
        """The share of each class's images that were taken for it, (K,); NaN of a class without images."""
        images = self.confusion.sum(1)
        return np.divide(np.diag(self.confusion), images, out=np.full(len(images), np.nan), where=images > 0)

    @property
    def mean_class_accuracy(self) -> float:
        """The mean accuracy of the classes that have images."""
        return float(np.nanmean(self.class_accuracy))

    @property
    def loss(self) -> float:
        """The mean of -log of the right class's probability."""
        tested = self.likelihoods[self.guesses[:, 0] >= 0]
        return float(-tested.double().clamp(min=1e-38).log().mean())

    def figures(self) -> dict[str, Any]:
        """Return `to_json` with the figures that follow from the guesses; top5_error of more than five classes."""
        record = {**self.to_json(), "top1_accuracy": 1 - self.top1, "loss": self.loss}
        record["mean_class_accuracy"] = self.mean_class_accuracy
        if len(self.classes) <= 5:
            # Any five guesses are right.
            del record["top5_error"]
        return record

    def per_class(self) -> dict[str, dict[str, float]]:
        """Return {class: {"accuracy", "images"}} of the classes that have images."""
        images = self.confusion.sum(1).tolist()
        rows = zip(self.classes, self.class_accuracy.tolist(), images)
        return {name: {"accuracy": accuracy, "images": number} for name, accuracy, number in rows if number}

    def to_json(self) -> dict[str, Any]:
        """Return the errors and what was tested, in plain types."""
        return {
            "protocol": self.protocol,
            "top1_error": self.top1,
            "top5_error": self.top5,
            "images": self.images,
            "left_out": list(self.left_out),
            "seconds": round(self.seconds, 3),
        }
