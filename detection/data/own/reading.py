"""Any of the forms as records in COCO's form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from backbone.common.errors import DataError

from ..checks import Fault
from .coco_file import read_coco
from .finding import Place
from .table import read_boxes
from .voc_xml import read_voc
from .yolo import read_yolo


@dataclass(frozen=True)
class OwnData:
    """A data set in memory.

    Attributes:
        data: in COCO's form, images in the order of their file names, so that every form gives the same order; of a
            JSON file whatever it holds, None where it cannot be read.
        folder: the file names are relative to it.
        faults: of the file as such.
    """

    place: Place
    data: object
    folder: Path
    faults: list[Fault]


def read_place(place: Place, classes: Sequence[str] | None = None) -> OwnData:
    """Read a data set. It is not checked; see `checks.check_coco`.

    Args:
        classes: in their order, for forms that have the names of classes at each object; None for those that are found.

    Raises:
        DataError: a file is missing or malformed.
    """
    faults: list[Fault] = []
    try:
        if place.form == "coco":
            data, faults, folder = read_coco(place.source, place.images)
        elif place.form == "voc":
            data, folder = read_voc(place.source, place.images, classes)
        elif place.form == "yolo":
            data, folder = read_yolo(place, classes)
        else:
            data, folder = read_boxes(place.source, place.images, classes)
    except OSError as error:
        raise DataError(f"{error.filename or place.source}: cannot be read: {error.strerror or error}") from None
    records = data.get("images") if isinstance(data, dict) else None
    if isinstance(records, list) and all(_has_name(record) for record in records):
        data["images"] = sorted(records, key=lambda record: record["file_name"])
    return OwnData(place, data, folder, faults)


def _has_name(record: object) -> bool:
    return isinstance(record, dict) and isinstance(record.get("file_name"), str)
