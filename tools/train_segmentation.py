#!/usr/bin/env python3
"""Train and test a dilated ResNet for semantic segmentation, from a config."""

from __future__ import annotations

from backbone.common.cli import Parser, run
from backbone.engine.arguments import add_run_arguments, train

EXAMPLE = (
    "tools/train_segmentation.py --config voc_deeplabv3_r50.yaml --data-root /data --weights resnet50.pth --num-gpus 8"
)


def make_parser() -> Parser:
    parser = Parser(__doc__, EXAMPLE)
    add_run_arguments(parser)
    parser.add_argument(
        "--save-predictions", metavar="DIR", help="write the predicted label images there, PNG with VOC's palette"
    )
    parser.add_argument("--json", metavar="FILE", help="write the results there too")
    own = parser.add_argument_group(
        "your own data: a folder with label images, or a COCO JSON file; the form is found out (docs/segmentation.md)"
    )
    own.add_argument("--train", metavar="PATH", help="to train on")
    own.add_argument("--val", metavar="PATH", help="to test on (else the part for it in --train)")
    own.add_argument("--split", type=float, metavar="SHARE", help="hold out a share of --train in place of --val")
    for split in ("train", "val"):
        own.add_argument(f"--{split}-images", metavar="DIR", help="the images' folder of a JSON file")
    return parser


def main() -> None:
    train(make_parser(), "train_segmentation.py")


if __name__ == "__main__":
    run(main)
