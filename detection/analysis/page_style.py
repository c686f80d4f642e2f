"""Style of the report's page."""

from __future__ import annotations

from backbone.common.pages.confusion import MATRIX_STYLE
from backbone.common.pages.style import BASE_STYLE
from backbone.common.pages.tables import TABLE_STYLE

# Boxes in the colours of their kinds, and images with them. Black letters have a contrast of 5 and more on each.
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
.shot[hidden] { display: none; }
.shot svg { display: block; width: 100%; height: auto; max-height: 330px;
  background: var(--panel); border-radius: 4px; }
figcaption { font-size: 13px; color: var(--weak); margin-top: 4px; overflow-wrap: anywhere; }
figcaption strong { color: var(--text); font-weight: 600; }
.blank { fill: var(--panel); stroke: var(--rule); }
.box:not(.caption) > rect { fill: none; stroke: var(--k); stroke-width: 2px; vector-effect: non-scaling-stroke; }
.box.kMiss:not(.caption) > rect { stroke-dasharray: 6 4; stroke-width: 3px; fill: #18a34a22; }
.box.kIgnored:not(.caption) > rect { stroke-dasharray: 2 4; }
.box circle { fill: var(--k); stroke: #fff; stroke-width: .7px; }
.caption.box { display: none; }
.caption rect { fill: var(--k); }
svg .caption .words { fill: #000; font-family: system-ui, sans-serif; font-size: inherit; }
@media print { .shots { grid-template-columns: 1fr 1fr; } .shot svg { max-height: 60mm; } }
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
.first { font-size: 17px; font-weight: 600; }
.tiles { display: grid; grid-template-columns: repeat(6, 1fr); gap: 8px; margin: 14px 0; padding: 0; }
.tiles div { background: var(--panel); border-radius: 6px; padding: 7px 10px; }
.tiles dt { color: var(--weak); font-size: 12px; }
.tiles dd { margin: 0; font-size: 19px; font-variant-numeric: tabular-nums; }
.kinds td, .kinds tbody th { vertical-align: middle; }
.readout { min-height: 1.5em; margin: 2px 0 0 48px; font-size: 13px; color: var(--weak);
  font-variant-numeric: tabular-nums; }
svg .bin { fill-opacity: .55; stroke: none; }
line.best { stroke: var(--weak); stroke-dasharray: 5 3; }
text.best { fill: var(--text); }
.switches { border: 0; padding: 0; margin: 8px 0 14px; display: flex; flex-wrap: wrap; gap: 4px 16px; font-size: 14px; }
.switches legend { float: left; margin-right: 16px; color: var(--weak); }
.chosen button { all: unset; cursor: pointer; color: var(--focus); text-decoration: underline; margin-left: 8px; }
.chosen button:focus-visible { outline: 2px solid var(--focus); outline-offset: 2px; }
.shot button { all: unset; cursor: zoom-in; display: block; width: 100%; }
.shot button:focus-visible { outline: 3px solid var(--focus); outline-offset: 2px; }
.hideTruth .kTruth.box, .hideTruth .kIgnored.box, .hideMiss .kMiss.box, .hideCls .kCls.box, .hideLoc .kLoc.box,
.hideBoth .kBoth.box, .hideDupe .kDupe.box, .hideBkg .kBkg.box, .hideRight .kRight.box { display: none; }
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
/* Errors first: the names of found objects and of right detections on request. */
dialog .box.caption { display: inline; }
dialog:not(.all) .caption.box:is(.kTruth, .kIgnored, .kRight) { display: none; }
dialog:not(.all) .box:is(.kTruth, .kIgnored, .kRight) > rect { stroke-width: 1px; }
dialog.all .box.box { display: inline; }
@media (max-width: 640px) {
  .tiles { grid-template-columns: repeat(3, 1fr); }
  /* What a kind is stands below its row. */
  .kinds thead th:nth-child(2), .kinds thead th:nth-child(3) { display: none; }
  .kinds tr { display: grid; grid-template-columns: 4.6em 1fr 3.4em 3.8em 4.4em; align-items: end;
    border-bottom: 1px solid var(--rule); padding: 4px 0; }
  .kinds thead th:first-child { grid-column: 1 / 3; }
  .kinds th, .kinds td { border: 0; padding: 2px 4px 2px 0; }
  .kinds td:nth-child(2) { grid-row: 2; grid-column: 1 / -1; color: var(--weak); font-size: 13px; }
  .kinds .bar { max-width: 100%; }
}
@media print {
  .switches, .chosen, dialog, details:not([open]) { display: none; }
  .tiles { break-inside: avoid; }
}
"""
)
