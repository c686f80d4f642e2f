#!/usr/bin/env python3
"""Train and test a classifier on ImageNet, CIFAR or images of your own, from a config."""

from __future__ import annotations

from backbone.common.cli import Parser, run
from backbone.engine.arguments import add_run_arguments, train

EXAMPLE = "tools/pretrain.py --config imagenet_resnet50.yaml --data-root /data/imagenet --num-gpus 8"
PROTOCOLS = ("single", "1crop", "10crop", "dense", "all")


def make_parser() -> Parser:
    parser = Parser(__doc__, EXAMPLE)
    add_run_arguments(parser)
    parser.add_argument(
        "--protocol", action="append", choices=PROTOCOLS, help="test this way at the end; may be given several times"
    )
    parser.add_argument(
        "--ensemble", action="append", metavar="FILE", help="with --eval-only: average --weights with these weights too"
    )
    own = parser.add_argument_group(
        "your own data; the form is found out (a folder a class, tar shards, CSV), and classes follow from it"
    )
    own.add_argument("--train", metavar="PATH", help="a folder, .zip, .tar or .csv")
    own.add_argument("--val", metavar="PATH", help="the same, to test on (else the part for it in --train)")
    own.add_argument(
        "--split", type=float, metavar="SHARE", help="hold out a share of --train in place of --val (else 0.1)"
    )
    for split in ("train", "val"):
        own.add_argument(f"--{split}-images", metavar="DIR", help="the images' folder of a CSV, where it is not found")
    return parser


def main() -> None:
    train(make_parser(), "pretrain.py")


if __name__ == "__main__":
    run(main)
