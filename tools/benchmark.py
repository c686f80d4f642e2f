#!/usr/bin/env python3
"""Measure speed and memory against the peers; write the results into docs/results.md."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from backbone.common.cli import Parser, run
from backbone.common.waiting import say_importing

EXAMPLE = "tools/benchmark.py inference --backbone resnet50 resnet101 --write docs/results.md"
BENCHMARKS = ("inference", "training", "detectors", "pretraining", "evaluation", "input", "loader", "product")
DETECTORS = ("r50_fpn", "r50_c4", "r101_fpn", "r101_c4")
PRECISIONS = ("float32", "bfloat16")


def make_parser() -> Parser:
    parser = Parser(__doc__, EXAMPLE)
    parser.add_argument("what", nargs="+", choices=BENCHMARKS, help="which benchmarks")
    parser.add_argument("--backbone", nargs="+", default=["resnet50", "resnet101"], metavar="NAME")
    parser.add_argument("--size", nargs=2, type=int, metavar=("H", "W"), help="of the images (else each one's own)")
    parser.add_argument(
        "--detectors",
        nargs="+",
        choices=DETECTORS,
        default=(),
        help="for detectors and product (else all; on a CPU those of r50)",
    )
    parser.add_argument(
        "--batch", type=int, metavar="N", help="images in a training step (else 2; pretraining: 256, on a CPU 8)"
    )
    parser.add_argument(
        "--regions", type=int, metavar="N", help="of an image in the second stage, for detectors (else detectron2's)"
    )
    parser.add_argument(
        "--precision", nargs="+", choices=PRECISIONS, default=PRECISIONS, help="of detectors (default: both)"
    )
    parser.add_argument("--rounds", type=int, default=7, metavar="N", help="rounds counted (default: 7)")
    parser.add_argument(
        "--seconds",
        type=float,
        metavar="S",
        help="after which no other round of detectors, pretraining or inference begins",
    )
    parser.add_argument("--device", choices=("cuda", "cpu"), help="(else a GPU if there is one)")
    parser.add_argument(
        "--compile",
        action=argparse.BooleanOptionalAction,
        help="time the compiled detectors and classifiers (else on a GPU alone: they compile for minutes)",
    )
    parser.add_argument(
        "--workers", type=int, default=-1, metavar="N", help="loader processes, for pretraining (else one a core, to 8)"
    )
    parser.add_argument("--no-exports", action="store_true", help="leave ONNX Runtime and OpenVINO out")
    parser.add_argument(
        "--images", type=Path, metavar="FOLDER", help="of image files, for input, pretraining and product"
    )
    parser.add_argument(
        "--data-root",
        type=Path,
        metavar="DIR",
        help="that holds coco, for loader (else $DETECTRON2_DATASETS, ./datasets) and detectors (else drawn images)",
    )
    parser.add_argument("--write", type=Path, metavar="FILE", help="write the sections into this Markdown file")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures")
    return parser


def main() -> None:
    parser = make_parser()
    arguments = parser.parse_args()
    if "input" in arguments.what and arguments.images is None:
        parser.error("input needs --images FOLDER, some hundred image files of the data set")
    if "product" in arguments.what and arguments.images is None:
        parser.error("product needs --images FOLDER, some image files")
    say_importing("torch", "detectron2")
    import torch

    import detection

    detection.register()
    from backbone.common.files import write_json

    # The benchmarks are part of the checkout, not of the installed packages.
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from benchmarks.report import write_section
    from benchmarks.suite import run_all

    device = arguments.device or ("cuda" if torch.cuda.is_available() else "cpu")
    sections = run_all(
        arguments.what,
        names=arguments.backbone,
        size=tuple(arguments.size) if arguments.size else None,
        batch=arguments.batch,
        rounds=arguments.rounds,
        device=device,
        exports=not arguments.no_exports and device == "cpu",
        images=arguments.images,
        data_root=arguments.data_root,
        compiled=arguments.compile,
        whole=arguments.detectors,
        workers=arguments.workers,
        regions=arguments.regions,
        precisions=arguments.precision,
        seconds=arguments.seconds,
    )
    figures = {}
    for section in sections:
        print(section.text(device), end="\n\n", flush=True)
        figures[section.name] = section.figures
        # At once: who stops the command keeps what was measured.
        if arguments.write:
            write_section(arguments.write, section, device)
        if arguments.json:
            write_json(arguments.json, figures)


if __name__ == "__main__":
    run(main)
