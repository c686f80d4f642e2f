#!/usr/bin/env python3
"""List every config key of every task, with its default and its meaning, in Markdown."""

from __future__ import annotations

from pathlib import Path

from backbone.common.cli import Parser, run
from backbone.common.waiting import say_importing

EXAMPLE = "tools/config_keys.py --write docs/config_keys.md"


def make_parser() -> Parser:
    parser = Parser(__doc__, EXAMPLE)
    parser.add_argument("--write", type=Path, metavar="FILE", help="write the page there (else print it)")
    return parser


def main() -> None:
    arguments = make_parser().parse_args()
    say_importing("torch", "detectron2")
    import detection

    detection.register()
    from backbone.common.files import write_text
    from detection.config.key_table import key_page

    if arguments.write:
        write_text(arguments.write, key_page())
    else:
        print(key_page(), end="")


if __name__ == "__main__":
    run(main)
