"""Tables of a page as HTML."""

from __future__ import annotations

from collections.abc import Sequence

NONE = "–"


def percent(value: float) -> str:
    """Return a fraction in per cent, with one decimal; a dash for NaN."""
    return NONE if value != value else f"{100 * value:.1f}"


def html_table(header: Sequence[str], rows: Sequence[Sequence[str]], *, kind: str = "", words: int = 1) -> str:
    """Return a table.

    Args:
        header, rows: HTML.
        kind: its class; "sortable" gives its header buttons.
        words: how many columns, the first ones, are text; numbers stand to the right.
    """
    names = [f'<button type="button">{name}</button>' if "sortable" in kind else name for name in header]
    head = "".join(f'<th scope="col"{_right(i, words)}>{name}</th>' for i, name in enumerate(names))
    body = "\n".join("<tr>" + "".join(_cell(i, cell, words) for i, cell in enumerate(row)) + "</tr>" for row in rows)
    return (
        f'<div class="wide" tabindex="0"><table class="{kind}">\n<thead><tr>{head}</tr></thead>\n'
        f"<tbody>\n{body}\n</tbody></table></div>"
    )


def _right(column: int, words: int) -> str:
    return "" if column < words else ' class="number"'


def _cell(column: int, cell: str, words: int) -> str:
    return f'<th scope="row">{cell}</th>' if column == 0 else f"<td{_right(column, words)}>{cell}</td>"


# Of pages whose tables have a row a class.
TABLE_STYLE = """
tbody th { color: inherit; font-weight: 400; white-space: nowrap; }
.dense { font-size: 13px; }
.dense th, .dense td { padding: 3px 8px 3px 0; }
.wide thead th { vertical-align: bottom; }
th button { all: unset; cursor: pointer; }
th button:focus-visible { outline: 2px solid var(--focus); }
th[aria-sort="ascending"] button::after { content: " ▲"; font-size: 9px; }
th[aria-sort="descending"] button::after { content: " ▼"; font-size: 9px; }
th.number button { width: 100%; text-align: right; }
.dense tbody th { position: sticky; left: 0; background: var(--back); }
"""

# Sorts a table by the column whose name is chosen.
SORT_SCRIPT = """
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => head.querySelector("button").addEventListener("click", () => {
    const up = head.getAttribute("aria-sort") ? head.getAttribute("aria-sort") === "descending" : column === 0;
    heads.forEach(other => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    const value = row => row.cells[column].textContent;
    const order = (a, b) => {
      if (column === 0) return value(a).localeCompare(value(b)) * (up ? 1 : -1);
      const first = parseFloat(value(a)), second = parseFloat(value(b));
      if (isNaN(first) || isNaN(second)) return isNaN(first) - isNaN(second);
      return (first - second) * (up ? 1 : -1);
    };
    table.tBodies[0].append(...[...table.tBodies[0].rows].sort(order));
  }));
}
"""
