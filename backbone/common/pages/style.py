"""What the pages look like, in light and in dark."""

from __future__ import annotations

LIGHT = ("#0072b2", "#d55e00", "#00875f", "#a6468f", "#b07d00", "#333333", "#3f9bd8", "#8c564b")
DARK = ("#5ab0f0", "#ff9050", "#35cfa0", "#e391cb", "#e8bd55", "#e4e4e4", "#a5d8ff", "#cfa396")
"""Colours of curves, classes c0 to c7 of the page."""

_CLASSES = "\n".join(
    f".c{index} {{ stroke: var(--c{index}); fill: var(--c{index}); background: var(--c{index}); }}"
    for index in range(len(LIGHT))
)


def _variables(colors: tuple[str, ...]) -> str:
    return " ".join(f"--c{index}: {color};" for index, color in enumerate(colors))


BASE_STYLE = f"""
:root {{ color-scheme: light dark; --back: #ffffff; --text: #1c1e21; --weak: #666b73; --rule: #dfe2e6;
  --panel: #f5f6f8; --focus: #0072b2; --bad: #b34700;
  {_variables(LIGHT)} }}
@media (prefers-color-scheme: dark) {{ :root {{ --back: #15171a; --text: #e8eaed; --weak: #9aa0a8; --rule: #34383e;
  --panel: #1e2125; --focus: #5ab0f0; --bad: #ff9050;
  {_variables(DARK)} }} }}
body {{ margin: 0; background: var(--back); color: var(--text); font: 15px/1.5 system-ui, sans-serif; }}
main {{ max-width: 1080px; margin: 0 auto; padding: 24px 20px 60px; }}
h1 {{ font-size: 22px; line-height: 1.3; overflow-wrap: anywhere; }}
h2 {{ font-size: 17px; margin: 34px 0 8px; }}
.wide {{ overflow-x: auto; }}
table {{ border-collapse: collapse; font-size: 14px; }}
th, td {{ text-align: left; vertical-align: top; padding: 5px 14px 5px 0; border-bottom: 1px solid var(--rule); }}
td:first-child, .date {{ white-space: nowrap; }}
th {{ color: var(--weak); font-weight: 600; }}
.number {{ text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }}
th.number {{ white-space: normal; }}
.panels {{ display: grid; grid-template-columns: repeat(auto-fit, minmax(min(420px, 100%), 1fr)); gap: 20px; }}
.chart {{ position: relative; margin: 0; max-width: 620px; }}
.chart svg {{ display: block; width: 100%; height: auto; touch-action: pan-y; }}
svg text {{ fill: var(--weak); font-size: 12px; }}
svg .title {{ fill: var(--text); font-size: 14px; font-weight: 600; }}
svg .empty {{ font-size: 15px; }}
svg .grid {{ stroke: var(--rule); }}
svg .axis {{ stroke: var(--weak); fill: none; }}
svg .cursor {{ stroke: var(--weak); stroke-dasharray: 2 3; visibility: hidden; }}
{_CLASSES}
svg .line {{ fill: none; stroke-width: 2.2; stroke-linejoin: round; }}
svg .dashed {{ stroke-width: 1.1; stroke-dasharray: 5 3; }}
.legend {{ list-style: none; display: flex; flex-wrap: wrap; gap: 2px 18px; margin: 2px 0 0 50px; padding: 0;
  font-size: 13px; }}
.swatch {{ display: inline-block; width: 16px; height: 4px; margin-right: 6px; vertical-align: middle; }}
.last, .note {{ color: var(--weak); }}
.note {{ font-size: 13px; }}
/* On paper: light, with all colours, nothing that scrolls or waits for a pointer, and no row or picture in two. */
@media print {{
  :root {{ color-scheme: only light; --back: #ffffff; --text: #1c1e21; --weak: #555a61; --rule: #c9cdd2;
    --panel: #f5f6f8; --focus: #0072b2; --bad: #b34700;
    {_variables(LIGHT)} print-color-adjust: exact; }}
  @page {{ margin: 14mm; }}
  body {{ font-size: 10pt; }}
  main {{ max-width: none; padding: 0; }}
  h1, h2, h3, h4 {{ break-after: avoid; }}
  tr, figure, .chart {{ break-inside: avoid; }}
  .wide {{ overflow: visible; }}
  table {{ font-size: 9pt; }}
  th, td {{ padding: 2px 8px 2px 0; }}
  nav, input, select, .tip, .readout, .cursor {{ display: none !important; }}
  .panels {{ grid-template-columns: 1fr 1fr; }}
}}
"""
