"""The table of faults: how grave each kind is, whether a mended copy can be written, and what to do."""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from ...coco_json.files import MENDS

EXAMPLES = 5
ERROR, WARNING, NOTICE = SEVERITIES = ("error", "warning", "notice")


@dataclass(frozen=True)
class Fault:
    """One kind of fault in one data set.

    Attributes:
        kind: key of `KINDS`.
        severity: "error" (training or evaluation breaks or goes wrong), "warning" or "notice".
        count: how many records or files have it.
        examples: the first five, each naming the image id, annotation id or file.
        mend: what to do, in one sentence.
        fixable: whether `mend` (check_data.py --fix) removes it.
    """

    kind: str
    severity: str
    count: int
    examples: tuple[str, ...]
    mend: str
    fixable: bool


class Kind(NamedTuple):
    """What all faults of one kind share."""

    severity: str
    fixable: bool
    mend: str


# In the order of a report. What the mends say of --fix is what mending.py and its neighbours do.
KINDS: dict[str, Kind] = {
    "empty-file": Kind(ERROR, False, MENDS["empty-file"]),
    "truncated-json": Kind(ERROR, False, MENDS["truncated-json"]),
    "not-json": Kind(ERROR, False, MENDS["not-json"]),
    "byte-order-mark": Kind(WARNING, True, MENDS["byte-order-mark"]),
    "nan-literal": Kind(WARNING, True, MENDS["nan-literal"]),
    "not-a-dict": Kind(ERROR, False, "give an object with the lists images, annotations and categories"),
    "missing-list": Kind(ERROR, False, "add the list, or export the data set again in COCO form"),
    "not-a-list": Kind(ERROR, False, "make it a list of records, or export the data set again in COCO form"),
    "no-images": Kind(ERROR, False, "list at least one image"),
    "no-categories": Kind(ERROR, False, "list the categories, each with an id and a name"),
    "not-a-record": Kind(ERROR, True, "every entry must be an object; --fix drops the others"),
    "missing-image-key": Kind(ERROR, True, "add the key; --fix takes sizes from the file, gives ids, drops the rest"),
    "wrong-image-type": Kind(ERROR, True, "id, width and height are integers, file_name is text; --fix converts"),
    "bad-size": Kind(ERROR, True, "write the image's true width and height in pixels; --fix takes them from the file"),
    "duplicate-image-id": Kind(ERROR, True, "give every image its own id; --fix keeps the first record"),
    "duplicate-file-name": Kind(ERROR, True, "list every file once; --fix joins records of the same size, else drops"),
    "path-outside-folder": Kind(ERROR, True, "give file names relative to the image folder; --fix drops the images"),
    "missing-folder": Kind(ERROR, False, "give the folder that holds the image files"),
    "missing-file": Kind(ERROR, True, "add the files or correct the names; --fix takes a like-named file, else drops"),
    "empty-image-file": Kind(ERROR, True, "fetch the files again; --fix drops the images"),
    "unreadable-file": Kind(ERROR, True, "make the files readable; --fix drops the images"),
    "not-an-image": Kind(ERROR, True, "replace the files by images; --fix drops the images"),
    "truncated-image": Kind(ERROR, True, "fetch the files again: their end is missing; --fix drops the images"),
    "broken-image": Kind(ERROR, True, "fetch the files again: they cannot be decoded; --fix drops the images"),
    "size-mismatch": Kind(ERROR, True, "make the JSON and the file agree; --fix takes the file's width and height"),
    "missing-category-key": Kind(ERROR, True, "add the key; --fix makes up a name, and drops what has no id"),
    "wrong-category-type": Kind(ERROR, True, "a category's id is an integer and its name is text; --fix converts"),
    "duplicate-category-id": Kind(ERROR, True, "give every category its own id; --fix keeps the first"),
    "missing-annotation-key": Kind(ERROR, True, "add the key; --fix gives ids and drops the rest"),
    "wrong-annotation-type": Kind(ERROR, True, "the ids of an annotation are integers; --fix converts or drops"),
    "duplicate-annotation-id": Kind(ERROR, True, "give every annotation its own id; --fix renumbers the later ones"),
    "unknown-image": Kind(ERROR, True, "list the image, or drop its annotations; --fix drops them"),
    "unknown-category": Kind(ERROR, True, "list the category, or drop its annotations; --fix drops them"),
    "malformed-box": Kind(
        ERROR, True, "a box is [x, y, width, height] in pixels; --fix drops what is not four numbers"
    ),
    "normalised-boxes": Kind(ERROR, True, "boxes are in pixels, not in shares of the image; --fix multiplies all"),
    "xyxy-boxes": Kind(ERROR, True, "the boxes look like corners; write [x, y, width, height]; --fix converts all"),
    "nan-box": Kind(ERROR, True, "write finite numbers; --fix drops the annotations"),
    "negative-box": Kind(ERROR, True, "width and height are above 0, from the left upper corner; --fix drops them"),
    "box-outside": Kind(ERROR, True, "correct the box or the image's size; --fix drops the annotations"),
    "bad-iscrowd": Kind(ERROR, True, "iscrowd is 0 or 1; --fix converts, and takes 0 for anything else"),
    "bad-polygon": Kind(ERROR, True, "a polygon is a list x, y, x, y, ... of numbers; --fix drops the others"),
    "bad-rle": Kind(ERROR, True, "an RLE has counts, and size = [height, width] of its image; --fix drops the mask"),
    "bad-keypoints": Kind(ERROR, True, "write x, y, visibility for every keypoint of the category; --fix blanks them"),
    "empty-box": Kind(ERROR, True, "a box without area cannot be learned; --fix drops the annotations"),
    "box-partly-outside": Kind(WARNING, True, "clip the boxes to the image; --fix does"),
    "annotation-id-zero": Kind(WARNING, True, "COCO evaluation takes id 0 for 'no match'; --fix renumbers"),
    "float-integer": Kind(WARNING, True, "write 640 where the file says 640.0; --fix does"),
    "missing-iscrowd": Kind(WARNING, True, "COCO evaluation needs iscrowd; --fix writes 0"),
    "missing-area": Kind(WARNING, True, "COCO evaluation needs the area; --fix takes it from the mask or the box"),
    "malformed-area": Kind(ERROR, True, "the area is a number; --fix takes it from the mask or the box"),
    "bad-area": Kind(WARNING, True, "the area is a number above 0; --fix takes it from the mask or the box"),
    "area-mismatch": Kind(WARNING, True, "correct area or box; --fix takes the area from the mask or the box"),
    "short-polygon": Kind(WARNING, True, "a polygon needs three points; --fix drops the others"),
    "crowd-polygons": Kind(WARNING, False, "a crowd's mask is an RLE; if it is one object, set iscrowd to 0"),
    "missing-info": Kind(WARNING, True, "some releases of pycocotools need info; --fix adds it"),
    "duplicate-category-name": Kind(WARNING, False, "give every category its own name, or join them"),
    "no-annotations": Kind(WARNING, False, "nothing can be learned or measured without annotations"),
    "corrupt-image-data": Kind(WARNING, False, "fetch the files again: they decode, but the decoder complains"),
    "exif-ignored": Kind(
        WARNING,
        False,
        "the JSON has the size before the EXIF rotation, so we read the pixels as stored; other loaders refuse: remove "
        "the EXIF orientation from the files",
    ),
    "missing-licenses": Kind(NOTICE, True, "nothing to do; --fix adds an empty list"),
    "missing-segmentation": Kind(NOTICE, False, "nothing to do for boxes; masks cannot be learned or judged there"),
    "missing-keypoints": Kind(NOTICE, False, "nothing to do for boxes; keypoints cannot be learned from these"),
    "duplicate-object": Kind(NOTICE, False, "drop the repeated annotations if they are one object"),
    "unannotated-images": Kind(NOTICE, False, "nothing to do if they show no object: they count as background"),
    "unused-category": Kind(NOTICE, False, "nothing to do; a category without annotations cannot be learned"),
    "category-id-gaps": Kind(NOTICE, False, "nothing to do: the ids are mapped to 0..N-1 and back"),
    "category-id-zero": Kind(NOTICE, False, "nothing to do: the ids are mapped to 0..N-1 and back"),
    "grayscale-image": Kind(NOTICE, False, "nothing to do: they are read as three equal channels"),
    "cmyk-image": Kind(NOTICE, False, "nothing to do; colours may differ between decoders, RGB files would not"),
    "dark-sixteen-bit-image": Kind(
        WARNING, False, "data of 12 bits or fewer is read as nearly black; scale the values to all 16 bits"
    ),
    "sixteen-bit-image": Kind(NOTICE, False, "nothing to do; they are read with 8 bits"),
    "exif-rotated": Kind(NOTICE, False, "see that the boxes were drawn on the rotated image, as it is shown"),
}

# Faults of single boxes. Training can leave such a box out, so DATASETS.BAD_BOXES decides; sets of their makers pass.
UNUSABLE_BOXES = {"nan-box", "negative-box", "empty-box", "box-outside"}


class Findings:
    """Gathers what the checks find, one `Fault` a kind."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self._examples: dict[str, list[str]] = {}

    def add(self, kind: str, places: Sequence[int], describe: Callable[[int], str]) -> None:
        """Note a fault at each of `places`; `describe(place)` gives the text of an example."""
        if not len(places):
            return
        self._counts[kind] = self._counts.get(kind, 0) + len(places)
        examples = self._examples.setdefault(kind, [])
        examples.extend(describe(int(place)) for place in places[: EXAMPLES - len(examples)])

    def add_one(self, kind: str, example: str) -> None:
        """Note one fault."""
        self.add(kind, (0,), lambda _: example)

    def faults(self) -> list[Fault]:
        """Return the faults, errors first, in the order of the table."""
        found = [
            Fault(kind, entry.severity, self._counts[kind], tuple(self._examples[kind]), entry.mend, entry.fixable)
            for kind, entry in KINDS.items()
            if kind in self._counts
        ]
        return in_order(found)


def as_for_official_sets(faults: Sequence[Fault]) -> list[Fault]:
    """Return the faults of a set as its makers gave it: training leaves unusable boxes out, so they are warnings."""
    return in_order([replace(fault, severity=WARNING) if fault.kind in UNUSABLE_BOXES else fault for fault in faults])


def in_order(faults: Sequence[Fault]) -> list[Fault]:
    """Sort faults for a report: errors, warnings, notices."""
    return sorted(faults, key=lambda fault: SEVERITIES.index(fault.severity))


_repr = reprlib.Repr()
_repr.maxstring = _repr.maxother = _repr.maxlong = 80
_repr.maxlist = _repr.maxdict = 6


def show(value: object) -> str:
    """Return a value as it goes into one line of a message: short, with no control characters."""
    return _repr.repr(value)


def name_image(record: dict, index: int) -> str:
    """Return "image 7 'a.jpg'"."""
    name = f"image {show(record['id'])}" if "id" in record else f"images[{index}]"
    return f"{name} {show(record['file_name'])}" if "file_name" in record else name


def name_annotation(record: dict, index: int) -> str:
    """Return "annotation 12 of image 7"."""
    name = f"annotation {show(record['id'])}" if "id" in record else f"annotations[{index}]"
    return f"{name} of image {show(record['image_id'])}" if "image_id" in record else name


def name_category(record: dict, index: int) -> str:
    """Return "category 3 'cat'"."""
    name = f"category {show(record['id'])}" if "id" in record else f"categories[{index}]"
    return f"{name} {show(record['name'])}" if "name" in record else name


NAMERS = {"image": name_image, "annotation": name_annotation, "category": name_category}
