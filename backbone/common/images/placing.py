"""Where the names of objects lie on a picture."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

# XYXY in pixels.
Place = tuple[int, int, int, int]


def free_place(box: Place, shape: Sequence[int], canvas: Sequence[int], taken: Sequence[Place]) -> Place | None:
    """Return where a plate lies at a box, inside of the canvas and beside all that is taken; None without such a place.

    Args:
        shape, canvas: (height, width) of the plate and of the picture.
    """
    height, width = shape[:2]
    for x, y in _corners_near(box, height, width):
        left = min(max(x, 0), max(0, canvas[1] - width))
        top = min(max(y, 0), max(0, canvas[0] - height))
        place = (left, top, left + width, top + height)
        if not any(_overlap(place, other) for other in taken):
            return place
    return None


def _corners_near(box: Place, height: int, width: int) -> Iterator[tuple[int, int]]:
    """Yield left upper corners of a plate: above the box, below, inside and beside it, then along its sides."""
    left, top, right, bottom = box
    for x in (left, right - width):
        yield from ((x, y) for y in (top - height, bottom, top, bottom - height))
    yield from ((x, y) for x in (right, left - width) for y in (top, bottom - height))
    for y in range(top + height, bottom - height, height):
        yield from ((x, y) for x in (left, right - width))


def _overlap(one: Place, other: Place) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
