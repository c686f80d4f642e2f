#!/usr/bin/env python3
"""Convert a data set between COCO, YOLO and PASCAL VOC; LVIS and CSV are read too. The boxes stay what they are."""

from __future__ import annotations

from pathlib import Path

from backbone.common.cli import Parser, run
from backbone.common.text import count
from backbone.common.waiting import say_reading

EXAMPLE = "tools/convert_data.py --train my_data --to yolo --output my_data_yolo"
PARTS = ("train", "val", "test")


def make_parser() -> Parser:
    parser = Parser(__doc__, EXAMPLE)
    for part in PARTS:
        extra = "" if part == "train" else " (else the part for it in --train)"
        parser.add_argument(f"--{part}", metavar="PATH", help=f"a set in any form, as of tools/train_net.py{extra}")
        parser.add_argument(f"--{part}-images", metavar="DIR", help="the images' folder, where it is not found")
    parser.add_argument("--to", required=True, choices=("coco", "yolo", "voc"), help="the form to write")
    parser.add_argument("--output", required=True, type=Path, metavar="DIR", help="a new folder; images are copied")
    return parser


def main() -> None:
    parser = make_parser()
    arguments = parser.parse_args()
    from detection.data.checks import check_coco, raise_on_errors
    from detection.data.own import find_place, has_part, read_place
    from detection.data.own.writing import write_parts

    parts, classes = {}, None
    for part in PARTS:
        path, images = getattr(arguments, part), getattr(arguments, f"{part}_images")
        if path is None and arguments.train is not None and has_part(arguments.train, part):
            path = arguments.train
        if path is None:
            continue
        place = find_place(path, part, images)
        say_reading(place.source)
        own = read_place(place, classes)
        faults = own.faults if own.data is None else [*own.faults, *check_coco(own.data, own.folder, source=path)]
        raise_on_errors(faults, str(own.place.source), flags=own.place.flags)
        parts[part] = own
        if own.place.form != "coco":
            classes = [category["name"] for category in own.data["categories"]]
        print(f"{part}: {own.place.title}, {own.place.source}")
    if not parts:
        parser.error("give --train, --val or --test")
    told = write_parts(parts, arguments.to, arguments.output)
    left = f"; {count(told['left out'], 'crowd')} left out, the form has none" if told["left out"] else ""
    print(f"{count(told['images'], 'image')}, {count(told['objects'], 'object')} in {arguments.output}{left}")


if __name__ == "__main__":
    run(main)
