#!/usr/bin/env python3
"""Train and test a network that localises the class of an image (ImageNet LOC), from a config."""

from __future__ import annotations

from backbone.common.cli import Parser, run
from backbone.engine.arguments import add_run_arguments, train

EXAMPLE = (
    "tools/train_localization.py --config imagenet_loc_rpn_r101.yaml --data-root /data --weights resnet101.pth "
    "--num-gpus 8"
)


def make_parser() -> Parser:
    parser = Parser(__doc__, EXAMPLE)
    add_run_arguments(parser)
    return parser


def main() -> None:
    train(make_parser(), "train_localization.py")


if __name__ == "__main__":
    run(main)
