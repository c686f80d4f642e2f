"""Boxes, masks and names drawn on images, with OpenCV."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

FONT = cv2.FONT_HERSHEY_SIMPLEX
LEAST_KEYPOINT = 0.05  # as detectron2 draws them


def class_color(label: int) -> tuple[int, int, int]:
    """Return a BGR colour for a class; neighbouring classes differ clearly (steps of the golden angle in hue)."""
    hue = int(label * 137.508) % 180
    value = 255 if label % 2 == 0 else 205
    pixel = cv2.cvtColor(np.array([[[hue, 200, value]]], dtype=np.uint8), cv2.COLOR_HSV2BGR)[0, 0]
    return tuple(int(channel) for channel in pixel)


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

    Args:
        boxes: (K, 4) XYXY, absolute pixels.
        labels: class indices into `classes`.
        masks: (K, H, W) bool.
        keypoints: (K, P, 3) x, y and visibility or score; those of LEAST_KEYPOINT and less are left out.
    """
    canvas = image.copy()
    line = max(1, round(min(canvas.shape[:2]) / 300))
    order = np.argsort(scores) if scores is not None else range(len(boxes))
    if masks is not None:
        for row in order:
            color = np.array(class_color(labels[row]), dtype=np.float32)
            inside = masks[row].astype(bool)
            canvas[inside] = (0.55 * canvas[inside] + 0.45 * color).astype(np.uint8)
    for row in order:
        color = class_color(labels[row])
        left, top, right, bottom = (round(float(value)) for value in boxes[row])
        cv2.rectangle(canvas, (left, top), (right, bottom), color, line)
        name = classes[labels[row]] if labels[row] < len(classes) else str(labels[row])
        _write(canvas, name if scores is None else f"{name} {scores[row]:.2f}", left, top, color)
        for x, y, sure in keypoints[row].tolist() if keypoints is not None else ():
            if sure > LEAST_KEYPOINT:
                cv2.circle(canvas, (round(x), round(y)), 2 * line, (255, 255, 255), cv2.FILLED)
                cv2.circle(canvas, (round(x), round(y)), max(1, 2 * line - 1), color, cv2.FILLED)
    return canvas


def _write(canvas: np.ndarray, text: str, left: int, top: int, color: tuple[int, int, int]) -> None:
    text = text.encode("ascii", "replace").decode()
    size = max(0.35, min(canvas.shape[:2]) / 1200)
    (width, height), below = cv2.getTextSize(text, FONT, size, 1)
    left = int(np.clip(left, 0, max(0, canvas.shape[1] - width - 2)))
    top = max(top, height + below)
    cv2.rectangle(canvas, (left, top - height - below), (left + width + 2, top), color, cv2.FILLED)
    dark = sum(color) > 380
    cv2.putText(
        canvas, text, (left + 1, top - below + 1), FONT, size, (0, 0, 0) if dark else (255, 255, 255), 1, cv2.LINE_AA
    )
