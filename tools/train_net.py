#!/usr/bin/env python3
"""Train and evaluate a detector from a config."""

from __future__ import annotations

from backbone.common.cli import Parser, run
from backbone.engine.arguments import add_run_arguments, launch_of

EXAMPLE = (
    "tools/train_net.py --config coco_faster_rcnn_r101.yaml --data-root /data --weights resnet101.pth --num-gpus 8"
)


def make_parser() -> Parser:
    parser = Parser(__doc__, EXAMPLE)
    add_run_arguments(parser)
    parser.add_argument(
        "--scheme",
        choices=("joint", "alternating"),
        help="RPN and Fast R-CNN together, or in the four steps of Faster R-CNN (else the config's SOLVER.SCHEME)",
    )
    parser.add_argument(
        "--data-cache",
        metavar="DIR",
        help="keep sets in COCO form there as arrays, or off (else the config's DATASETS.CACHE)",
    )
    own = parser.add_argument_group("your own data, in COCO form; classes follow from the JSON")
    for split in ("train", "val"):
        own.add_argument(f"--{split}-json", metavar="FILE")
        own.add_argument(f"--{split}-images", metavar="DIR")
    return parser


def main() -> None:
    arguments = make_parser().parse_intermixed_args()
    # Behind the parser: --help and a wrong flag answer at once.
    import detection

    detection.register()
    from detection.engine.session import make_request
    from detection.engine.session import run as train

    request = make_request(arguments)
    train(request, launch_of(arguments, request.config.MODEL.DEVICE))


if __name__ == "__main__":
    run(main)
