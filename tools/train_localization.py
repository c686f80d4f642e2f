#!/usr/bin/env python3
"""Train and test a network that localises the class of an image (ImageNet LOC), from a config."""

from __future__ import annotations

from backbone.common.cli import Parser, run
from backbone.engine.arguments import add_run_arguments, launch_of, ran_seeds

EXAMPLE = (
    "tools/train_localization.py --config imagenet_loc_rpn_r101.yaml --data-root /data --weights resnet101.pth "
    "--num-gpus 8"
)


def main() -> None:
    parser = Parser(__doc__, EXAMPLE)
    add_run_arguments(parser)
    arguments = parser.parse_intermixed_args()
    if ran_seeds(arguments, "train_localization.py"):
        return
    # Behind the parser: --help and a wrong flag answer at once.
    from backbone.localization.session import make_request
    from backbone.localization.session import run as train

    request = make_request(arguments)
    train(request, launch_of(arguments, request.config.MODEL.DEVICE))


if __name__ == "__main__":
    run(main)
