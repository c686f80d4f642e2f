"""Winograd's F(4x4, 3x3): its matrices.

See Lavin and Gray (arXiv 1509.09308): 36 products of matrices make 4 x 4 values of the output where the definition
takes 144. The points 0, 1, -1, 1/2, -2 and infinity keep the rounding at about twice that of a direct convolution in
float32 (1.5e-5 and 7e-6 at most, outputs up to 6).
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

TILE, TAPS = 4, 3
WINDOW = TILE + TAPS - 1  # pixels along a tile's side that its output depends on
PLACES = WINDOW * WINDOW
# A tile's pixels, the weights, and the sums are transformed along both axes by these.
PIXELS = (
    (1 / 2, -3 / 4, -1, 3 / 4, 1 / 2, 0),
    (0, -1 / 2, 1 / 4, 5 / 4, 1 / 2, 0),
    (0, 1 / 2, -5 / 4, 1 / 4, 1 / 2, 0),
    (0, -1, -1 / 2, 1, 1 / 2, 0),
    (0, 1 / 2, -1, -1 / 2, 1, 0),
    (0, 1 / 2, -3 / 4, -1, 3 / 4, 1 / 2),
)
WEIGHTS = (
    (2, 0, 0),
    (2 / 3, 2 / 3, 2 / 3),
    (-2 / 3, 2 / 3, -2 / 3),
    (-32 / 15, -16 / 15, -8 / 15),
    (1 / 15, -2 / 15, 4 / 15),
    (0, 0, 2),
)
SUMS = ((1, 1, 1, 1, 1, 0), (0, 1, -1, 1 / 2, -2, 0), (0, 1, 1, 1 / 4, 4, 0), (0, 1, -1, 1 / 8, -8, 1))


@cache
def both_axes(matrix: tuple[tuple[float, ...], ...]) -> Tensor:
    rows = torch.tensor(matrix, dtype=torch.float64)
    return torch.kron(rows, rows).to(torch.float32)


def tiles_along(length: int) -> int:
    return -(-length // TILE)
