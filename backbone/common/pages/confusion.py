"""A confusion matrix as HTML."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape

import numpy as np

from ..confusion import most_confused, row_shares
from .tables import html_table, percent

# Rows of a confusion matrix: beyond, a page would hold millions of cells. Up to FEW classes, all are shown.
MOST_CLASSES, FEW = 100, 10
MOST_CONFUSIONS = 15
MATRIX_STYLE = """
.matrix { overflow: auto; width: fit-content; max-width: 100%; max-height: 75vh;
  border: 1px solid var(--rule); border-radius: 6px; }
.matrix table { font-size: 11px; border-collapse: separate; border-spacing: 0; }
.matrix th, .matrix td { padding: 2px 4px; border: 0; text-align: right; white-space: nowrap; }
.matrix td { min-width: 20px; font-variant-numeric: tabular-nums; border-right: 1px solid var(--panel);
  border-bottom: 1px solid var(--panel); background: rgb(0 114 178 / calc(0.8 * var(--v, 0))); }
.matrix .find { border: 0; }
.matrix .find:hover { text-decoration: underline; }
.matrix thead th { position: sticky; top: 0; background: var(--back); vertical-align: bottom; z-index: 1; }
.matrix thead th span { writing-mode: vertical-rl; transform: rotate(180deg); }
.matrix tbody th { position: sticky; left: 0; background: var(--back); }
.matrix thead th:first-child { left: 0; z-index: 2; }
.matrix tbody tr:hover th, .matrix tbody tr:hover td { box-shadow: inset 0 1px var(--weak), inset 0 -1px var(--weak); }
@page matrix { size: landscape; }
@media print {
  .matrix { page: matrix; overflow: visible; max-height: none; max-width: none; }
  .matrix table { font-size: 5.5pt; }
  .matrix th, .matrix td { padding: 0 2px; min-width: 0; }
  .matrix thead th, .matrix tbody th { position: static; }
}
"""
# Of a cell: (row, column, HTML) -> HTML, which may be a button.
Link = Callable[[int, int, str], str]


def _as_it_is(_row: int, _column: int, words: str) -> str:
    return words


def confusions_table(matrix: np.ndarray, names: Sequence[str], header: Sequence[str], link: Link = _as_it_is) -> str:
    """Return the most frequent confusions; "" where there are none.

    Args:
        matrix: counts by [true class, found class]; a row and a column behind the classes are background.
        header: what stands over the true class, the found one, their number, and its share of the row in per cent.
    """
    shares = row_shares(matrix)
    rows = [
        [escape(names[truth]), escape(names[found]), link(truth, found, f"{number:,}"), percent(shares[truth, found])]
        for truth, found, number in most_confused(matrix, len(names), MOST_CONFUSIONS)
    ]
    return html_table(header, rows, words=2) if rows else ""


def matrix_table(
    matrix: np.ndarray,
    names: Sequence[str],
    corner: str,
    background: tuple[str, str] | None = None,
    link: Link = _as_it_is,
) -> str:
    """Return the matrix, each row in per cent of its sum, coloured; of many classes those alone that are confused, ""
    where none is.

    Args:
        matrix: counts by [true class, found class], (K, K); with `background` (K + 1, K + 1).
        corner: what rows and columns are.
        background: the names of the last row and of the last column.
    """
    chosen = _chosen(matrix[: len(names), : len(names)])
    if not len(chosen):
        return ""
    rows = [*chosen.tolist(), *([len(names)] if background else [])]
    titles = [escape(names[label]) for label in chosen]
    row_titles, titles = (titles + [escape(name)] for name in background) if background else (titles, titles)
    head = "".join(f'<th scope="col"><span>{title}</span></th>' for title in titles)
    numbers, shares = matrix[np.ix_(rows, rows)], row_shares(matrix)[np.ix_(rows, rows)]
    body = "\n".join(
        f'<tr><th scope="row">{title}</th>'
        + "".join(_matrix_cell(share, number, link, row, column) for column, share, number in zip(rows, *values))
        + "</tr>"
        for row, title, *values in zip(rows, row_titles, shares.tolist(), numbers.tolist())
    )
    left_out = len(names) - len(chosen)
    which = "with the most confusions" if len(chosen) == MOST_CLASSES else "that are taken for each other"
    note = f'<p class="note">The {len(chosen)} classes {which}; {left_out:,} others are left out.</p>'
    note = note if left_out else ""
    return (
        f'{note}<div class="matrix" tabindex="0" role="region" aria-label="Confusion matrix"><table>\n'
        f'<thead><tr><th scope="col">{corner}</th>{head}</tr></thead>\n'
        f"<tbody>\n{body}\n</tbody></table></div>"
    )


def _matrix_cell(share: float, number: int, link: Link, row: int, column: int) -> str:
    if not number:
        return "<td></td>"
    shown = link(row, column, f"{100 * share:.0f}" if share >= 0.005 else "·")
    return f'<td style="--v:{max(share, 0.03):.2f}" title="{number:,}">{shown}</td>'


def _chosen(matrix: np.ndarray) -> np.ndarray:
    wrong = matrix.copy()
    np.fill_diagonal(wrong, 0)
    often = wrong.sum(axis=0) + wrong.sum(axis=1)
    most = np.argsort(-often, kind="stable")[:MOST_CLASSES]
    return np.sort(most if len(matrix) <= FEW else most[often[most] > 0])
