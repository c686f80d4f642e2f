#!/usr/bin/env python3
"""Train and test a classifier on ImageNet, CIFAR-10 or a folder of images, from a config."""

from __future__ import annotations

from backbone.common.cli import Parser, run
from backbone.engine.arguments import add_run_arguments, launch_of, ran_seeds

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
    return parser


def main() -> None:
    arguments = make_parser().parse_intermixed_args()
    if ran_seeds(arguments, "pretrain.py"):
        return
    # Behind the parser: --help and a wrong flag answer at once.
    from backbone.classification.session import make_request
    from backbone.classification.session import run as train

    request = make_request(arguments)
    train(request, launch_of(arguments, request.config.MODEL.DEVICE))


if __name__ == "__main__":
    run(main)
