#!/usr/bin/env python3
"""Check a data set: every fault of one in COCO form in one report, and a mended copy on request; other forms too.

Example:
    python tools/check_data.py --train my_data --val my_data
    python tools/check_data.py --json annotations/instances_val2017.json --images val2017
    python tools/check_data.py --data-root datasets --dataset coco_2017_val --report report.json
    python tools/check_data.py --data-root datasets --dataset voc_2012_trainval
    python tools/check_data.py --json train.json --images train --fix train_mended.json
    python tools/check_data.py --train my_labels --val my_labels DATA.ID_MAP "7: road, 8: sidewalk, *: void"

Exit status: 0 when the data (with --fix, the mended copy) has no errors, 2 when it has, or on a mistake in the usage.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from backbone.common.cli import Parser, run
from backbone.common.errors import DataError
from backbone.common.waiting import say_importing, say_reading

if TYPE_CHECKING:
    from detection.data import catalog, checks

PARTS = ("train", "val")
# As in backbone.segmentation.data.folders, whose libraries other sets need not wait for; and Cityscapes' and VOC's.
LABELS = ("labels", "masks", "annotations", "ann_dir", "label", "mask")
LABEL_FOLDERS = (*LABELS, "gtFine", "SegmentationClass")
LABEL_FILES = (".png", ".bmp", ".tif", ".tiff", ".gif")
EXAMPLE = "python tools/check_data.py --json annotations/instances_val2017.json --images val2017 --fix mended.json"


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = Parser(
        "Check a data set in COCO, VOC, YOLO or CSV form, or with label images; exit status 2 when it has errors.",
        EXAMPLE,
    )
    for part in PARTS:
        parser.add_argument(f"--{part}", metavar="PATH", help="a set in any form, as tools/train_net.py takes it")
        parser.add_argument(f"--{part}-images", metavar="DIR", help="the images' folder, where it is not found")
    parser.add_argument("--json", type=Path, help="the COCO JSON file")
    parser.add_argument("--images", type=Path, help="the folder that its file names are relative to")
    parser.add_argument("--dataset", help="in place of --json and --images: a known data set, such as coco_2017_val")
    parser.add_argument("--data-root", type=Path, help="with --dataset: the folder of the data sets")
    parser.add_argument("--deep", action="store_true", default=True, help="decode every image (the default)")
    parser.add_argument("--quick", "--no-images", dest="deep", action="store_false", help="decode no image")
    parser.add_argument("--fix", type=Path, metavar="OUT", help="write a mended copy; the input stays as it is")
    parser.add_argument("--report", type=Path, metavar="OUT", help="write the report as JSON as well")
    parser.add_argument(
        "--segmentation", action="store_true", help="check the labels of pixels, of a set that has boxes too"
    )
    parser.add_argument("overrides", nargs="*", metavar="KEY VALUE", help="of label images: DATA.ID_MAP and its like")
    args = parser.parse_intermixed_args()
    files, folder = args.json is not None, args.images is not None
    own = [part for part in PARTS if getattr(args, part) is not None]
    wrong = [part for part in PARTS if getattr(args, f"{part}_images") is not None and part not in own]
    if wrong:
        parser.error(f"--{wrong[0]}-images belongs to --{wrong[0]}")
    if own and not (files or folder or args.dataset or args.data_root):
        if len(own) > 1 and (args.fix or args.report):
            parser.error("--fix and --report are for one set; give --train or --val")
        args.segmentation = args.segmentation or all(has_label_images(Path(getattr(args, part)), part) for part in own)
        if args.overrides and not args.segmentation:
            parser.error(f"{args.overrides[0]}: keys are for label images; --segmentation checks those of any set")
        return args
    if args.segmentation or args.overrides:
        parser.error(f"{(args.overrides or ['--segmentation'])[0]} goes with --train or --val")
    if own or files != folder or files == (args.dataset is not None) or (files and args.data_root):
        parser.error("give --train or --val, or --json with --images, or --dataset with --data-root")
    return args


def has_label_images(path: Path, part: str) -> bool:
    """Whether a folder looks like a set with label images, and not like one with boxes."""
    if (path / "Annotations").is_dir() and (path / "ImageSets" / "Main").is_dir():
        return False
    places = [folder / name for folder in (path, path / part) for name in LABEL_FOLDERS]
    if any(next(place.rglob(f"*{end}"), None) for place in places for end in LABEL_FILES):
        return True
    if any(next(folder.glob(f"*_mask*{end}"), None) for folder in (path, path / part) for end in LABEL_FILES):
        return True
    return _holds_labels_alone(path)


def _holds_labels_alone(path: Path) -> bool:
    """Whether a folder holds palette or gray PNG files and nothing else but a list of classes."""
    from PIL import Image

    files = sorted(path.iterdir()) if path.is_dir() else []
    labels = [file for file in files if file.suffix.lower() in LABEL_FILES]
    if not labels or any(file.is_file() and file not in labels and file.name != "classes.txt" for file in files):
        return False
    try:
        with Image.open(labels[0]) as image:
            return image.mode in ("P", "L", "1", "I", "I;16")
    except OSError:
        return False


def check_outputs(args: argparse.Namespace) -> None:
    """Refuse, before any work, to write over the input or into a folder that is not there."""
    for flag, path in (("--fix", args.fix), ("--report", args.report)):
        if path is None:
            continue
        if path.exists() and args.json is not None and args.json.exists() and os.path.samefile(path, args.json):
            raise DataError(f"{flag} {path}: this is the input, which stays as it is; give another name")
        if path.is_dir() or not path.absolute().parent.is_dir():
            raise DataError(
                f"{flag} {path}: not a file in a folder that exists; create the folder or give another name"
            )
    if args.fix and args.report and args.fix.absolute() == args.report.absolute():
        raise DataError(f"--fix and --report both name {args.fix}; give two names")


def check_own(args: argparse.Namespace) -> int:
    """Check sets of one's own, in any form; classes of the first hold for the second."""
    from detection.data.own import find_place, read_place

    status, classes = 0, None
    for part in PARTS:
        path, images = getattr(args, part), getattr(args, f"{part}_images")
        if path is None:
            continue
        place = find_place(path, part, images)
        args.json = place.source
        check_outputs(args)
        say_reading(place.source)
        own = read_place(place, classes)
        args.images = own.folder
        status = max(status, check_coco_form(args, own.data, own.faults, title=f"{place.title}: {place.source}"))
        categories = own.data.get("categories") if isinstance(own.data, dict) else None
        if place.form != "coco" and categories:
            classes = [category["name"] for category in categories]
    return status


def fix(args: argparse.Namespace, data: object, facts: dict | None) -> checks.Mended:
    """Write the mended copy and say what was done."""
    from detection.data import checks

    mended = checks.mend(data, args.images, source=str(args.json), facts=facts)
    checks.write_json(mended.data, args.fix)
    print(f"\nmended copy: {args.fix}")
    for action, times in mended.actions.items():
        print(f"    {action}: {times:,}")
    for fault in mended.left:
        if fault.severity != "notice":
            print(f"    not mended: {fault.kind}: {fault.count:,}, first {fault.examples[0]}; {fault.mend}")
    print(f"verdict on the mended copy: {checks.verdict(mended.left, checks.counts_of(mended.data))}")
    return mended


def check_voc(source: catalog.Source, args: argparse.Namespace) -> int:
    """Check a set of PASCAL VOC or ImageNet DET.

    The first fault of its annotations is the error; those of its images are reported.
    """
    from detection.data import checks
    from detection.data.voc import read_split
    from detection.data.voc.images import check_voc_images

    if args.fix:
        raise DataError(f"--fix {args.fix}: mends JSON files; {args.dataset} is {source.voc.title}, mend its files")
    objects = read_split(source.voc, refuse_boxes=True)
    faults = check_voc_images(objects, progress=True) if args.deep else []
    counts = {
        "images": len(objects.ids),
        "objects": len(objects.labels),
        "difficult objects": int(objects.difficult.sum()),
    }
    text = checks.as_text(counts, faults, heading=str(source.json_file))
    print(text if args.deep else f"{text} (images are there, not decoded)")
    if args.report:
        record = {"list": str(args.json), "images": str(args.images), **checks.as_record(counts, faults)}
        checks.write_json(record, args.report)
    return 2 if checks.has_errors(faults) else 0


def check_segmentation(args: argparse.Namespace) -> int:
    """Check sets with label images."""
    say_importing("torch")
    from backbone.segmentation.checking import check_sets

    check_outputs(args)
    status = 0
    for report in check_sets(args, [part for part in PARTS if getattr(args, part) is not None]):
        for line in report.lines():
            print(line)
        status = status if report.fine else 2
    return status


def main() -> int:
    """Run the command line."""
    args = parse()
    if args.segmentation:
        return check_segmentation(args)
    # Behind the parser: --help and a wrong flag answer at once.
    from backbone.engine.record import start_logging
    from detection.data import catalog, checks

    start_logging(None)
    if args.train is not None or args.val is not None:
        return check_own(args)
    if args.dataset:
        source = catalog.locate(args.dataset, args.data_root)
        args.json, args.images = Path(source.json_file), Path(source.image_folder)
    check_outputs(args)
    if args.dataset and source.voc is not None:
        return check_voc(source, args)
    say_reading(args.json)
    data, faults = checks.read_json(args.json)
    return check_coco_form(args, data, faults, title=str(args.json), official=bool(args.dataset) and source.official)


def check_coco_form(
    args: argparse.Namespace, data: object, faults: list[checks.Fault], *, title: str, official: bool = False
) -> int:
    """Check records in COCO's form and the images in args.images; `faults` are those of the file as such."""
    from detection.data import checks

    facts = None
    if data is not None:
        if args.deep and isinstance(data, dict) and isinstance(data.get("images"), list):
            facts = checks.inspect_images(data, args.images, progress=True)
        faults = checks.in_order(faults + checks.faults_of(data, args.images, str(args.json), facts))
    if official:
        faults = checks.as_for_official_sets(faults)
    counts = checks.counts_of(data)
    print(checks.as_text(counts, faults, heading=f"{title} with images in {args.images}"))
    record = {"json": str(args.json), "images": str(args.images), **checks.as_record(counts, faults)}
    final = faults
    if args.fix:
        mended = fix(args, data, facts)
        final = mended.left
        record["mended"] = {"json": str(args.fix), "actions": mended.actions}
        record["mended"] |= checks.as_record(checks.counts_of(mended.data), final)
    if args.report:
        checks.write_json(record, args.report)
    return 2 if checks.has_errors(final) else 0


if __name__ == "__main__":
    run(main)
