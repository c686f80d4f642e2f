"""COCO's own form, and LVIS, which names its images by URL: the folder of the images is found."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath
from typing import Any

from backbone.common.errors import DataError
from backbone.common.own_data import find_folder, leaves_folder

from ..checks import Fault, read_json

# JSON of other tools, by a key that gives it away -> what to do.
OTHERS = {
    "shapes": "it is a file of LabelMe; export the set as COCO (labelme2coco) or draw it in a tool that does",
    "assets": "it is a project of VoTT; export it as PASCAL VOC",
    "_via_img_metadata": "it is a project of VIA; export the annotations as COCO",
}
TASKS = "it is Label Studio's own JSON; export the project as COCO"
CREATE_ML = "it is CreateML's JSON; export the set as COCO"


def read_coco(source: Path, images: Path | None) -> tuple[object, list[Fault], Path]:
    """Read a file in COCO's or LVIS's form.

    Returns:
        What it holds (None where it cannot be read), the faults of the file as such, and the folder of the images.

    Raises:
        DataError: it is of another tool, or no folder holds its images.
    """
    data, faults = read_json(source)
    if hint := _of_another_tool(data):
        raise DataError(f"{source}: no COCO JSON: {hint}")
    records = data.get("images") if isinstance(data, dict) else None
    if not isinstance(records, list):
        return data, faults, images or source.parent
    names = [_names(record) for record in records if isinstance(record, dict)]
    folder = images or find_folder(source, [name for name, *_ in filter(None, names)])
    for record in records:
        if isinstance(record, dict) and "file_name" not in record and _names(record):
            # LVIS draws on train2017 and val2017 of COCO, and says by the URL which.
            long, short = _names(record)
            record["file_name"] = long if (folder / long).is_file() else short
        elif isinstance(record, dict) and isinstance(record.get("file_name"), str):
            record["file_name"] = _below(folder, record["file_name"])
    return data, faults, folder


def _names(record: dict[str, Any]) -> list[str]:
    """Return the name of an image below its folder, the likeliest first."""
    if isinstance(record.get("file_name"), str):
        return [record["file_name"]]
    url = record.get("coco_url")
    if not isinstance(url, str):
        return []
    return ["/".join(PurePosixPath(url).parts[-2:]), PurePosixPath(url).name]


def _of_another_tool(data: object) -> str | None:
    if isinstance(data, dict):
        return next((hint for key, hint in OTHERS.items() if key in data and "images" not in data), None)
    first = data[0] if isinstance(data, list) and data else None
    if not isinstance(first, dict):
        return None
    if "data" in first and ("annotations" in first or "completions" in first):
        return TASKS
    return CREATE_ML if "image" in first and "annotations" in first else None


def _below(folder: Path, name: str) -> str:
    """Return a file name as it is here: Label Studio writes images\\\\a.jpg on Windows, others a folder of theirs."""
    if os.path.isfile(folder / name) or leaves_folder(name):
        return name
    plain = name.replace("\\", "/")
    if os.path.isfile(folder / plain):
        return plain
    bare = PurePosixPath(plain).name
    return bare if os.path.isfile(folder / bare) else name
