"""What a classifier says of one image, for people and for further code."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from PIL import Image

from ..common.errors import ConfigError
from ..common.images.letters import lettering, put_letters
from ..common.images.save import save_picture
from ..common.text import nearest
from .testing.grad_cam import overlay

# Guesses in the text of a result and on its picture.
SHOWN = 5
# Shorter and longer side of a picture, in pixels; of a line of words, and of their font.
LEAST, MOST, LINE, FONT = 224, 1024, 22, 15


class Guess(NamedTuple):
    """A class with its probability; label: its index."""

    class_name: str
    score: float
    label: int


@dataclass(frozen=True, eq=False, repr=False)
class Guesses:
    """The classes of one image, the likeliest first.

    `len`, iteration and `result[0]` give single ones; a slice or an array gives a part: `result[:5]`,
    `result[result.scores > 0.1]`.

    Attributes:
        scores: (K,) float32, probabilities.
        labels: (K,) int64, indices into `classes`.
        classes: the names of all classes of the classifier.
        read: returns the image, (H, W, 3) RGB uint8. What the caller gave is read again, and not copied.
        look: (label) -> where the image speaks for a class, (H, W) float32 in 0..1: Grad-CAM.
    """

    scores: np.ndarray
    labels: np.ndarray
    classes: list[str]
    read: Callable[[], np.ndarray]
    look: Callable[[int], np.ndarray]

    @property
    def class_names(self) -> list[str]:
        """The names of the classes, the likeliest first."""
        return [self.classes[label] for label in self.labels]

    @property
    def class_name(self) -> str:
        """The name of the likeliest class."""
        return self[0].class_name

    @property
    def score(self) -> float:
        """The probability of the likeliest class."""
        return self[0].score

    def top(self, number: int = SHOWN) -> list[Guess]:
        """Return the likeliest classes with their probabilities."""
        return list(self[:number])

    def __len__(self) -> int:
        return len(self.scores)

    def __iter__(self) -> Iterator[Guess]:
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, (int, np.integer)):
            label = int(self.labels[index])
            return Guess(self.classes[label], float(self.scores[index]), label)
        return replace(self, scores=self.scores[index], labels=self.labels[index])

    def __repr__(self) -> str:
        shown = ", ".join(f"{name} {score:.3f}" for name, score, _ in self.top(3))
        return f"<Guesses: {shown}{', ...' if len(self) > 3 else ''}>"

    def heat(self, label: int | str | None = None) -> np.ndarray:
        """Return where the image speaks for a class (an index or a name), by default the likeliest: (H, W) in 0..1.

        It is Grad-CAM on the last stage. What lies outside of the network's view, a square in the middle, is 0.

        Raises:
            ConfigError: there is no such class.
        """
        if label is None:
            return self.look(self[0].label)
        if label not in (self.classes if isinstance(label, str) else range(len(self.classes))):
            hint = nearest(label, self.classes) if isinstance(label, str) else f"; there are {len(self.classes)}"
            raise ConfigError(f"{label!r} is no class{hint}")
        return self.look(self.classes.index(label) if isinstance(label, str) else int(label))

    def draw(self, number: int = SHOWN, heat: bool = False) -> Image.Image:
        """Return the image with the likeliest classes below it, as an RGB PIL image.

        Args:
            heat: show by colours where the image speaks for the likeliest class, from blue to red.

        Raises:
            DataError: the image cannot be read again.
        """
        image = self.read()
        if heat:
            image = overlay(image, self.heat())
        height, width = image.shape[:2]
        scale = min(max(1.0, LEAST / width), MOST / max(height, width))
        size = max(1, round(width * scale)), max(1, round(height * scale))
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
        lines = [_line(f"{100 * score:.1f} %  {name}", score, size[0]) for name, score, _ in self.top(number)]
        return Image.fromarray(np.concatenate([image, *lines]))

    def save(self, path: str | Path, number: int = SHOWN, heat: bool = False) -> None:
        """Write what `draw` shows; the suffix says the form: .jpg, .png, .webp, ...

        Raises:
            DataError: Pillow writes no images of this suffix.
            RunError: the file cannot be written.
        """
        save_picture(path, self.draw(number, heat))

    def to_json(self, number: int = SHOWN) -> list[dict[str, Any]]:
        """Return the likeliest classes as [{"class", "score", "label"}, ...]."""
        return [{"class": name, "score": round(score, 6), "label": label} for name, score, label in self.top(number)]

    def _repr_png_(self) -> bytes:
        """Return the picture that a notebook shows."""
        buffer = io.BytesIO()
        self.draw().save(buffer, format="PNG")
        return buffer.getvalue()


def _line(words: str, score: float, width: int) -> np.ndarray:
    """Return words in black on a bar as long as the score, (LINE, width, 3) RGB; what does not fit is cut off."""
    line = np.full((LINE, width, 3), 255, np.uint8)
    line[:, : round(score * width)] = (170, 208, 240)
    put_letters(line, lettering(words, FONT), left=6, top=2)
    return line
