#!/usr/bin/env python3
"""Evaluate predictions with COCO's figures: twelve for boxes and masks, ten for keypoints, and AP of each class.

The figures are those of pycocotools to the last digit. Does not need detectron2.

Example:
    python tools/evaluate.py --gt instances_val2017.json --predictions detections.json --json results.json
    python tools/evaluate.py --gt instances_val2017.json --predictions detections.json --iou-type bbox,segm
    python tools/evaluate.py --gt person_keypoints_val2017.json --predictions people.json --iou-type keypoints
"""

from __future__ import annotations

import argparse
from pathlib import Path

from backbone.cli import Parser, run
from backbone.engine.files import write_json
from backbone.errors import DataError, UserError
from detection.evaluation import ENGINES, IOU_TYPES, CocoMetrics, evaluate_coco

EXAMPLE = "python tools/evaluate.py --gt instances_val2017.json --predictions detections.json --json results.json"


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = Parser("Evaluate predictions with COCO's figures, identical to pycocotools's.", EXAMPLE)
    parser.add_argument("--gt", type=Path, required=True, help="ground truth: a COCO JSON file")
    parser.add_argument("--predictions", type=Path, required=True, help="a JSON file in COCO's results form")
    parser.add_argument(
        "--iou-type",
        action="append",
        metavar="TYPE[,TYPE]",
        help=f"{', '.join(IOU_TYPES)}; may be given more than once (default: {IOU_TYPES[0]})",
    )
    parser.add_argument("--engine", default="auto", help=f"auto, {', '.join(ENGINES)} (default: auto, the fastest)")
    parser.add_argument(
        "--max-detections",
        metavar="N[,N]",
        help="limits of detections per image and class (default: 1,10,100; keypoints: 20)",
    )
    parser.add_argument("--json", type=Path, metavar="OUT", help="write the figures as JSON")
    args = parser.parse_args()
    args.iou_type = list(dict.fromkeys(",".join(args.iou_type or IOU_TYPES[:1]).split(",")))
    args.max_detections = args.max_detections and [_limit(text) for text in args.max_detections.split(",")]
    return args


def _limit(text: str) -> int:
    if not text.strip().isdecimal():
        raise UserError(f"--max-detections: {text!r} is no positive integer; write them as 1,10,100")
    return int(text)


def check_output(args: argparse.Namespace) -> None:
    """Refuse, before any work, to write over an input or a folder."""
    inputs = {path.resolve() for path in (args.gt, args.predictions)}
    if args.json is not None and (args.json.is_dir() or args.json.resolve() in inputs):
        raise DataError(f"--json {args.json}: is a folder or an input; give the name of a new file")


def evaluate(args: argparse.Namespace) -> list[CocoMetrics]:
    """Evaluate the predictions once for each kind."""
    return [
        evaluate_coco(args.gt, args.predictions, kind, engine=args.engine, max_detections=args.max_detections)
        for kind in args.iou_type
    ]


def main() -> None:
    """Run the command line."""
    args = parse()
    check_output(args)
    results = evaluate(args)
    for metrics in results:
        print(f"{metrics.iou_type}: {args.predictions} on {args.gt} ({metrics.engine})\n\n{metrics.table()}\n")
    if args.json is not None:
        write_json(args.json, {kind: figures for metrics in results for kind, figures in metrics.to_json().items()})
        print(f"figures: {args.json}")


if __name__ == "__main__":
    run(main)
