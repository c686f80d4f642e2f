#!/usr/bin/env python3
"""Compare runs: where they stand, their figures, the keys in which they differ, their worst classes and curves."""

from __future__ import annotations

from pathlib import Path

from backbone.common.cli import Parser, run
from backbone.common.waiting import say_importing

EXAMPLE = "tools/runs.py output/ --html runs.html"


def make_parser() -> Parser:
    parser = Parser(__doc__, EXAMPLE)
    parser.add_argument("folder", type=Path, metavar="DIR", help="a run folder, or a folder with run folders below it")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write one page with the tables and all curves")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures of each run")
    return parser


def main() -> None:
    arguments = make_parser().parse_args()
    say_importing("torch")
    from backbone.common.files import write_json, write_text
    from backbone.engine import comparison
    from backbone.engine.curves import comparison_page

    runs = comparison.find_runs(arguments.folder)
    print(comparison.text(runs))
    if arguments.html:
        write_text(arguments.html, comparison_page(runs))
        print(f"page {arguments.html}")
    if arguments.json:
        write_json(arguments.json, {one.name: {"state": one.state, **one.figures} for one in runs})


if __name__ == "__main__":
    run(main)
