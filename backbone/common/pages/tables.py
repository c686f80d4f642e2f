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
.choice { margin: 8px 0; }
.choice input, select { font: inherit; padding: 3px 6px; max-width: 100%; box-sizing: border-box; }
summary { cursor: pointer; margin: 10px 0; }
.find { all: unset; cursor: pointer; border-bottom: 1px dotted var(--weak); }
.find:hover { border-bottom: 1px solid; }
.find:focus-visible { outline: 2px solid var(--focus); outline-offset: 1px; }
@media print {
  .choice { display: none; }
  .find { border: 0; }
  .dense { font-size: 7.5pt; }
  .dense tbody th { position: static; }
}
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

# Hides the rows of the tables of a section, in folded parts too, whose name lacks what is typed.
FILTER_SCRIPT = """
for (const field of document.querySelectorAll("input[data-filter]")) {
  const section = field.closest("section");
  field.addEventListener("input", () => {
    const wanted = field.value.trim().toLowerCase();
    for (const row of section.querySelectorAll("tbody tr"))
      row.hidden = !row.cells[0].textContent.toLowerCase().includes(wanted);
    for (const part of section.querySelectorAll("details"))
      part.open = wanted !== "" && part.querySelector("tbody tr:not([hidden])") !== null;
  });
}
"""


def filter_field(words: str) -> str:
    """Return a field that FILTER_SCRIPT reads; `words` say what is looked for."""
    return f'<p class="choice"><label>{words} <input type="search" data-filter></label></p>'
