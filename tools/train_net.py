#!/usr/bin/env python3
"""Train and evaluate a detector from a config."""

from __future__ import annotations

from backbone.common.cli import Parser, run
from backbone.engine.arguments import add_run_arguments, train

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
    own = parser.add_argument_group(
        "your own data; the form is found out (COCO, LVIS, PASCAL VOC, YOLO, CSV), and classes follow from it"
    )
    own.add_argument("--train", metavar="PATH", help="a file of annotations, or the folder of a data set")
    own.add_argument("--val", metavar="PATH", help="the same, to test on (else the part for it in --train)")
    own.add_argument("--split", type=float, metavar="SHARE", help="hold out a share of --train in place of --val")
    for split in ("train", "val"):
        own.add_argument(f"--{split}-images", metavar="DIR", help="the images' folder, where it is not found")
        own.add_argument(f"--{split}-json", metavar="FILE", help=f"COCO JSON, with --{split}-images; as --{split}")
    return parser


def main() -> None:
    train(make_parser(), "train_net.py")


if __name__ == "__main__":
    run(main)
