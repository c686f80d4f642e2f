"""What reports of errors have in common: sections, figures in tiles, and images that are filtered and enlarged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from .confusion import MATRIX_STYLE
from .document import document
from .style import BASE_STYLE
from .tables import FILTER_SCRIPT, SORT_SCRIPT, TABLE_STYLE, percent

# Images in figures of class "shot", each with its picture as SVG in a button.
SHOTS_STYLE = """
.shots { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(310px, 100%), 1fr)); gap: 16px; }
.shot { margin: 0; }
.shot[hidden] { display: none; }
.shot svg { display: block; width: 100%; height: auto; max-height: 330px;
  background: var(--panel); border-radius: 4px; }
figcaption { font-size: 13px; color: var(--weak); margin-top: 4px; overflow-wrap: anywhere; }
figcaption strong { color: var(--text); font-weight: 600; }
@media print { .shots { grid-template-columns: 1fr 1fr; } .shot svg { max-height: 60mm; } }
.chosen button { all: unset; cursor: pointer; color: var(--focus); text-decoration: underline; margin-left: 8px; }
.chosen button:focus-visible { outline: 2px solid var(--focus); outline-offset: 2px; }
.shot button { all: unset; cursor: zoom-in; display: block; width: 100%; }
.shot button:focus-visible { outline: 3px solid var(--focus); outline-offset: 2px; }
"""

REPORT_STYLE = (
    BASE_STYLE
    + TABLE_STYLE
    + MATRIX_STYLE
    + """
h2 { scroll-margin-top: 12px; }
h2 a { color: inherit; text-decoration: none; }
h3 { font-size: 15px; margin: 22px 0 6px; }
a { color: var(--focus); }
:focus-visible { outline: 2px solid var(--focus); outline-offset: 2px; }
nav ul { display: flex; flex-wrap: wrap; gap: 4px 18px; list-style: none; margin: 0; padding: 0; }
.first { font-size: 17px; font-weight: 600; }
.tiles { display: grid; grid-template-columns: repeat(6, 1fr); gap: 8px; margin: 14px 0; padding: 0; }
.tiles div { background: var(--panel); border-radius: 6px; padding: 7px 10px; }
.tiles dt { color: var(--weak); font-size: 12px; }
.tiles dd { margin: 0; font-size: 19px; font-variant-numeric: tabular-nums; }
dialog { border: 0; padding: 0; margin: 0; inset: 0; width: 100%; height: 100%; max-width: none; max-height: none;
  box-sizing: border-box; background: #111; color: #eee; }
dialog[open] { display: flex; flex-direction: column; }
dialog form { display: flex; align-items: center; gap: 4px 10px; padding: 6px 12px; font-size: 14px; }
dialog form strong { flex: 0 1 auto; min-width: 0; overflow-wrap: anywhere; font-weight: 600; }
dialog form label { margin-left: auto; white-space: nowrap; }
dialog button { all: unset; cursor: pointer; font-size: 20px; line-height: 1; padding: 6px 12px; border-radius: 6px;
  background: #333; color: #fff; }
dialog button:focus-visible { outline: 2px solid #7cc0ff; }
dialog .enlarged { flex: 1; min-height: 0; }
dialog svg { display: block; width: 100%; height: 100%; }
dialog .errors { margin: 0; padding: 6px 12px 10px; font-size: 13px; max-height: 20vh; overflow: auto; }
@media (max-width: 640px) { .tiles { grid-template-columns: repeat(3, 1fr); } }
@media print {
  .chosen, dialog { display: none; }
  .tiles { break-inside: avoid; }
}
"""
)

# A button with data-find shows the images that have its key among their data-keys; one of an image enlarges it.
REPORT_SCRIPT = (
    SORT_SCRIPT
    + FILTER_SCRIPT
    + """
const shots = [...document.querySelectorAll(".shot")], chosen = document.querySelector(".chosen");
const worst = shots.filter(shot => !shot.hidden);
function choose(wanted, words) {
  for (const shot of shots) shot.hidden = !wanted(shot);
  chosen.hidden = !words;
  chosen.querySelector("span").textContent = words;
}
if (chosen) chosen.querySelector("button").addEventListener("click", () => choose(shot => worst.includes(shot), ""));
for (const button of document.querySelectorAll("[data-find]")) button.addEventListener("click", () => {
  choose(shot => shot.dataset.keys.split(" ").includes(button.dataset.find), button.title);
  document.getElementById("images").scrollIntoView();
});

const dialog = document.querySelector("dialog");
let enlarged = null;
function enlarge(shot) {
  enlarged = shot;
  dialog.querySelector(".enlarged").replaceChildren(shot.querySelector("svg").cloneNode(true));
  dialog.querySelector("strong").textContent = shot.querySelector("figcaption strong").textContent;
  dialog.querySelector(".errors").textContent = shot.querySelector(".errors").textContent;
  if (!dialog.open) dialog.showModal();
}
function step(by) {
  const shown = shots.filter(shot => !shot.hidden);
  enlarge(shown[(shown.indexOf(enlarged) + by + shown.length) % shown.length]);
}
for (const shot of shots) shot.querySelector("button").addEventListener("click", () => enlarge(shot));
if (dialog) {
  dialog.querySelector(".enlarged").addEventListener("click", () => dialog.close());
  dialog.addEventListener("keydown", event => {
    if (event.key === "ArrowRight") step(1);
    if (event.key === "ArrowLeft") step(-1);
  });
  for (const button of dialog.querySelectorAll("[data-step]"))
    button.addEventListener("click", () => step(Number(button.dataset.step)));
}
"""
)


def report_page(
    title: str, head: str, sections: Mapping[str, tuple[str, str]], *, style: str, script: str, last: str = ""
) -> str:
    """Return a page with links to its sections.

    Args:
        head: HTML that stands first.
        sections: {id: (title, HTML)}; that of the images is "images".
        last: HTML behind the sections.
    """
    links = "".join(f'<li><a href="#{key}">{name}</a></li>' for key, (name, _) in sections.items())
    parts = [head, f'<nav aria-label="Sections"><ul>{links}</ul></nav>']
    parts += [
        f'<section aria-labelledby="{key}"><h2 id="{key}" tabindex="-1">{name}</h2>\n{body}</section>'
        for key, (name, body) in sections.items()
    ]
    return document(title, "\n".join([*parts, *([last] if last else [])]), style=style, script=script)


def tiles(figures: Mapping[str, float]) -> str:
    """Return figures in per cent, each in a tile with its name."""
    shown = "".join(f"<div><dt>{escape(name)}</dt><dd>{percent(value)}</dd></div>" for name, value in figures.items())
    return f'<dl class="tiles">{shown}</dl>'


def find_button(key: str, words: str, title: str) -> str:
    """Return HTML, `words`, as a button that shows the images of a key; `title` (plain text) says what they are."""
    return f'<button type="button" class="find" data-find="{key}" title="{escape(title)}">{words}</button>'


def shots_gallery(figures: Sequence[str], switches: str = "") -> str:
    """Return figures of class "shot" with what REPORT_SCRIPT needs beside them.

    Args:
        switches: HTML among the buttons over an enlarged image.
    """
    body = "\n".join(figures)
    return (
        '<p class="chosen" aria-live="polite" hidden><span></span> '
        f'<button type="button">Show the worst images</button></p>\n<div class="shots">\n{body}\n</div>'
        '<dialog aria-label="Image"><form method="dialog"><button type="button" data-step="-1" '
        'aria-label="Previous image">‹</button><strong></strong><button type="button" data-step="1" '
        f'aria-label="Next image">›</button>{switches}'
        '<button aria-label="Close">✕</button></form><div class="enlarged"></div><p class="errors"></p></dialog>'
    )
