"""PASCAL VOC's XML files with classes of one's own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from backbone.common.errors import DataError
from backbone.common.images import list_images
from backbone.common.voc_annotation import Annotation, AnnotationFault, read_annotation
from backbone.common.waiting import passing

from ..voc.faults import MENDS
from ..voc.layout import VocSplit, read_ids
from .records import DECIMALS, Records, by_stem, only_image

IMAGE_FOLDERS = ("JPEGImages", "images", "Images", ".")


def read_voc(source: Path, images: Path | None, classes: Sequence[str] | None) -> tuple[dict[str, Any], Path]:
    """Read a folder of XML files, or those that a list of ImageSets/Main names.

    Boxes are edges, as everywhere: of files that count pixels from 1, which is PASCAL VOC's form, 1 is taken off xmin
    and ymin. A set in which a corner is below 1 counts from 0.

    Args:
        classes: in their order; None for those that are found, by the alphabet.

    Returns:
        The set in COCO's form, and the folder of its images.

    Raises:
        DataError: a file is missing or malformed, or has an object of another class.
    """
    listed = source.is_file()
    home = source.parents[2] if listed else source
    annotations = home / "Annotations" if listed else source
    stems = (
        read_ids(VocSplit(home, source.stem))
        if listed
        else sorted(path.stem for path in annotations.iterdir() if _is_xml(path))
    )
    folder = images or _image_folder(home if listed else annotations, annotations)
    images_by_stem = by_stem(list_images(folder))
    read = []
    for stem in passing(stems, f"reading {annotations}", unit="file", plural="files"):
        path = annotations / f"{stem}.xml"
        try:
            found = read_annotation(path)
        except AnnotationFault as fault:
            raise DataError(f"{fault.kind}: {fault}; {MENDS[fault.kind]}") from None
        read.append((only_image(stem, images_by_stem, folder, path), found))
    every = [box for _, found in read for box in found.boxes]
    first = 0 if any(min(box[:2]) < 1 for box in every) else 1
    records = Records()
    for name, found in read:
        _add(records, name, found, first)
    mend = "correct the name, or set DATASETS.CUSTOM.CLASSES"
    return records.as_coco(classes or sorted(set(records.names)), source, mend=mend), folder


def _add(records: Records, name: str, found: Annotation, first: int) -> None:
    image = records.add_image(name, found.size)
    for label, (left, top, right, bottom), difficult in zip(found.names, found.boxes, found.difficult):
        # Files that count from 0 write the edges.
        corners = (round(left - first, DECIMALS), round(top - first, DECIMALS), right, bottom)
        records.add_object(image, label, corners, difficult=difficult)


def _image_folder(home: Path, annotations: Path) -> Path:
    near = [base / name for base in dict.fromkeys((home, annotations.parent)) for name in IMAGE_FOLDERS]
    for folder in near:
        if folder.is_dir() and list_images(folder):
            return folder
    shown = ", ".join(str(folder) for folder in near)
    raise DataError(
        f"{annotations}: no folder of its images; looked in {shown}; give it with --train-images, --val-images"
    )


def _is_xml(path: Path) -> bool:
    return path.suffix.lower() == ".xml" and not path.name.startswith(".") and path.is_file()
