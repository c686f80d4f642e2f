"""Script of the report's page."""

from __future__ import annotations

from backbone.common.pages.report import REPORT_SCRIPT

_CURVES = """
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
function mark(svg, best) {
  const line = svg.querySelector("line.best"), words = svg.querySelector("text.best");
  if (!line) return;
  for (const part of [line, words]) part.style.display = best ? "" : "none";
  if (!best) return;
  const x = left + (right - left) * best[1];
  line.setAttribute("x1", x);
  line.setAttribute("x2", x);
  words.setAttribute("x", best[1] > 0.5 ? x - 5 : x + 5);
  words.setAttribute("text-anchor", best[1] > 0.5 ? "end" : "start");
  words.textContent = "best F1 at " + best[0].toFixed(2);
}
function redraw() {
  for (const svg of charts) {
    const curves = data[svg.dataset.curves][choice.value];
    svg.querySelectorAll(".line").forEach((line, index) => line.setAttribute("points", points(curves[index])));
    mark(svg, data.best[choice.value]);
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

_IMAGES = """
for (const box of document.querySelectorAll("[data-shows]")) {
  const show = () => document.body.classList.toggle("hide" + box.dataset.shows, !box.checked);
  box.addEventListener("change", show);
  show();
}
const names = document.querySelector("dialog [data-names]");
if (names) names.addEventListener("change", () => names.closest("dialog").classList.toggle("all", names.checked));
document.documentElement.dataset.ready = "yes";
"""

SCRIPT = _CURVES + REPORT_SCRIPT + _IMAGES
