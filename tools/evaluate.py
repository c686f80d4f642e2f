#!/usr/bin/env python3
"""Evaluate predictions with COCO's figures: twelve for boxes and masks, ten for keypoints, and AP of each class.

The figures are those of pycocotools to the last digit. With --voc-root, PASCAL VOC's: AP by 11 points and by area, as
the development kit and detectron2 compute them. Needs detectron2 for --model alone. Where --predictions are label
images, the figures are those of semantic segmentation: IoU, Dice, accuracy and precision of each class.

Example:
    python tools/evaluate.py --gt instances_val2017.json --predictions detections.json --json results.json
    python tools/evaluate.py --gt instances_val2017.json --predictions detections.json --iou-type bbox,segm
    python tools/evaluate.py --gt person_keypoints_val2017.json --predictions people.json --iou-type keypoints
    python tools/evaluate.py --gt instances_val2017.json --predictions dets.json --images val2017 --report out.html
    python tools/evaluate.py --gt instances_val2017.json --model detector.onnx --images val2017
    python tools/evaluate.py --voc-root VOCdevkit/VOC2012 --split val --predictions dets --metric voc10
    python tools/evaluate.py --voc-root VOCdevkit/VOC2012 --split test --predictions dets.json --submission results
    python tools/evaluate.py --gt labels --predictions found/labels --images photos --report out.html
"""

from __future__ import annotations

import argparse
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backbone.common.cli import Parser, run
from backbone.common.errors import DataError, UserError
from backbone.common.files import write_json
from backbone.common.waiting import say_importing, say_reading

if TYPE_CHECKING:
    from detection.analysis import Case, OwnFigures
    from detection.evaluation import CocoMetrics, GroundTruth, Predictions, VocMetrics

    Boxes = tuple[GroundTruth, Predictions]

# As in detection.evaluation, whose libraries --help and a wrong flag need not wait for.
ENGINES, IOU_TYPES, METRICS = (
    ("hotcoco", "faster-coco-eval", "pycocotools"),
    ("bbox", "segm", "keypoints"),
    ("voc07", "voc10"),
)
# As in backbone.segmentation.data.folders.
LABEL_FILES = (".png", ".bmp", ".tif", ".tiff", ".gif")
# As in detection.inference.opening.
RUNTIMES = ("torch", "onnxruntime", "openvino")
EXAMPLE = "python tools/evaluate.py --gt instances_val2017.json --predictions detections.json --json results.json"


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = Parser("Evaluate predictions with COCO's figures, identical to pycocotools's.", EXAMPLE)
    parser.add_argument(
        "--gt",
        type=Path,
        help="ground truth: a COCO JSON file, one's own set in any form (its part for validation), or label images",
    )
    parser.add_argument(
        "--predictions", type=Path, help="a JSON file in COCO's results form; see --voc-root; or label images"
    )
    parser.add_argument(
        "--classes",
        metavar="NAME,NAME",
        help="with --gt in VOC or CSV form: the classes in the order of the predictions' ids (else by the alphabet); "
        "of label images: a file of them too",
    )
    parser.add_argument(
        "--model",
        metavar="FILE",
        help="in place of --predictions: a checkpoint, or an exported .onnx or .xml, run on the images of --gt",
    )
    parser.add_argument(
        "--iou-type",
        action="append",
        metavar="TYPE[,TYPE]",
        help=f"{', '.join(IOU_TYPES)}; may be given more than once (default: {IOU_TYPES[0]})",
    )
    parser.add_argument(
        "--engine",
        default="auto",
        help=f"auto, {', '.join(ENGINES)} (default: auto, the fastest); with --model what runs it: "
        f"{', '.join(RUNTIMES)} (default: by its suffix)",
    )
    parser.add_argument(
        "--max-detections",
        metavar="N[,N]",
        help="limits of detections per image and class (default: 1,10,100; keypoints: 20)",
    )
    parser.add_argument(
        "--keypoint-sigmas",
        metavar="S[,S]",
        help="width of each keypoint relative to an object's size (default: COCO's of 17 keypoints)",
    )
    parser.add_argument("--json", type=Path, metavar="OUT", help="write the figures as JSON")
    add_report_flags(parser)
    add_voc_arguments(parser)
    add_label_arguments(parser)
    args = parser.parse_intermixed_args()
    if (args.gt is None) == (args.voc_root is None):
        parser.error("give the ground truth: either --gt FILE (COCO) or --voc-root DIR (PASCAL VOC)")
    if (args.predictions is None) == (args.model is None):
        parser.error("give either --predictions FILE or --model FILE")
    if args.model is not None and args.classes:
        parser.error("--classes belongs to --predictions; a --model names its classes")
    args.segmentation = is_segmentation(args)
    if args.segmentation:
        return args
    if args.same_numbers or (args.overrides and args.model is None):
        parser.error(f"{'--same-numbers' if args.same_numbers else args.overrides[0]} belongs to label images")
    check_voc_arguments(parser, args)
    args.iou_type = list(dict.fromkeys(",".join(args.iou_type or IOU_TYPES[:1]).split(",")))
    args.max_detections = args.max_detections and [_limit(text) for text in args.max_detections.split(",")]
    args.keypoint_sigmas = [_width(text) for text in (args.keypoint_sigmas or "").split(",") if text]
    return args


def add_voc_arguments(parser: Parser) -> None:
    """Add the flags of PASCAL VOC."""
    voc = parser.add_argument_group(
        "PASCAL VOC, in place of --gt; --predictions is then a folder of comp4_det_<split>_<class>.txt, or a COCO "
        "results JSON whose image_id is the file's id (or the number of its digits) and whose category_id counts the "
        "classes from 1 in the order of the alphabet"
    )
    voc.add_argument("--voc-root", type=Path, metavar="DIR", help="a year's folder, such as VOCdevkit/VOC2012")
    voc.add_argument("--split", help="a list in ImageSets/Main, such as val or test")
    voc.add_argument("--metric", choices=METRICS, help="11 points or area (default: voc07 for VOC2007, else voc10)")
    voc.add_argument("--submission", type=Path, metavar="DIR", help="write the predictions as comp4_det_*.txt there")


def add_label_arguments(parser: Parser) -> None:
    """Add the flags of label images."""
    labels = parser.add_argument_group(
        "segmentation: --predictions is a folder of label images (or one), named as those of --gt or as their images; "
        "--voc-root takes the lists of ImageSets/Segmentation"
    )
    labels.add_argument(
        "--same-numbers",
        action="store_true",
        help="their files hold what those of --gt do (else the numbers of classes)",
    )
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="KEY VALUE",
        help="of --model: TEST.BATCH_SIZE, ...; what label images hold: DATA.ID_MAP, ...",
    )


def is_segmentation(args: argparse.Namespace) -> bool:
    """Whether the predictions are label images."""
    path = args.predictions
    if path is None or not path.is_dir():
        return path is not None and path.suffix.lower() in LABEL_FILES
    return any(name.lower().endswith(LABEL_FILES) for _, _, names in os.walk(path) for name in names)


def check_voc_arguments(parser: Parser, args: argparse.Namespace) -> None:
    """Refuse flags of one kind of ground truth beside the other."""
    if args.voc_root is None:
        wrong = [name for name in ("split", "metric", "submission") if getattr(args, name) is not None]
        if wrong:
            parser.error(f"--{wrong[0]} belongs to --voc-root, not to --gt")
        return
    if args.model is not None:
        parser.error("--model belongs to --gt, not to --voc-root; give the folder of the set as --gt")
    if args.split is None:
        parser.error("--voc-root needs --split, such as --split val")
    if args.iou_type or args.max_detections or args.keypoint_sigmas or args.engine != "auto":
        parser.error("--iou-type, --max-detections, --keypoint-sigmas and --engine belong to --gt, not to --voc-root")


def add_report_flags(parser: Parser) -> None:
    """Add the flags of the error analysis."""
    parser.add_argument(
        "--report", type=Path, metavar="OUT", help="write an error analysis of the boxes as one HTML page"
    )
    parser.add_argument("--images", type=Path, metavar="DIR", help="with --model and --report: the images")
    parser.add_argument(
        "--score", type=float, metavar="S", help="with --report: least score to show (default: that of the best F1)"
    )


def _width(text: str) -> float:
    try:
        width = float(text)
    except ValueError:
        width = 0.0
    if not 0 < width < math.inf:
        raise UserError(f"--keypoint-sigmas: {text!r} is no width; give positive numbers, such as 0.05,0.05,0.1")
    return width


def _limit(text: str) -> int:
    if not text.strip().isdecimal():
        raise UserError(f"--max-detections: {text!r} is no positive integer; write them as 1,10,100")
    return int(text)


def check_files(args: argparse.Namespace) -> None:
    """Refuse, before any work, predictions that are not there, and to write over an input or a folder."""
    if args.gt is not None and args.predictions is not None and not os.path.exists(args.predictions):
        raise DataError(f"{args.predictions}: does not exist; give a JSON file in COCO's results form, or label images")
    inputs = {
        path.resolve() for path in (args.gt, args.predictions, args.model and Path(args.model)) if path is not None
    }
    for flag, path in (("--json", args.json), ("--report", args.report)):
        if path is not None and (path.is_dir() or path.resolve() in inputs):
            raise DataError(f"{flag} {path}: is a folder or an input; give the name of a new file")
    if args.report is not None and args.json is not None and args.report.resolve() == args.json.resolve():
        raise DataError(f"--report {args.report}: is the file of --json too; give them different names")
    for flag, value in (("--images", args.images), ("--score", args.score)):
        if args.report is None and value is not None and not (args.model and flag == "--images"):
            raise UserError(f"{flag} belongs to the error analysis; give --report OUT too, or leave {flag} out")
    if args.score is not None and not math.isfinite(args.score):
        raise UserError(f"--score: {args.score} is no score; give a number such as 0.5")


def evaluate(args: argparse.Namespace, boxes: Boxes | None) -> list[CocoMetrics]:
    """Evaluate the predictions once for each kind; `boxes` are those of the report, read already for one of them."""
    from detection.evaluation import evaluate_coco

    read = {} if boxes is None else {boxes[0].iou_type: boxes}
    return [
        evaluate_coco(
            *(read.get(kind) or (args.truth, _of_kind(args.predictions, kind))),
            kind,
            engine=args.engine,
            max_detections=args.max_detections,
            sigmas=args.keypoint_sigmas,
        )
        for kind in args.iou_type
    ]


def _of_kind(predictions: Any, kind: str) -> Any:
    """Return the predictions for one kind; masks of a --model go by their own area, so their boxes are left out."""
    if kind != "segm" or not isinstance(predictions, list):
        return predictions
    return [{key: value for key, value in record.items() if key != "bbox"} for record in predictions]


def evaluate_split(args: argparse.Namespace) -> None:
    """Evaluate on a split of PASCAL VOC; without annotations there, or with --submission, write the server's files."""
    from detection.analysis import case_of_voc
    from detection.data.voc import read_split, split_of_folder
    from detection.data.voc.layout import read_ids
    from detection.evaluation import evaluate_voc
    from detection.evaluation.voc_detections import load_detections, write_submission

    split = split_of_folder(args.voc_root, args.split)
    ids = read_ids(split)
    found = load_detections(args.predictions, ids, args.split)
    if found.without_file:
        print(f"note: no file of {', '.join(found.without_file)}; taken as never detected")
    if args.submission is not None:
        if args.report is not None and not split.annotated:
            raise UserError(
                f"--report: {split.list_file} has no annotations to compare with; leave --report out, or give another "
                "--split"
            )
        files = write_submission(found, args.submission, ids, args.split)
        print(f"submission: {len(files)} files, {args.submission}/comp4_det_{args.split}_<class>.txt")
        if not split.annotated:
            print(f"{split.list_file} has no annotations: nothing to evaluate")
            return
    truth = read_split(split, need_images=False)
    args.found = args.predictions
    case = args.report and with_folder(case_of_voc(truth, found), args.images)
    metrics = evaluate_voc(truth, found, metric=args.metric)
    print(f"{args.predictions} on {split.list_file}: {len(ids):,} images\n\n{metrics.table()}\n")
    figures = metrics.to_json()
    if case is not None:
        figures |= report(args, case, f"{args.voc_root.resolve().name} {args.split}", own_figures(metrics))
    if args.json is not None:
        write_json(args.json, figures)
        print(f"figures: {args.json}")


def read_truth(args: argparse.Namespace) -> Path | dict[str, Any]:
    """Return the ground truth: a JSON file as it is, the records of any other form. --report then finds the images."""
    if args.gt.suffix.lower() == ".json":
        if args.classes:
            raise UserError(f"--classes: {args.gt} has ids and names of its own; leave --classes out")
        return args.gt
    from detection.data.own import find_place, read_place

    classes = args.classes and [name.strip() for name in args.classes.split(",")]
    own = read_place(find_place(args.gt, "val"), classes)
    if not isinstance(own.data, dict):
        return own.place.source
    args.images = args.images or (own.folder if args.report else None)
    return own.data


def run_model(args: argparse.Namespace) -> None:
    """Run --model on the images of --gt: sets `truth`, `predictions` and `images`."""
    say_importing("torch", "detectron2")
    import detection

    detection.register()
    from backbone.engine.record import start_logging
    from detection.inference.on_truth import read_truth, records_on

    start_logging(None)
    engine = None if args.engine == "auto" else args.engine
    detector = detection.load(args.model, engine=engine, overrides=args.overrides)
    truth = read_truth(args.gt, args.images, detector.classes)
    args.truth, args.engine, args.predictions = truth.data, "auto", records_on(detector, truth)
    args.images = truth.images.folder if args.report else None


def read_boxes(args: argparse.Namespace) -> Boxes:
    """Read the boxes of the ground truth and of the predictions."""
    from detection.evaluation import load_ground_truth, load_predictions

    # With keypoints, which the page then shows, where they are evaluated.
    kind = "keypoints" if "keypoints" in args.iou_type else "bbox"
    ground_truth = load_ground_truth(args.truth, kind, args.keypoint_sigmas)
    return ground_truth, load_predictions(args.predictions, ground_truth, kind)


def with_folder(case: Case, images: Path | None) -> Case:
    """Return the case with the folder of --images, where it is given."""
    from detection.analysis import with_images

    return case if images is None else with_images(case, images)


def own_figures(metrics: VocMetrics) -> OwnFigures:
    """Return PASCAL VOC's figures for the page, the metric of the split's year first."""
    from detection.analysis import OwnFigures

    first = metrics.metric
    figures = {f"mAP, {name}": metrics.figures(name)["AP50"] for name in sorted(METRICS, key=lambda one: one != first)}
    classes = [of["AP50"] if of["AP50"] >= 0 else math.nan for of in metrics.of_classes(first).values()]
    return OwnFigures(first, figures, classes)


def report(args: argparse.Namespace, case: Case, truth: str, own: OwnFigures | None = None) -> dict[str, Any]:
    """Write the error analysis and return its figures."""
    from detection.analysis import analyze, write_report

    analysis = analyze(case, score=args.score)
    write_report(args.report, analysis, title=f"Error analysis: {Path(args.found).name} on {truth}", own=own)
    print(f"{analysis.table()}\n\n{analysis.costs}\nreport: {args.report}\n")
    return {"errors": analysis.to_json()}


def main() -> None:
    """Run the command line."""
    args = parse()
    check_files(args)
    if args.segmentation:
        say_importing("torch")
        from backbone.segmentation.label_command import evaluate_labels

        for line in evaluate_labels(args):
            print(line)
        return
    say_reading(args.gt, args.predictions)
    if args.voc_root is not None:
        evaluate_split(args)
        return
    args.found = args.model or args.predictions
    if args.model is not None:
        run_model(args)
    else:
        args.truth = read_truth(args)
    boxes = case = None
    if args.report:
        from detection.analysis import case_of_coco

        boxes = read_boxes(args)
        case = with_folder(case_of_coco(*boxes, args.truth), args.images)
    results = evaluate(args, boxes)
    for metrics in results:
        print(f"{metrics.iou_type}: {args.found} on {args.gt} ({metrics.engine})\n\n{metrics.table()}\n")
        if metrics.without_mask:
            print(f"note: {metrics.without_mask:,} objects of {args.gt} have no mask; their boxes were ignored\n")
    figures = {kind: of for metrics in results for kind, of in metrics.to_json().items()}
    if case is not None:
        figures |= report(args, case, args.gt.name)
    if args.json is not None:
        write_json(args.json, figures)
        print(f"figures: {args.json}")


if __name__ == "__main__":
    run(main)
