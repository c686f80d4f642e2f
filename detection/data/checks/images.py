"""The deep check: every image file is read and decoded."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from backbone.common.errors import DataError
from backbone.common.images import has_image_magic, read_header, with_end
from backbone.common.own_data import leaves_folder
from backbone.common.reading import read_bytes
from backbone.common.waiting import Pass

from ...coco_json.columns import whole_number
from ...coco_json.files import describe_bytes
from .capture import Complaints, captured_complaints
from .files import Folder
from .kinds import Fault, Findings, name_image, show
from .structure import is_text

BATCH = 64
TURNED = 5  # EXIF orientations from 5 on exchange width and height


@dataclass
class ImageFacts:
    """What is known of one image file.

    Attributes:
        width, height: in pixels, as the image is shown: after the EXIF orientation. 0 when it cannot be decoded.
        orientation: of EXIF, 1 to 8.
        channels: 1, 3 or 4 (CMYK).
        bits: of a sample.
        used_bits: that the largest sample has, of images of more than 8 bits.
        fault: the kind that makes the file useless, or None.
        detail: what is wrong, or what the decoder said of an image that it decoded.
    """

    width: int = 0
    height: int = 0
    orientation: int = 1
    channels: int = 3
    bits: int = 8
    used_bits: int = 8
    fault: str | None = None
    detail: str = ""


def inspect_image(path: Path) -> ImageFacts:
    """Read and decode one image file."""
    try:
        content = read_bytes(path)
    except DataError as error:
        return ImageFacts(fault="unreadable-file", detail=str(error).removeprefix(f"{path}: "))
    if not content:
        return ImageFacts(fault="empty-image-file", detail="0 bytes")
    header = read_header(content)
    if header.fault:
        return ImageFacts(fault=header.fault, detail=header.detail)
    pixels = _decode(with_end(content) if header.unended else content)
    if pixels is None:
        known = has_image_magic(content)
        detail = "cannot be decoded" if known else describe_bytes(content)
        return ImageFacts(fault="broken-image" if known else "not-an-image", detail=detail)
    bits = header.bits or 8 * pixels.dtype.itemsize
    height, width = pixels.shape[:2]
    used = int(pixels.max()).bit_length() if pixels.dtype == np.uint16 else 8
    return ImageFacts(width, height, header.orientation, header.channels or 3, bits, used)


def _decode(content: bytes) -> np.ndarray | None:
    """Decode to (H, W, 3), turned as EXIF says, with the file's own depth."""
    try:
        return cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH)
    except cv2.error:
        # More pixels than OpenCV takes, or a failure inside a decoder.
        return None


def inspect_images(data: dict, images: Path, *, progress: bool = False) -> dict[str, ImageFacts]:
    """Decode every image that the data set lists and that exists, in threads.

    What decoders write to standard error meanwhile is taken for facts, not shown.

    Args:
        data: in COCO form, with a list of images.
        images: folder that the file names are relative to.
        progress: show how far it is, see `Pass`.

    Returns:
        Facts by file name.
    """
    folder = Folder(images)
    records = [record for record in data["images"] if isinstance(record, dict)]
    listed = {name: None for record in records if is_text(name := record.get("file_name"))}
    names = [name for name in listed if not leaves_folder(name) and folder.has(name)]
    facts: dict[str, ImageFacts] = {}
    pool = ThreadPoolExecutor(min(16, os.cpu_count() or 1))
    try:
        with (
            captured_complaints() as (complaints, terminal),
            Pass(len(names), "decoding", visible=progress, stream=terminal) as shown,
        ):
            for start in range(0, len(names), BATCH):
                batch = names[start : start + BATCH]
                facts.update(_inspect_batch(batch, folder.root, pool, complaints))
                shown.add(len(batch))
    finally:
        pool.shutdown(cancel_futures=True)
    return facts


def _inspect_batch(
    names: Sequence[str], root: Path, pool: ThreadPoolExecutor, complaints: Complaints
) -> dict[str, ImageFacts]:
    facts = dict(zip(names, pool.map(inspect_image, [root / name for name in names])))
    if complaints.new():
        # Which thread's image it was is not told: decode again, one by one.
        for name, found in facts.items():
            if found.fault is None:
                inspect_image(root / name)
                found.detail = complaints.new()
    return facts


def check_images(data: dict, facts: dict[str, ImageFacts], *, source: str = "the JSON") -> list[Fault]:
    """Compare a data set in COCO form with what `inspect_images` found.

    Args:
        source: what says the sizes, in words.

    Returns:
        Faults of files and sizes, and notices of what is unusual in them.
    """
    findings = Findings()
    for index, record in enumerate(record for record in data["images"] if isinstance(record, dict)):
        name = record.get("file_name")
        if is_text(name) and name in facts:
            _compare(record, name_image(record, index), facts[name], findings, source)
    return findings.faults()


def _compare(record: dict, name: str, facts: ImageFacts, findings: Findings, source: str) -> None:
    if facts.fault:
        findings.add_one(facts.fault, f"{name}: {facts.detail}")
        return
    if facts.detail:
        findings.add_one("corrupt-image-data", f"{name}: {facts.detail}")
    kind = size_fault(record, facts)
    if kind:
        sizes = f"{show(record['width'])} x {show(record['height'])} in {source}, {facts.width} x {facts.height}"
        findings.add_one(kind, f"{name}: {sizes} in the file")
    elif facts.orientation != 1:
        findings.add_one("exif-rotated", f"{name}: orientation {facts.orientation}")
    if facts.channels != 3:
        findings.add_one("grayscale-image" if facts.channels == 1 else "cmyk-image", name)
    if facts.bits > 8 and 0 < facts.used_bits <= 12:
        findings.add_one("dark-sixteen-bit-image", f"{name}: {facts.bits} bits, {facts.used_bits} in use")
    if facts.bits > 8:
        findings.add_one("sixteen-bit-image", f"{name}: {facts.bits} bits")


def size_fault(record: dict, facts: ImageFacts) -> str | None:
    """Return "size-mismatch", "exif-ignored" or None; a size that is absent or no integer is another check's."""
    written = whole_number(record.get("width")), whole_number(record.get("height"))
    if None in written or min(written) <= 0 or written == (facts.width, facts.height):
        return None
    turned = facts.orientation >= TURNED and written == (facts.height, facts.width)
    return "exif-ignored" if turned else "size-mismatch"
