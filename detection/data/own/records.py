"""Records in COCO's form, gathered image by image, and what their readers share."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from backbone.common.errors import DataError
from backbone.common.text import nearest, some

from ...coco_json.masks import polygon_area

TURNED = 5  # EXIF orientations from 5 on exchange width and height
ORIENTATION = 0x0112
# Decimals of a pixel that are kept of shares of an image: with them, whole pixels come back as they were written.
DECIMALS = 6


class Records:
    """A data set in COCO's form, under construction. Image and annotation ids count from 1."""

    def __init__(self) -> None:
        self.images: list[dict[str, Any]] = []
        self.annotations: list[dict[str, Any]] = []
        self.names: list[str] = []

    def add_image(self, name: str, size: tuple[int, int]) -> int:
        """Add an image by its name below the image folder; return its id."""
        self.images.append({"id": len(self.images) + 1, "file_name": name, "width": size[0], "height": size[1]})
        return len(self.images)

    def add_object(
        self,
        image: int,
        name: str,
        corners: Sequence[float],
        *,
        polygon: Sequence[float] | None = None,
        difficult: bool = False,
    ) -> None:
        """Add an object: XYXY corners, edges in pixels. A difficult one is marked as a crowd: left out."""
        left, top, right, bottom = corners
        self.names.append(name)
        record = {
            "id": len(self.annotations) + 1,
            "image_id": image,
            "bbox": [left, top, right - left, bottom - top],
            "area": (right - left) * (bottom - top) if polygon is None else polygon_area(polygon),
            "iscrowd": int(difficult),
        }
        if polygon is not None:
            record["segmentation"] = [list(polygon)]
        if difficult:
            record["difficult"] = 1
        self.annotations.append(record)

    def as_coco(self, classes: Sequence[str], source: Path | str, *, mend: str) -> dict[str, Any]:
        """Return the data set; category ids count from 1 in the order of `classes`.

        Raises:
            DataError: an object is of none of them.
        """
        ids = {name: index for index, name in enumerate(classes, 1)}
        for record, name in zip(self.annotations, self.names):
            if name not in ids:
                image = self.images[record["image_id"] - 1]["file_name"]
                raise DataError(
                    f"{source}: an object of {image} is a {name!r}, the classes are {some(list(classes))}"
                    f"{nearest(name, classes)}; {mend}"
                )
            record["category_id"] = ids[name]
        return {
            "info": {},
            "licenses": [],
            "images": self.images,
            "annotations": self.annotations,
            "categories": [{"id": index, "name": name} for name, index in ids.items()],
        }


def image_size(path: Path) -> tuple[int, int]:
    """Return width and height in pixels, as the image is shown: after the EXIF orientation.

    Raises:
        DataError: it cannot be read as an image.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        # A named pipe would block.
        if not os.path.isfile(path):
            raise DataError(f"{path}: is no file; give the images as files")
        with Image.open(path) as image:
            width, height = image.size
            turned = image.getexif().get(ORIENTATION, 1)
    except (OSError, SyntaxError, ValueError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{path}: cannot be read as an image ({reason}); replace the file or take it out") from None
    return (height, width) if isinstance(turned, int) and turned >= TURNED else (width, height)


def by_stem(names: Iterable[str]) -> dict[str, list[str]]:
    """Return the names of files by their stem: {"a": ["a.jpg", "a.png"]}."""
    stems: dict[str, list[str]] = {}
    for name in names:
        stems.setdefault(os.path.splitext(name)[0], []).append(name)
    return stems


def only_image(stem: str, stems: dict[str, list[str]], folder: Path, of: Path) -> str:
    """Return the image of an annotation file.

    Raises:
        DataError: there is none, or more than one.
    """
    found = stems.get(stem, [])
    if len(found) == 1:
        return found[0]
    if found:
        raise DataError(f"{of}: its image may be {' or '.join(found)} in {folder}; keep one of them")
    raise DataError(f"{of}: no image {stem}.jpg (or .png, ...) in {folder}; add the image, or take the file out")
