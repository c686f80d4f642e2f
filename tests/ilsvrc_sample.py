"""ImageNet's archives in small, in their official layout: real images where samples are there, boxes by a rule."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from detection.data.voc.det_classes import DET_WNIDS

Box = tuple[int, int, int, int]
OBJECT = (
    "<object><name>{}</name><bndbox><xmin>{}</xmin><xmax>{}</xmax><ymin>{}</ymin><ymax>{}</ymax></bndbox>"
    "<truncated>0</truncated></object>"
)


def boxes_of(index: int, width: int, height: int) -> list[Box]:
    """Return one to three boxes xmin, ymin, xmax, ymax of image number `index`, counted from 0, last pixel included."""
    sizes = (0.7, 0.4, 0.25)[: 1 + index % 3]
    return [
        (int(width * at), int(height * at), int(width * (at + size)) - 1, int(height * (at + size)) - 1)
        for at, size in zip((0.1, 0.5, 0.0), sizes)
    ]


def classes_of(index: int) -> list[str]:
    """Return the wnids of the boxes of image number `index` of DET."""
    return [DET_WNIDS[(7 * index + 3 * place) % 5 * 40] for place in range(1 + index % 3)]


def annotation(size: tuple[int, int], names: Sequence[str], boxes: Sequence[Box]) -> str:
    objects = "".join(OBJECT.format(name, box[0], box[2], box[1], box[3]) for name, box in zip(names, boxes))
    sides = f"<size><width>{size[0]}</width><height>{size[1]}</height><depth>3</depth></size>"
    return f"<annotation><folder>val</folder>{sides}{objects}</annotation>"


def place_image(path: Path, index: int, images: Sequence[Path]) -> tuple[int, int]:
    """Put image number `index` at `path`: a link to one of `images`, else drawn; return width and height."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if images:
        path.symlink_to(images[index % len(images)].resolve())
        with Image.open(path) as image:
            return image.size
    pixels = np.random.default_rng(index).integers(0, 255, (48, 64, 3), dtype=np.uint8)
    cv2.imwrite(f"{path}.jpg", pixels)
    Path(f"{path}.jpg").rename(path)
    return 64, 48


def write_det(root: Path, images: Sequence[Path] = (), *, val: int = 6) -> Path:
    """Write ImageNet DET below ROOT/ILSVRC: four training images, one of them without annotation, and two of test."""
    folder = root / "ILSVRC"
    train = [
        *("ILSVRC2013_train/n02084071/n02084071_1", "ILSVRC2013_train/n02084071/n02084071_20"),
        *("ILSVRC2014_train_0000/ILSVRC2014_train_00000001", "ILSVRC2013_train_extra0/ILSVRC2013_train_00000001"),
    ]
    splits = {
        "train": train,
        "val": [f"ILSVRC2012_val_{number:08d}" for number in range(1, val + 1)],
        "test": [f"ILSVRC2017_test_{number:08d}" for number in (1, 2)],
    }
    lists = folder / "ImageSets" / "DET"
    lists.mkdir(parents=True)
    index = 0
    for split, names in splits.items():
        (lists / f"{split}.txt").write_text("".join(f"{name} {line}\n" for line, name in enumerate(names, 1)))
        for name in names:
            size = place_image(folder / "Data" / "DET" / split / f"{name}.JPEG", index, images)
            if split != "test" and "extra" not in name:
                path = folder / "Annotations" / "DET" / split / f"{name}.xml"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(annotation(size, classes_of(index), boxes_of(index, *size)))
            index += 1
    return folder


def write_loc(root: Path, images: Sequence[Path], *, classes: int = 4, train: int = 2, val: int = 4) -> Path:
    """Write ImageNet CLS-LOC below ROOT/ILSVRC, boxes as XML, with LOC_synset_mapping.txt beside it.

    Each class has `train` training images with boxes and one without; val is flat; test has two images alone.
    """
    folder = root / "ILSVRC"
    wnids = [f"n0{1440764 + 7 * place:07d}" for place in range(classes)]
    (root / "LOC_synset_mapping.txt").parent.mkdir(parents=True, exist_ok=True)
    (root / "LOC_synset_mapping.txt").write_text("".join(f"{wnid} a, b {wnid}\n" for wnid in wnids))
    names = [(f"train/{wnid}/{wnid}_{number}", wnid) for wnid in wnids for number in range(train + 1)]
    names += [(f"val/ILSVRC2012_val_{number + 1:08d}", wnids[number % classes]) for number in range(val)]
    names += [(f"test/ILSVRC2012_test_{number:08d}", "") for number in (1, 2)]
    for index, (name, wnid) in enumerate(names):
        size = place_image(folder / "Data" / "CLS-LOC" / f"{name}.JPEG", index, images)
        if wnid and not name.endswith(f"{wnid}_{train}"):
            boxes = boxes_of(index, *size)[:2]
            path = folder / "Annotations" / "CLS-LOC" / f"{name}.xml"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(annotation(size, [wnid] * len(boxes), boxes))
    return folder
