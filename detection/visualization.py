"""Boxes, masks and names drawn on images."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from backbone.common.images import lettering
from backbone.common.images.placing import Place, free_place

LEAST_KEYPOINT = 0.05  # as detectron2 draws them
BLACK, WHITE = (0, 0, 0), (255, 255, 255)
Color = tuple[int, int, int]


def class_color(label: int) -> Color:
    """Return a BGR colour for a class; neighbouring classes differ clearly (steps of the golden angle in hue)."""
    hue = int(label * 137.508) % 180
    value = 255 if label % 2 == 0 else 205
    pixel = cv2.cvtColor(np.array([[[hue, 200, value]]], dtype=np.uint8), cv2.COLOR_HSV2BGR)[0, 0]
    return tuple(int(channel) for channel in pixel)


def text_color(behind: Color) -> Color:
    """Return black or white, whichever has the higher contrast (WCAG 2) with a BGR colour: 4.58 or more with any."""
    channels = [value / 255 for value in reversed(behind)]
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in channels]
    luminance = float(np.dot((0.2126, 0.7152, 0.0722), linear))
    return BLACK if (luminance + 0.05) ** 2 > 1.05 * 0.05 else WHITE


def draw_objects(
    image: np.ndarray,
    boxes: np.ndarray,
    labels: Sequence[int],
    classes: Sequence[str],
    *,
    scores: Sequence[float] | None = None,
    masks: np.ndarray | None = None,
    keypoints: np.ndarray | None = None,
) -> np.ndarray:
    """Return a copy of a BGR uint8 image with objects drawn on it, the least certain first.

    Names lie at their boxes, and none hides another: where there is no room, that of the less certain object is left
    out. A name that no font of the machine has is drawn as "#" with its class index.

    Args:
        boxes: (K, 4) XYXY, absolute pixels.
        labels: class indices into `classes`.
        masks: (K, H, W) bool.
        keypoints: (K, P, 3) x, y and visibility or score; those of LEAST_KEYPOINT and less are left out.
    """
    canvas = image.copy()
    line = max(1, round(min(canvas.shape[:2]) / 300))
    order = np.argsort(scores) if scores is not None else np.arange(len(boxes))
    # Far outside of the image, where a box may end, OpenCV has no pixels.
    corners = np.clip(np.nan_to_num(boxes), -10 * line, np.array([*canvas.shape[1::-1]] * 2) + 10 * line)
    corners = np.round(corners).astype(int).reshape(-1, 4).tolist()
    if masks is not None:
        for row in order:
            color = np.array(class_color(labels[row]), dtype=np.float32)
            inside = masks[row].astype(bool)
            canvas[inside] = (0.55 * canvas[inside] + 0.45 * color).astype(np.uint8)
    for row in order:
        color = class_color(labels[row])
        cv2.rectangle(canvas, corners[row][:2], corners[row][2:], color, line)
        for x, y, sure in keypoints[row].tolist() if keypoints is not None else ():
            if sure > LEAST_KEYPOINT:
                cv2.circle(canvas, (round(x), round(y)), 2 * line, WHITE, cv2.FILLED)
                cv2.circle(canvas, (round(x), round(y)), max(1, 2 * line - 1), color, cv2.FILLED)
    taken: list[Place] = []
    size = font_size(canvas)
    for row in reversed(order) if scores is not None else order:
        label = labels[row]
        score = "" if scores is None else f" {scores[row]:.2f}"
        name = classes[label] if label < len(classes) else str(label)
        words = lettering(name + score, size, otherwise=f"#{label}{score}")[:, : canvas.shape[1]]
        left, top, right, bottom = corners[row]
        place = free_place((left, top, right, bottom + line), words.shape, canvas.shape, taken)
        if place is not None:
            taken.append(place)
            write(canvas, words, place[:2], class_color(label))
    return canvas


def font_size(image: np.ndarray) -> int:
    """Return the size of letters, in pixels, for an image."""
    return max(11, round(min(image.shape[:2]) / 40))


def write(canvas: np.ndarray, words: np.ndarray, corner: tuple[int, int], behind: Color) -> None:
    """Draw letters of `lettering` on a plate of a BGR colour; `corner` is its left upper one, (x, y)."""
    part = canvas[corner[1] : corner[1] + words.shape[0], corner[0] : corner[0] + words.shape[1]]
    share = words[: part.shape[0], : part.shape[1], None] / np.float32(255)
    part[:] = np.round(share * text_color(behind) + (1 - share) * np.array(behind))
