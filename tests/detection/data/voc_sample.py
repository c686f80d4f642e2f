"""Small PASCAL VOC folders, written as the official ones are laid out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

Object = tuple[str, tuple[float, float, float, float], bool]

OBJECT = """<object><name>{name}</name><pose>Left</pose><truncated>1</truncated><difficult>{difficult}</difficult>
<bndbox><xmax>{box[2]}</xmax><xmin>{box[0]}</xmin><ymin>{box[1]}</ymin><ymax>{box[3]}</ymax></bndbox>
<part><name>head</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>2</xmax><ymax>2</ymax></bndbox></part></object>"""


def annotation(objects: Sequence[Object], size: tuple[object, object] = (60, 40)) -> str:
    """Return an annotation file; corners stand in another order than usual, and objects have parts."""
    parts = "".join(OBJECT.format(name=name, box=box, difficult=int(hard)) for name, box, hard in objects)
    sides = f"<width>{size[0]}</width><height>{size[1]}</height><depth>3</depth>"
    return f"<annotation><folder>VOC</folder><size>{sides}</size>{parts}</annotation>"


def write_year(
    folder: Path, images: Mapping[str, Sequence[Object]], splits: Mapping[str, Sequence[str]], *, annotated: bool = True
) -> Path:
    """Write a year's folder with images of 60 x 40; `annotated=False` leaves Annotations empty."""
    import cv2

    for part in ("ImageSets/Main", "Annotations", "JPEGImages"):
        (folder / part).mkdir(parents=True)
    for split, ids in splits.items():
        (folder / "ImageSets/Main" / f"{split}.txt").write_text("".join(f"{name}\n" for name in ids))
    for name, objects in images.items():
        cv2.imwrite(str(folder / "JPEGImages" / f"{name}.jpg"), np.full((40, 60, 3), 90, dtype=np.uint8))
        if annotated:
            (folder / "Annotations" / f"{name}.xml").write_text(annotation(objects))
    return folder
