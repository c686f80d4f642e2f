#!/usr/bin/env python3
"""Write a backbone for another runtime: ONNX, OpenVINO, TorchScript, torch.export; or its weights alone. The suffix of
--output decides. The file is run and compared with the network before it is kept."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from backbone.common.cli import Parser, run
from backbone.common.text import table
from backbone.common.waiting import say_importing

if TYPE_CHECKING:
    from backbone import Backbone
    from backbone.exporting import ExportReport

# As backbone.weights.WRITABLE, which imports torch; --help and a wrong flag answer without it.
WRITABLE = ("detectron2", "huggingface", "mmdet", "mmpretrain", "timm", "torchvision")
EXAMPLE = "tools/export_backbone.py --backbone resnet50 --weights resnet50.pth --output resnet50.onnx"


def make_parser() -> Parser:
    parser = Parser(__doc__, EXAMPLE)
    parser.add_argument("--backbone", metavar="NAME", help="the network (else found from the weights file)")
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--weights", metavar="FILE", help="weights of any known kind and layout; a name or a URL too")
    parser.add_argument("--part", metavar="NAME", help="which of several networks in --weights, such as model_ema")
    source.add_argument(
        "--checkpoint", metavar="FILE", help="a detector's checkpoint of tools/train_net.py, model_best.pth"
    )
    parser.add_argument(
        "--output",
        required=True,
        type=Path,
        metavar="FILE",
        help=".onnx, .xml (OpenVINO), .ts, .torchscript, .pt2; weights alone: .safetensors, .pth, .pt, .th, .pkl, .npz",
    )
    parser.add_argument("--out-features", nargs="+", metavar="STAGE", help="stages to give, such as res3 res4 res5")
    parser.add_argument("--num-classes", type=int, metavar="N", help="give a classifier's logits too")
    parser.add_argument(
        "--input-size",
        nargs=2,
        type=int,
        default=(800, 1216),
        metavar=("H", "W"),
        help="of the images that the file is checked with (default: 800 1216)",
    )
    parser.add_argument("--batch-size", type=int, default=1, metavar="N", help="of those images (default: 1)")
    parser.add_argument("--static", action="store_true", help="the file takes images of that size and number alone")
    parser.add_argument("--bake-preprocessing", action="store_true", help="the file takes uint8 RGB images")
    parser.add_argument("--opset", type=int, metavar="N", help="of ONNX (else the exporter's own choice)")
    parser.add_argument("--exporter", choices=("auto", "dynamo", "torchscript"), default="auto", help="of ONNX")
    parser.add_argument("--layout", choices=WRITABLE, help="of the names, where weights alone are written")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write what was done")
    return parser


def main() -> None:
    parser = make_parser()
    arguments = parser.parse_args()
    if not (arguments.backbone or arguments.weights or arguments.checkpoint):
        parser.error("give --weights FILE, --checkpoint FILE, or --backbone NAME alone for random weights")
    if arguments.checkpoint and (arguments.backbone or arguments.num_classes):
        parser.error("--checkpoint knows its network: leave out --backbone and --num-classes")
    say_importing("torch")
    from backbone.common.files import write_json
    from backbone.engine.record import start_logging
    from backbone.exporting import export
    from backbone.weights import MisfitError

    start_logging(None)
    try:
        network, notes = open_source(arguments)
    except MisfitError as error:
        print(error.report.table())
        raise
    report = export(
        network,
        arguments.output,
        layout=arguments.layout,
        input_size=tuple(arguments.input_size),
        batch_size=arguments.batch_size,
        dynamic=not arguments.static,
        bake_preprocessing=arguments.bake_preprocessing,
        opset=arguments.opset,
        exporter=arguments.exporter,
    )
    show(report, network, [*notes, *report.notes])
    if arguments.json:
        write_json(arguments.json, report.to_dict() | {"source_notes": notes})


def show(report: ExportReport, network: Backbone, notes: list[str]) -> None:
    """Print what was written, and its differences by stage and shape of images."""
    for path, size in report.files.items():
        print(f"{path}: {report.format}, {size / 2**20:.1f} MiB")
    print(f"network: {network.architecture}; preprocessing: {network.preprocessing or 'not known'}")
    if report.exporter:
        print(f"through torch's {report.exporter} exporter" + (f", opset {report.opset}" if report.opset else ""))
    for note in notes:
        print(f"note: {note}")
    print(f"run in {report.runtime} and compared: largest difference over the network's largest value")
    shapes = list(report.differences)
    rows = [
        [stage, info.channels, info.stride or "-", *(f"{report.differences[shape][stage]:.1e}" for shape in shapes)]
        for stage, info in network.feature_info.items()
        if stage in network.out_features
    ]
    print(table(rows, ["stage", "channels", "stride", *shapes]))


def open_source(arguments: Namespace) -> tuple[Backbone, list[str]]:
    """Return the network that the flags name, and notes."""
    from backbone import create
    from backbone.exporting import open_network, select_outputs

    stages = arguments.out_features
    if arguments.checkpoint:
        network = backbone_of_detector(arguments.checkpoint)
        if stages:
            select_outputs(network, stages)
        return network, []
    if arguments.weights:
        return open_network(
            arguments.weights,
            arguments.backbone,
            out_features=stages,
            num_classes=arguments.num_classes,
            part=arguments.part,
        )
    network = create(arguments.backbone, out_features=stages, num_classes=arguments.num_classes)
    return network, ["no --weights: the weights are random"]


def backbone_of_detector(path: str) -> Backbone:
    """Return the network in a detector's checkpoint, with the preprocessing of the detector's config."""
    import detection

    detection.register()
    from backbone.weights import Preprocessing
    from detection.inference.detector import load_trained_detector
    from detection.modeling.backbone import network_of

    detector = load_trained_detector(path, "cpu")
    network, config = network_of(detector.model), detector.config
    network.preprocessing = Preprocessing(config.INPUT.FORMAT, 255, config.MODEL.PIXEL_MEAN, config.MODEL.PIXEL_STD)
    return network


if __name__ == "__main__":
    run(main)
