#!/usr/bin/env python3
"""List the trained weights that can be had by name, for the networks of this project: from the tables of torchvision,
and of timm, detectron2 and OpenMMLab where they are installed. --weights of every command takes such a name."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from backbone.common.cli import Parser, run
from backbone.common.text import count, table
from backbone.common.waiting import say_importing

if TYPE_CHECKING:
    from backbone.weights.zoo_list import Entry

EXAMPLE = "tools/weights.py 'timm:resnet50*'"
HEADER = ("name", "network", "task", "classes", "published", "MiB", "licence", "images")


def make_parser() -> Parser:
    parser = Parser(__doc__, EXAMPLE)
    parser.add_argument(
        "pattern", nargs="?", default="", metavar="PATTERN", help="a part of the name, or a quoted shell pattern"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the list, with the sources of the files")
    return parser


def row_of(entry: Entry) -> list[object]:
    """Return the cells of an entry."""
    form = [key if value is True else f"{key} {value}" for key, value in entry.form.items()]
    published = [
        f"{metric} {value:g} ({data})"
        for data, values in entry.accuracy.items()
        for metric, value in values.items()
        if metric != "acc@5" and isinstance(value, (int, float))
    ]
    network = f"{entry.network} ({', '.join(form)})" if form else entry.network
    size = None if entry.mebibytes is None else round(entry.mebibytes)
    cells = [entry.name, network, entry.task, entry.classes, "; ".join(published) or None, size, entry.licence]
    return [*cells, entry.preprocessing and str(entry.preprocessing)]


def main() -> None:
    arguments = make_parser().parse_args()
    say_importing("torch")
    from backbone.common.files import write_json
    from backbone.weights.zoo_list import list_weights

    entries = list_weights(arguments.pattern)
    print(table([row_of(entry) for entry in entries], HEADER))
    print(f"{count(len(entries), 'name')}; '-' where the library's table does not say")
    if arguments.json:
        write_json(arguments.json, [entry.to_dict() for entry in entries])


if __name__ == "__main__":
    run(main)
