"""An image under construction that knows which object owns each pixel."""

from __future__ import annotations

import cv2
import numpy as np

from .sprite import Sprite

NOBODY = -1
MIN_INSIDE = 0.72  # share of an object's pixels that must lie within the image
MIN_VISIBLE_PIXELS = 64


class Canvas:
    """Objects pasted over a background, the later ones in front.

    Attributes:
        image: (H, W, 3), float32, BGR within [0, 255].
        owner: (H, W), int32: the number of the front object of each pixel, or NOBODY.
    """

    def __init__(self, background: np.ndarray) -> None:
        self.image = background.astype(np.float32)
        self.owner = np.full(background.shape[:2], NOBODY, np.int32)
        self._whole: list[int] = []

    def try_paste(self, sprite: Sprite, left: int, top: int, *, max_hidden: float, shadow: float) -> bool:
        """Paste a sprite as a new object, unless too much of it or of an object behind it would be out of sight.

        Args:
            max_hidden: the largest share that any object may lose, counted from all its pixels.
            shadow: how dark the shadow around it is, 0 to 1.

        Returns:
            Whether it was pasted.
        """
        target, source = _overlap(self.owner.shape, sprite.alpha.shape, left, top)
        solid = sprite.solid[source]
        inside, whole = int(solid.sum()), int(sprite.solid.sum())
        if inside < max(MIN_INSIDE * whole, MIN_VISIBLE_PIXELS):
            return False
        if not self._all_stay_visible(target, solid, max_hidden):
            return False
        self._cast_shadow(sprite, left, top, shadow)
        self._blend(sprite, target, source)
        self.owner[target][solid] = len(self._whole)
        self._whole.append(whole)
        return True

    def paste_group(self, sprites: list[tuple[Sprite, int, int]], *, gap: int) -> None:
        """Paste sprites, each with its left and top, as one object that owns gaps of up to `gap` pixels too."""
        region = np.zeros(self.owner.shape, np.uint8)
        for sprite, left, top in sprites:
            target, source = _overlap(self.owner.shape, sprite.alpha.shape, left, top)
            self._blend(sprite, target, source)
            region[target][sprite.solid[source]] = 1
        closing = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (gap, gap))
        region = cv2.morphologyEx(region, cv2.MORPH_CLOSE, closing, borderType=cv2.BORDER_CONSTANT, borderValue=0)
        self.owner[region > 0] = len(self._whole)
        self._whole.append(int(region.sum()))

    def _all_stay_visible(self, target: tuple[slice, slice], solid: np.ndarray, max_hidden: float) -> bool:
        if not self._whole:
            return True
        count = len(self._whole)
        covered = np.bincount(self.owner[target][solid] - NOBODY, minlength=count + 1)[1:]
        left = np.bincount((self.owner - NOBODY).ravel(), minlength=count + 1)[1:] - covered
        floor = np.maximum((1 - max_hidden) * np.array(self._whole), MIN_VISIBLE_PIXELS)
        return not np.any((covered > 0) & (left < floor))

    def _cast_shadow(self, sprite: Sprite, left: int, top: int, strength: float) -> None:
        margin = max(2, sprite.alpha.shape[0] // 10)
        spread = cv2.copyMakeBorder(sprite.alpha, margin, margin, margin, margin, cv2.BORDER_CONSTANT, value=0)
        spread = cv2.blur(spread, (2 * margin + 1, 2 * margin + 1), borderType=cv2.BORDER_CONSTANT)
        # A shadow falls below its object: shifting it down by half the margin leaves it out of step at the top.
        target, source = _overlap(self.owner.shape, spread.shape, left - margin, top - margin // 2)
        self.image[target] *= 1 - strength * spread[source][:, :, None]

    def _blend(self, sprite: Sprite, target: tuple[slice, slice], source: tuple[slice, slice]) -> None:
        weight = sprite.alpha[source][:, :, None]
        self.image[target] = self.image[target] * (1 - weight) + sprite.colour[source] * weight


def _overlap(
    canvas: tuple[int, ...], sprite: tuple[int, ...], left: int, top: int
) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Return the windows, into the canvas and into the sprite, where the two coincide."""
    height, width = canvas[:2]
    rows = slice(min(max(top, 0), height), max(min(top + sprite[0], height), 0))
    columns = slice(min(max(left, 0), width), max(min(left + sprite[1], width), 0))
    return (rows, columns), (slice(rows.start - top, rows.stop - top), slice(columns.start - left, columns.stop - left))
