"""One annotation file in the form of PASCAL VOC, which ImageNet has too."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from .errors import DataError
from .reading import LARGEST_TEXT, decode_text, read_bytes

SIDES = ("xmin", "ymin", "xmax", "ymax")
LARGEST_SIDE = 1_000_000  # pixels; no decoder makes more


class AnnotationFault(Exception):
    """What is wrong with an annotation file. `kind` is one of `MENDS` in `detection.data.voc.faults`."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


@dataclass(frozen=True)
class Annotation:
    """An image's size and objects.

    Attributes:
        size: width and height in pixels.
        names: of the objects' classes, as they stand in the file.
        boxes: xmin, ymin, xmax, ymax as they stand in the file, the last pixel included; VOC counts from 1, ImageNet
            from 0.
        difficult: whether each object is marked so.
    """

    size: tuple[int, int]
    names: list[str]
    boxes: list[tuple[float, float, float, float]]
    difficult: list[bool]


def read_annotation(path: str | Path) -> Annotation:
    """Read Annotations/<id>.xml. Parts of objects, poses, truncated and occluded are left out.

    Raises:
        AnnotationFault: the file is missing, no XML, declares entities, or lacks what an annotation has.
    """
    root = parse_safely(path)
    if root.tag != "annotation":
        raise AnnotationFault("not-an-annotation", f"{path}: <{root.tag}> at the top, not <annotation>")
    size = (_size(root, "width", path), _size(root, "height", path))
    names, boxes, difficult = [], [], []
    for index, item in enumerate(root.iterfind("object")):
        names.append(_text(item, "name", path, index))
        boxes.append(_box(item, path, index))
        difficult.append(_flag(item, path, index))
    return Annotation(size, names, boxes, difficult)


def parse_safely(path: str | Path) -> ElementTree.Element:
    """Parse an XML file that may come from anywhere.

    A document type is refused: entities are declared there, and a few of them expand to gigabytes. The text is decoded
    here, so that no encoding hides it.

    Raises:
        AnnotationFault: as `read_annotation`.
    """
    try:
        content = read_bytes(path, largest=LARGEST_TEXT)
    except DataError as error:
        raise AnnotationFault("missing-annotation", str(error)) from None
    try:
        text = decode_text(content)
    except UnicodeError:
        text = content.decode("latin-1")
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise AnnotationFault("unsafe-xml", f"{path}: has a document type, which can declare entities")
    try:
        return ElementTree.fromstring(text)
    except (ElementTree.ParseError, ValueError) as error:
        line = "is empty" if not text.strip() else f"is no XML ({error})"
        raise AnnotationFault("not-xml", f"{path}: {line}") from None


def _size(root: ElementTree.Element, side: str, path: str | Path) -> int:
    text = root.findtext(f"size/{side}", "").strip()
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not (1 <= number <= LARGEST_SIDE and number.is_integer()):
        raise AnnotationFault("bad-size", f"{path}: size/{side} is {text!r}")
    return int(number)


def _text(item: ElementTree.Element, key: str, path: str | Path, index: int) -> str:
    text = (item.findtext(key) or "").strip()
    if not text:
        raise AnnotationFault("missing-value", f"{path}: object {index + 1} has no <{key}>")
    return text


def _box(item: ElementTree.Element, path: str | Path, index: int) -> tuple[float, float, float, float]:
    box = item.find("bndbox")
    if box is None:
        raise AnnotationFault("missing-value", f"{path}: object {index + 1} has no <bndbox>")
    values = [_text(box, side, path, index) for side in SIDES]
    try:
        left, top, right, bottom = map(float, values)
    except ValueError:
        raise AnnotationFault("bad-number", f"{path}: object {index + 1} has the box {values}") from None
    return left, top, right, bottom


def _flag(item: ElementTree.Element, path: str | Path, index: int) -> bool:
    text = (item.findtext("difficult") or "0").strip()
    if text not in ("0", "1"):
        raise AnnotationFault("bad-number", f"{path}: object {index + 1} has <difficult> {text!r}")
    return text == "1"
