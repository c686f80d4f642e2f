"""Where the data sets lie under a data root, in their official layouts."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from backbone.errors import DataError
from backbone.text import nearest

from .mini import mini_set_root

ROOT_VARIABLE = "DETECTRON2_DATASETS"
DEFAULT_ROOT = Path("datasets")


@dataclass(frozen=True)
class Source:
    """Files of one set. `official` sets come from their makers; small faults in them are skipped, not refused."""

    name: str
    json_file: Path
    image_folder: Path
    official: bool = False


# name -> (annotation file, image folder) under the data root.
COCO_SETS = {
    f"coco_{year}_{split}": (f"coco/annotations/instances_{split}{year}.json", f"coco/{split}{year}")
    for year in (2014, 2017)
    for split in ("train", "val")
}
MINI_SETS = {f"mini_{split}": split for split in ("train", "val")}
CUSTOM_SETS = ("custom_train", "custom_val")


def known_sets() -> list[str]:
    return [*COCO_SETS, *MINI_SETS, *CUSTOM_SETS]


def find_data_root(given: str | Path | None) -> Path:
    """Return the data root: the given one, else $DETECTRON2_DATASETS, else ./datasets."""
    return Path(given or os.environ.get(ROOT_VARIABLE) or DEFAULT_ROOT).expanduser()


def locate(name: str, data_root: str | Path | None = None) -> Source:
    """Return where the set `name` lies; the mini set is drawn when it is not there yet.

    Raises:
        DataError: unknown name, or a file or folder that is missing.
    """
    if name in MINI_SETS:
        root = mini_set_root()
        split = MINI_SETS[name]
        return Source(name, root / "annotations" / f"instances_{split}.json", root / split)
    if name not in COCO_SETS:
        raise DataError(f"unknown data set {name!r}{nearest(name, known_sets())}")
    root = find_data_root(data_root)
    source = Source(name, *(root / part for part in COCO_SETS[name]), official=True)
    for path in (source.json_file, source.image_folder):
        if not path.exists():
            raise DataError(
                f"{name}: {path} does not exist; --data-root or ${ROOT_VARIABLE} must name the folder "
                f"that holds {path.relative_to(root)}"
            )
    return source
