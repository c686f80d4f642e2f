"""The deep check of a VOC split: its image files are decoded, and their sizes compared with the annotations'."""

from __future__ import annotations

from dataclasses import replace

from ..checks import Fault, check_images, in_order, inspect_images
from .read import VocObjects


def check_voc_images(objects: VocObjects, *, progress: bool = False) -> list[Fault]:
    """Decode every image of a split.

    Args:
        progress: show how far it is.

    Returns:
        What `checks.check_images` finds; without annotations sizes have nothing to be compared with.
    """
    records = [
        {"id": name, "file_name": f"{name}{objects.split.suffix}", "width": width, "height": height}
        for name, (width, height) in zip(objects.ids, objects.sizes.tolist())
    ]
    data = {"images": records}
    facts = inspect_images(data, objects.split.images, progress=progress)
    return in_order([_for_voc(fault) for fault in check_images(data, facts, source="the annotation")])


def _for_voc(fault: Fault) -> Fault:
    """Word a fault for a set that has no JSON file and cannot be mended by a copy of it."""
    mend = fault.mend.split("; --fix")[0].replace("the JSON", "the annotation")
    return replace(fault, mend=mend, fixable=False)
