"""Style and script of a page with charts. Both stand in the page itself: it is read without a network."""

from __future__ import annotations

from .style import BASE_STYLE

STYLE = (
    BASE_STYLE
    + """/* A narrow page scrolls its tables: words stay whole, and cells of text have room for a few of them. */
.wide th, .wide td { word-break: normal; overflow-wrap: normal; }
.wide td:not(.number, .date, :first-child) { min-width: 9em; }
.wide td:last-child { min-width: 18em; }
svg .paper { stroke-width: 1; stroke-dasharray: 9 4; opacity: .75; }
.within::after { content: " ✓"; color: var(--c2); }
.outside::after { content: " ✗"; color: var(--bad); }
svg .drop { stroke: var(--weak); stroke-dasharray: 1 4; }
.tip { position: absolute; pointer-events: none; background: var(--back); border: 1px solid var(--rule);
  padding: 5px 9px; font-size: 12px; line-height: 1.45; white-space: nowrap;
  border-radius: 4px; box-shadow: 0 2px 8px #0003; }
.tip[hidden] { display: none; }
.tip td { padding: 0 8px 0 0; border: 0; }
.tip table { font-size: 12px; }
"""
)

SCRIPT = """
"use strict";
for (const chart of document.querySelectorAll(".chart")) {
  const source = chart.querySelector("script");
  if (!source) continue;
  const data = JSON.parse(source.textContent);
  const svg = chart.querySelector("svg"), cursor = svg.querySelector(".cursor");
  if (!data.series.length) continue;
  const tip = chart.appendChild(document.createElement("div"));
  tip.className = "tip";
  tip.hidden = true;
  const hide = () => { tip.hidden = true; cursor.style.visibility = "hidden"; };
  const nearest = (points, at) =>
    points.reduce((best, point) => Math.abs(point[0] - at) < Math.abs(best[0] - at) ? point : best);
  const cell = (row, text) => { row.insertCell().textContent = text; };
  svg.addEventListener("pointerleave", hide);
  svg.addEventListener("pointermove", event => {
    const box = svg.getBoundingClientRect(), size = data.width / box.width;
    const x = (event.clientX - box.left) * size;
    if (x < data.left || x > data.right) { hide(); return; }
    const at = (x - data.left) / (data.right - data.left) * data.iterations;
    const table = document.createElement("table");
    cell(table.insertRow(), "iteration " + Math.round(at).toLocaleString("en"));
    table.rows[0].cells[0].colSpan = 3;
    for (const line of data.series) {
      if (at > line.points[line.points.length - 1][0] * 1.02) continue;
      const row = table.insertRow(), swatch = document.createElement("span");
      swatch.className = "swatch c" + line.color;
      row.insertCell().append(swatch);
      cell(row, line.name);
      cell(row, nearest(line.points, at)[1].toFixed(data.digits) + data.unit);
    }
    tip.replaceChildren(table);
    tip.hidden = false;
    cursor.setAttribute("x1", x);
    cursor.setAttribute("x2", x);
    cursor.style.visibility = "visible";
    const left = event.clientX - box.left;
    tip.style.left = Math.max(0, left > box.width / 2 ? left - tip.offsetWidth - 14 : left + 14) + "px";
    tip.style.top = "40px";
  });
}
const smoothing = document.querySelector("#smoothing");
if (smoothing) smoothing.addEventListener("input", () => {
  const keep = Number(smoothing.value);
  for (const chart of document.querySelectorAll(".chart")) {
    const data = JSON.parse(chart.querySelector("script").textContent);
    const scaleX = (data.right - data.left) / data.iterations;
    const scaleY = (data.bottom - data.top) / (data.high - data.low);
    for (const line of chart.querySelectorAll("polyline[data-line]")) {
      let sum = 0, weight = 0;
      const points = data.series[line.dataset.line].points.map(([at, value]) => {
        sum = keep * sum + (1 - keep) * value;
        weight = keep * weight + (1 - keep);
        const x = data.left + at * scaleX, y = data.bottom - (sum / weight - data.low) * scaleY;
        return x.toFixed(1) + "," + y.toFixed(1);
      });
      line.setAttribute("points", points.join(" "));
    }
  }
});
"""
