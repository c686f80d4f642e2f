"""Which classes are taken for which: what a matrix of counts says."""

from __future__ import annotations

import numpy as np


def row_shares(matrix: np.ndarray) -> np.ndarray:
    """Return each row over its sum, float64; 0 in a row of nothing."""
    total = matrix.sum(axis=1, keepdims=True)
    return np.divide(matrix, total, out=np.zeros(matrix.shape), where=total > 0)


def most_confused(matrix: np.ndarray, classes: int, number: int) -> list[tuple[int, int, int]]:
    """Return the most frequent (true class, found class, how often), equal ones in order.

    Args:
        matrix: counts by [true class, found class]; rows and columns behind the classes (background) are left out.
    """
    wrong = matrix[:classes, :classes].copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:number]
    rows, columns = (index.tolist() for index in np.unravel_index(order, wrong.shape))
    return [(row, column, int(wrong[row, column])) for row, column in zip(rows, columns) if wrong[row, column]]
