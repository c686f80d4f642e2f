"""A share of a data set held out for validation, by image."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from backbone.common.errors import DataError
from backbone.common.own_data import by_seed


def choose_images(files: Sequence[str], share: float, seed: int) -> list[str]:
    """Return the file names that are held out. The choice is by name: images that are added later change few of it.

    Raises:
        DataError: the share of so few images leaves none on one side.
    """
    wanted = max(1, round(share * len(files)))
    if not 0 < share < 1 or wanted >= len(files):
        raise DataError(f"--split {share:g} of {len(files)} images leaves none to train on; give a share such as 0.1")
    return sorted(by_seed(files, seed)[:wanted])


def keep_images(data: dict[str, Any], files: Collection[str], *, held_out: bool) -> dict[str, Any]:
    """Return a data set in COCO's form with the images of `files` alone (`held_out`), or without them."""
    images = [record for record in data["images"] if (record["file_name"] in files) == held_out]
    ids = {record["id"] for record in images}
    annotations = [record for record in data.get("annotations", []) if record.get("image_id") in ids]
    return {**data, "images": images, "annotations": annotations}
