"""From a mask of pixels to what a COCO annotation holds."""

from __future__ import annotations

import cv2
import numpy as np

SPECK_PIXELS = 6
SPECK_SHARE = 0.03
TOLERANCE = 0.5  # pixels that a polygon's side may stray from the mask's edge


def without_specks(mask: np.ndarray) -> np.ndarray:
    """Drop the connected parts of a mask, (H, W), bool, that are too small to count as the object's visible part."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=4)
    areas = stats[:, cv2.CC_STAT_AREA]
    floor = max(SPECK_PIXELS, SPECK_SHARE * mask.sum())
    kept = np.array([label > 0 and areas[label] >= floor for label in range(count)])
    return kept[labels]


def tight_box(mask: np.ndarray) -> list[float]:
    """Return [x, y, width, height] of a mask, (H, W), bool, in pixels."""
    x, y, width, height = cv2.boundingRect(mask.astype(np.uint8))
    return [float(x), float(y), float(width), float(height)]


def run_lengths(mask: np.ndarray) -> dict[str, list[int]]:
    """Return COCO's uncompressed RLE of a mask, (H, W), bool: runs down the columns, the first of zeros."""
    flat = mask.ravel(order="F")
    edges = np.flatnonzero(np.diff(flat)) + 1
    counts = np.diff(np.concatenate([[0], edges, [flat.size]]))
    starts_inside = [0] if flat[0] else []
    return {"size": list(mask.shape), "counts": starts_inside + counts.tolist()}


def polygons(mask: np.ndarray) -> list[list[float]]:
    """Return polygons [x0, y0, x1, y1, ...], in pixels, whose union is the mask, (H, W), bool.

    COCO's polygons cannot have holes: a part with a hole is cut in two there, which leaves polygons that touch.
    """
    count, labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=4)
    return [polygon for label in range(1, count) for polygon in _part_polygons(labels == label)]


def _part_polygons(part: np.ndarray) -> list[list[float]]:
    hole = _hole_column(part)
    if hole is None:
        return [_outline(part)]
    left, right = part.copy(), part.copy()
    left[:, hole:] = False
    right[:, :hole] = False
    return polygons(left) + polygons(right)


def _hole_column(part: np.ndarray) -> int | None:
    """Return a column through a hole of a mask, or None: a hole is a patch of outside that a margin cannot reach."""
    outside = np.pad(~part, 1, constant_values=True).astype(np.uint8)
    # 8-connected, the counterpart of 4-connected parts: what leaks through a corner is no hole.
    count, labels, stats, _ = cv2.connectedComponentsWithStats(outside, connectivity=8)
    holes = [label for label in range(1, count) if label != labels[0, 0]]
    if not holes:
        return None
    left, width = stats[holes[0], [cv2.CC_STAT_LEFT, cv2.CC_STAT_WIDTH]]
    return int(left + width // 2) - 1


def _outline(part: np.ndarray) -> list[float]:
    """Return the outline along the pixels' edges, not through their centres."""
    doubled = cv2.resize(part.astype(np.uint8), None, fx=2, fy=2, interpolation=cv2.INTER_NEAREST)
    contour = cv2.findContours(doubled, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)[0][0]
    # Of the two halves of pixel i, the first lies at its near edge, i, and the second at its far edge, i + 1.
    edges = ((contour + 1) // 2).astype(np.float32)
    simple = cv2.approxPolyDP(edges, TOLERANCE, True)
    return (simple if len(simple) >= 3 else edges).reshape(-1).tolist()
