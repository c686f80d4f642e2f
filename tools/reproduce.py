#!/usr/bin/env python3
"""Run or resume the rows of one of the paper's tables, and write paper against measured with curves.

Runs stand in OUTPUT/runs/<config>, reports in OUTPUT/table<N>.md and .html. What is done is not run again."""

from __future__ import annotations

import argparse
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from backbone.common.cli import Parser, run
from backbone.common.waiting import say_importing

if TYPE_CHECKING:
    from reproduction import Table

EXAMPLE = """tools/reproduce.py --table 6 --data-root /data/cifar10 --rows ResNet-20 --rows plain-20
  tools/reproduce.py --table 3 --data-root /data/imagenet --num-gpus 8
  tools/reproduce.py --table 6 --data-root /data/cifar10 --scale 0.01 --jobs 4
  tools/reproduce.py --table 2 --report-only
  tools/reproduce.py --table 9 --data-root /data --weights resnet101=resnet101.pth --num-gpus 8"""
CLASSIFICATION, DETECTION = ("2", "3", "4", "6"), ("7", "8", "9", "10", "11", "12")
LOCALIZATION = ("13", "14")


def share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"must be above 0 and at most 1, not {text!r}")
    return value


def positive(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"must be a whole number above 0, not {text!r}")
    return int(text)


def network_weights(text: str) -> tuple[str, str]:
    network, sign, file = text.partition("=")
    if not (network and sign and file):
        raise argparse.ArgumentTypeError(f"must be NETWORK=FILE, such as resnet101=resnet101.pth, not {text!r}")
    return network, file


def make_parser() -> Parser:
    parser = Parser(__doc__, EXAMPLE)
    parser.add_argument(
        "--table", required=True, choices=(*CLASSIFICATION, *DETECTION, *LOCALIZATION), help="of the paper"
    )
    parser.add_argument(
        "--rows", action="append", metavar="NAME", help="run this row alone; may be given several times (else all)"
    )
    parser.add_argument("--data-root", type=Path, metavar="DIR", help="root of the data set, for all rows")
    parser.add_argument(
        "--output-dir", type=Path, metavar="DIR", help="(else output/reproduce, or output/reproduce_scale_<S>)"
    )
    parser.add_argument(
        "--weights",
        action="append",
        type=network_weights,
        default=[],
        metavar="NETWORK=FILE",
        help="Tables 7 to 14: pretrained weights to start from, as resnet101=FILE, vgg16=FILE (else random weights)",
    )
    parser.add_argument("--scale", type=share, default=1.0, metavar="S", help="shorten every schedule, as 0.01")
    parser.add_argument("--report-only", action="store_true", help="run nothing, report what is there")
    parser.add_argument("--jobs", type=positive, default=1, metavar="N", help="rows at once, on the same device")
    parser.add_argument("--device", choices=("cuda", "cpu"), help="(else a GPU if there is one)")
    processes = parser.add_mutually_exclusive_group()
    processes.add_argument("--num-gpus", type=positive, metavar="N", help="processes of each row, one a GPU")
    processes.add_argument("--num-processes", type=positive, metavar="N", help="the same, on a CPU too")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures")
    parser.add_argument("overrides", nargs="*", metavar="KEY VALUE", help="config keys of every row")
    return parser


def passed_on(arguments: Namespace) -> tuple[str, ...]:
    """Return the flags that every row's command gets as they are."""
    flags = {
        "--device": arguments.device,
        "--num-gpus": arguments.num_gpus,
        "--num-processes": arguments.num_processes,
    }
    return tuple(part for flag, value in flags.items() if value is not None for part in (flag, str(value)))


def table_of(number: str) -> Table:
    """Return a table; detectron2 is needed for those of detection alone."""
    if number in DETECTION:
        from reproduction.tables import detection_table

        return detection_table(number)
    if number in LOCALIZATION:
        from reproduction.localization import localization_table

        return localization_table(number)
    from reproduction.classification import classification_table

    return classification_table(number)


def main() -> int:
    arguments = make_parser().parse_intermixed_args()
    # Behind the parser: --help and a wrong flag answer at once.
    say_importing("torch", *(["detectron2"] if arguments.table in DETECTION else []))
    from reproduction import Request, reproduce

    request = Request(
        table=table_of(arguments.table),
        rows=tuple(arguments.rows or ()),
        data_root=arguments.data_root,
        output=arguments.output_dir,
        scale=arguments.scale,
        flags=passed_on(arguments),
        overrides=tuple(arguments.overrides),
        weights=dict(arguments.weights),
        jobs=arguments.jobs,
        report_only=arguments.report_only,
        json=arguments.json,
    )
    return 0 if reproduce(request, lambda line: print(line, flush=True)) else 1


if __name__ == "__main__":
    run(main)
