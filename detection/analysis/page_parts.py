"""Style and script of the report's page."""

from __future__ import annotations

from backbone.common.pages.confusion import MATRIX_STYLE
from backbone.common.pages.style import BASE_STYLE
from backbone.common.pages.tables import SORT_SCRIPT, TABLE_STYLE

# Boxes in the colours of their kinds, and images with them.
SHOT_STYLE = """
:root { --kTruth: #18a34a; --kMiss: #18a34a; --kIgnored: #8a8f98;
  --kRight: #58a6ff; --kCls: #ff851b; --kLoc: #e0b400; --kBoth: #c04df0; --kDupe: #12a5b0; --kBkg: #ff4136;
  --kAll: #8a8f98; }
.dot { display: inline-block; width: 11px; height: 11px; border-radius: 3px; margin-right: 7px;
  vertical-align: -1px; background: var(--k); }
.bar { display: block; height: 12px; border-radius: 2px; background: var(--k); }
.kTruth { --k: var(--kTruth); } .kMiss { --k: var(--kMiss); } .kIgnored { --k: var(--kIgnored); }
.kRight { --k: var(--kRight); } .kCls { --k: var(--kCls); } .kLoc { --k: var(--kLoc); } .kBoth { --k: var(--kBoth); }
.kDupe { --k: var(--kDupe); } .kBkg { --k: var(--kBkg); } .kAll { --k: var(--kAll); }
.dot.kMiss { background: repeating-linear-gradient(45deg, var(--k) 0 2px, transparent 2px 4px); }
.bar.kMiss { background: repeating-linear-gradient(45deg, var(--k) 0 4px, #18a34a88 4px 8px); }
.shots { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(310px, 100%), 1fr)); gap: 16px; }
.shot { margin: 0; }
.shot svg { display: block; width: 100%; height: auto; max-height: 330px;
  background: var(--panel); border-radius: 4px; }
figcaption { font-size: 13px; color: var(--weak); margin-top: 4px; overflow-wrap: anywhere; }
figcaption strong { color: var(--text); font-weight: 600; }
.blank { fill: var(--panel); stroke: var(--rule); }
.box rect { fill: none; stroke: var(--k); stroke-width: 2px; vector-effect: non-scaling-stroke; }
.box.kMiss rect { stroke-dasharray: 6 4; stroke-width: 3px; fill: #18a34a22; }
.box.kIgnored rect { stroke-dasharray: 2 4; }
.box .caption { display: none; fill: var(--k); font: 600 10px system-ui, sans-serif; paint-order: stroke;
  stroke: #000c; stroke-width: 2.5px; stroke-linejoin: round; }
"""

STYLE = (
    BASE_STYLE
    + TABLE_STYLE
    + MATRIX_STYLE
    + SHOT_STYLE
    + """
h2 { scroll-margin-top: 12px; }
h2 a { color: inherit; text-decoration: none; }
h3 { font-size: 15px; margin: 22px 0 6px; }
a { color: var(--focus); }
:focus-visible { outline: 2px solid var(--focus); outline-offset: 2px; }
nav ul { display: flex; flex-wrap: wrap; gap: 4px 18px; list-style: none; margin: 0; padding: 0; }
.tiles { display: grid; grid-template-columns: repeat(6, 1fr); gap: 8px; margin: 14px 0; padding: 0; }
@media (max-width: 640px) { .tiles { grid-template-columns: repeat(3, 1fr); } }
.tiles div { background: var(--panel); border-radius: 6px; padding: 7px 10px; }
.tiles dt { color: var(--weak); font-size: 12px; }
.tiles dd { margin: 0; font-size: 19px; font-variant-numeric: tabular-nums; }
.kinds td, .kinds tbody th { vertical-align: middle; }
.choice { margin: 8px 0; }
select { font: inherit; padding: 3px 6px; }
.readout { min-height: 1.5em; margin: 2px 0 0 48px; font-size: 13px; color: var(--weak);
  font-variant-numeric: tabular-nums; }
svg .bin { fill-opacity: .55; stroke: none; }
summary { cursor: pointer; margin: 10px 0; }
.switches { border: 0; padding: 0; margin: 8px 0 14px; display: flex; flex-wrap: wrap; gap: 4px 16px; font-size: 14px; }
.switches legend { float: left; margin-right: 16px; color: var(--weak); }
.shot button { all: unset; cursor: zoom-in; display: block; width: 100%; }
.shot button:focus-visible { outline: 3px solid var(--focus); outline-offset: 2px; }
.hideTruth .kTruth.box, .hideTruth .kIgnored.box, .hideMiss .kMiss.box, .hideCls .kCls.box, .hideLoc .kLoc.box,
.hideBoth .kBoth.box, .hideDupe .kDupe.box, .hideBkg .kBkg.box, .hideRight .kRight.box { display: none; }
dialog { border: 0; padding: 0; background: #000; max-width: none; max-height: none; cursor: zoom-out; }
dialog::backdrop { background: #000c; }
dialog svg { display: block; width: 94vw; height: 92vh; }
dialog .box .caption { display: block; }
"""
)

SCRIPT = (
    """
"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const [left, top_, right, bottom] = data.area;
const span = { pr: [0, 1], sweep: data.thresholds };

function points(curve) {
  const last = Math.max(1, curve.length - 1);
  return curve.map((value, index) => value === null ? null :
    (left + (right - left) * index / last).toFixed(1) + "," + (bottom - (bottom - top_) * value / 1000).toFixed(1))
    .filter(point => point !== null).join(" ");
}
const choice = document.getElementById("class");
const charts = [...document.querySelectorAll("svg[data-curves]")];
function redraw() {
  for (const svg of charts) {
    const curves = data[svg.dataset.curves][choice.value];
    svg.querySelectorAll(".line").forEach((line, index) => line.setAttribute("points", points(curves[index])));
  }
}
data.names.forEach((name, index) => choice.add(new Option(name, index)));
choice.addEventListener("change", redraw);
for (const svg of charts) {
  const cursor = svg.querySelector(".cursor"), readout = svg.parentElement.querySelector(".readout");
  const names = [...svg.parentElement.querySelectorAll(".legend li")].map(item => item.textContent.trim());
  const key = svg.dataset.curves, [low, high] = span[key];
  svg.addEventListener("pointerleave", () => { cursor.style.visibility = "hidden"; readout.textContent = ""; });
  svg.addEventListener("pointermove", event => {
    const box = svg.getBoundingClientRect();
    const x = (event.clientX - box.left) * svg.viewBox.baseVal.width / box.width;
    const part = Math.min(1, Math.max(0, (x - left) / (right - left)));
    const curves = data[key][choice.value], index = Math.round(part * (curves[0].length - 1));
    const at = low + (high - low) * index / (curves[0].length - 1);
    readout.textContent = (key === "pr" ? "recall " : "score ") + at.toFixed(2) + " · " + names.map((name, line) =>
      name + " " + (curves[line][index] === null ? "–" : (curves[line][index] / 1000).toFixed(3))).join(" · ");
    const place = left + (right - left) * index / (curves[0].length - 1);
    cursor.setAttribute("x1", place);
    cursor.setAttribute("x2", place);
    cursor.style.visibility = "visible";
  });
}
"""
    + SORT_SCRIPT
    + """
for (const box of document.querySelectorAll("[data-shows]")) {
  const show = () => document.body.classList.toggle("hide" + box.dataset.shows, !box.checked);
  box.addEventListener("change", show);
  show();
}

const dialog = document.querySelector("dialog");
for (const button of document.querySelectorAll(".shot button")) {
  button.addEventListener("click", () => {
    dialog.replaceChildren(button.querySelector("svg").cloneNode(true));
    dialog.showModal();
  });
}
if (dialog) dialog.addEventListener("click", () => dialog.close());
document.documentElement.dataset.ready = "yes";
"""
)
