#!/usr/bin/env python3
"""What a backbone costs, stage by stage: parameters, multiply-adds, activations, receptive field and memory; or how its
layers respond (Fig. 7 of the paper)."""

from __future__ import annotations

import argparse
from pathlib import Path

from backbone.common.cli import Parser, run
from backbone.common.waiting import passing, say_importing

EXAMPLE = """tools/analyze.py --backbone resnet101 --input-size 800 1216 --num-classes none --json r101.json
  tools/analyze.py --all
  tools/analyze.py --responses --images cifar10.npz --weights cifar_resnet20=resnet20.th --output responses"""

SIZE_FLAGS = {"input_size", "batch_size", "freeze_at"}
FLAGS = {
    "backbone": SIZE_FLAGS
    | {
        "num_classes",
        "out_features",
        "output_stride",
        "norm",
        "stride_in_1x1",
        "shortcut",
        "stem",
        "in_chans",
        "effective",
    },
    "all": SIZE_FLAGS,
    "responses": {"networks", "images", "num_images", "weights", "output", "seed"},
}


def classes(text: str) -> int | None:
    if text == "none":
        return None
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"must be a number or none, not {text!r}")
    return int(text)


def make_parser() -> Parser:
    parser = Parser(__doc__, EXAMPLE)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--backbone", metavar="NAME", help="one network, stage by stage")
    what.add_argument("--all", action="store_true", help="every network, one line each")
    what.add_argument("--responses", action="store_true", help="layer responses, to PNG and CSV")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures")

    # What is not given is left out, so that defaults stand where the figures are made.
    left_out = {"argument_default": argparse.SUPPRESS}
    costs = parser.add_argument_group("--backbone and --all", **left_out)
    costs.add_argument("--input-size", nargs=2, type=int, metavar=("H", "W"), help="(default: of its classifier)")
    costs.add_argument("--batch-size", type=int, metavar="N", help="images (default: 1)")
    costs.add_argument("--freeze-at", type=int, metavar="N", help="frozen stages with frozen BN (default: 2)")

    one = parser.add_argument_group("--backbone", **left_out)
    one.add_argument("--num-classes", type=classes, metavar="N", help="or none (default: of ImageNet or CIFAR-10)")
    one.add_argument("--out-features", nargs="+", metavar="STAGE", help="deeper stages are not built")
    one.add_argument("--output-stride", type=int, metavar="N", help="32, 16 or 8")
    one.add_argument("--norm", metavar="NAME", help="bn, frozen_bn, sync_bn or gn (default: bn)")
    one.add_argument("--stride-in-1x1", action="store_true", help="as in the paper, not in the 3x3")
    one.add_argument("--shortcut", metavar="X", help="option A, B or C of the paper")
    one.add_argument("--stem", metavar="NAME", help="conv7 or deep")
    one.add_argument("--in-chans", type=int, metavar="N", help="channels of the images (default: 3)")
    one.add_argument("--effective", type=int, metavar="N", help="measure effective receptive fields on N noise images")

    responses = parser.add_argument_group("--responses", **left_out)
    responses.add_argument("--networks", nargs="+", metavar="NAME", help="(default: those of the paper's Fig. 7)")
    responses.add_argument("--images", "--data", type=Path, metavar="PATH", help=".npz or folder (else made up)")
    responses.add_argument("--num-images", type=int, metavar="N", help="(default: 256)")
    responses.add_argument("--weights", nargs="+", metavar="NETWORK=FILE", help="(else untrained)")
    responses.add_argument("--output", type=Path, metavar="DIR", help="(default: output/responses)")
    responses.add_argument("--seed", type=int, metavar="N", help="of untrained weights (default: 0)")
    return parser


def read_arguments() -> tuple[str, argparse.Namespace, dict]:
    """Return the mode, what is common to all, and the flags that were given."""
    parser = make_parser()
    arguments = parser.parse_args()
    mode = "all" if arguments.all else "responses" if arguments.responses else "backbone"
    given = {
        key: value for key, value in vars(arguments).items() if key not in ("backbone", "all", "responses", "json")
    }
    for key in given:
        if key not in FLAGS[mode]:
            parser.error(f"--{key.replace('_', '-')} is not for --{mode}")
    if "input_size" in given:
        given["size"] = tuple(given.pop("input_size"))
    return mode, arguments, given


def analyse_one(name: str, given: dict) -> dict:
    from backbone.analysis import analyse, measure_effective_fields, network_table, to_json

    samples = given.pop("effective", None)
    report, effective = analyse(name, **given), None
    if samples is not None:
        network = {key: value for key, value in given.items() if key not in ("batch_size", "freeze_at")}
        effective = measure_effective_fields(name, samples=samples, **network)
    channels = given.get("in_chans", 3)
    print(f"{name}, {report.batch_size} x {channels} x {report.input_size[0]} x {report.input_size[1]}\n")
    print(network_table(report, effective))
    return to_json(report, effective)


def analyse_all(given: dict) -> dict:
    from backbone import list_backbones
    from backbone.analysis import analyse, summary_table, to_json

    names = passing(list_backbones(), "analysing", unit="network", plural="networks")
    reports = [analyse(name, **given) for name in names]
    print(summary_table(reports))
    return {report.name: to_json(report) for report in reports}


def measure_responses(given: dict) -> dict:
    from backbone.analysis import PAPER, draw, network_responses, pair_weights, pictures, write_csv
    from backbone.common.text import table
    from backbone.networks import find_architecture

    networks = given.get("networks", PAPER)
    sides = {name: find_architecture(name).image_size for name in networks}
    weights = pair_weights(given.get("weights", ()), networks)
    path, number = given.get("images"), given.get("num_images", 256)
    images = {side: pictures(path, number=number, side=side) for side in sorted(set(sides.values()))}
    source = "; ".join(dict.fromkeys(words for _, words in images.values()))
    print(f"images: {source}", flush=True)
    measured = []
    for name, side in passing(list(sides.items()), "measuring", unit="network", plural="networks"):
        options = {"weights": weights.get(name), "seed": given.get("seed", 0)}
        measured.append(network_responses(name, images[side][0], **options))
    rows = []
    for one in measured:
        values = list(one.layers.values())
        rows.append([one.label, len(values), sum(values) / len(values), min(values), max(values)])
    print(table(rows, ["network", "3x3 layers", "mean std", "least", "most"], digits=3))
    if not all(one.trained for one in measured):
        print("note: BN gives every layer of an untrained network a deviation of 1; --weights brings trained ones")
    folder = given.get("output", Path("output/responses"))
    write_csv(folder / "responses.csv", measured)
    draw(folder / "responses.png", measured, source)
    print(f"written: {folder / 'responses.png'}, {folder / 'responses.csv'}")
    return {one.network: {"trained": one.trained, "images": one.images, "std": dict(one.layers)} for one in measured}


def main() -> None:
    mode, arguments, given = read_arguments()
    say_importing("torch")
    if mode == "backbone":
        figures = analyse_one(arguments.backbone, given)
    else:
        figures = analyse_all(given) if mode == "all" else measure_responses(given)
    if arguments.json:
        from backbone.common.files import write_json

        write_json(arguments.json, figures)


if __name__ == "__main__":
    run(main)
