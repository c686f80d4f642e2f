"""Style of the report's page."""

from __future__ import annotations

from backbone.common.pages.report import REPORT_STYLE, SHOTS_STYLE

# Boxes in the colours of their kinds, and images with them. Black letters have a contrast of 5 and more on each.
SHOT_STYLE = (
    SHOTS_STYLE
    + """
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
.blank { fill: var(--panel); stroke: var(--rule); }
.box:not(.caption) > rect { fill: none; stroke: var(--k); stroke-width: 2px; vector-effect: non-scaling-stroke; }
.box.kMiss:not(.caption) > rect { stroke-dasharray: 6 4; stroke-width: 3px; fill: #18a34a22; }
.box.kIgnored:not(.caption) > rect { stroke-dasharray: 2 4; }
.box circle { fill: var(--k); stroke: #fff; stroke-width: .7px; }
.caption.box { display: none; }
.caption rect { fill: var(--k); }
svg .caption .words { fill: #000; font-family: system-ui, sans-serif; font-size: inherit; }
"""
)

STYLE = (
    REPORT_STYLE
    + SHOT_STYLE
    + """
.kinds td, .kinds tbody th { vertical-align: middle; }
.readout { min-height: 1.5em; margin: 2px 0 0 48px; font-size: 13px; color: var(--weak);
  font-variant-numeric: tabular-nums; }
svg .bin { fill-opacity: .55; stroke: none; }
line.best { stroke: var(--weak); stroke-dasharray: 5 3; }
text.best { fill: var(--text); }
.switches { border: 0; padding: 0; margin: 8px 0 14px; display: flex; flex-wrap: wrap; gap: 4px 16px; font-size: 14px; }
.switches legend { float: left; margin-right: 16px; color: var(--weak); }
.hideTruth .kTruth.box, .hideTruth .kIgnored.box, .hideMiss .kMiss.box, .hideCls .kCls.box, .hideLoc .kLoc.box,
.hideBoth .kBoth.box, .hideDupe .kDupe.box, .hideBkg .kBkg.box, .hideRight .kRight.box { display: none; }
/* Errors first: the names of found objects and of right detections on request. */
dialog .box.caption { display: inline; }
dialog:not(.all) .caption.box:is(.kTruth, .kIgnored, .kRight) { display: none; }
dialog:not(.all) .box:is(.kTruth, .kIgnored, .kRight) > rect { stroke-width: 1px; }
dialog.all .box.box { display: inline; }
@media (max-width: 640px) {
  /* What a kind is stands below its row. */
  .kinds thead th:nth-child(2), .kinds thead th:nth-child(3) { display: none; }
  .kinds tr { display: grid; grid-template-columns: 4.6em 1fr 3.9em 3.9em 4.4em; align-items: end;
    border-bottom: 1px solid var(--rule); padding: 4px 0; }
  .kinds thead th:first-child { grid-column: 1 / 3; }
  .kinds thead { font-size: 12px; }
  .kinds th, .kinds td { border: 0; padding: 2px 4px 2px 0; }
  .kinds td:nth-child(2) { grid-row: 2; grid-column: 1 / -1; color: var(--weak); font-size: 13px; }
  .kinds .bar { max-width: 100%; }
}
@media print {
  .switches, details:not([open]) { display: none; }
}
"""
)
