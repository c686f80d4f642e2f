"""Where the data sets lie under a data root, in their official layouts."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from backbone.common.errors import DataError
from backbone.common.mini_set import mini_set_root
from backbone.common.text import nearest

from .own import Place
from .voc import VocSplit, find_det_split, find_split
from .voc.det import SPLITS as DET_SPLITS

ROOT_VARIABLE = "DETECTRON2_DATASETS"
DEFAULT_ROOT = Path("datasets")


@dataclass(frozen=True)
class Source:
    """Files of one set. `official` sets come from their makers; small faults in them are skipped, not refused.

    Attributes:
        json_file: in COCO form; of a set of VOC or ImageNet DET the list of its images.
        own: of a set of one's own, given by --train or --val: its form and where it lies.
        voc: of those of VOC and DET, where the rest lies.
        registered: it is a set of detectron2's DatasetCatalog.
    """

    name: str
    json_file: Path
    image_folder: Path
    official: bool = False
    own: Place | None = None
    voc: VocSplit | None = None
    registered: bool = False

    @property
    def flags(self) -> str:
        """Flags of tools/check_data.py that name this set; "" where it cannot read it."""
        if self.registered:
            return ""
        if self.own is not None:
            return self.own.flags
        return f"--json {self.json_file} --images {self.image_folder}"


# name -> (annotation file, image folder) under the data root.
COCO_SETS = {
    f"coco_{year}_{split}": (f"coco/annotations/instances_{split}{year}.json", f"coco/{split}{year}")
    for year in (2014, 2017)
    for split in ("train", "val")
}
# The same images with the persons and their keypoints, under detectron2's names.
COCO_SETS |= {
    f"keypoints_coco_{year}_{split}": (f"coco/annotations/person_keypoints_{split}{year}.json", f"coco/{split}{year}")
    for year in (2014, 2017)
    for split in ("train", "val")
}
# Images to detect on for the evaluation server: no annotations.
COCO_SETS |= {
    f"coco_{year}_test-dev": (f"coco/annotations/image_info_test-dev{year}.json", f"coco/test{year}")
    for year in (2015, 2017)
}
VOC_SETS = {
    f"voc_{year}_{split}": (year, split) for year in (2007, 2012) for split in ("train", "val", "trainval", "test")
}
# Their annotations stay with the evaluation server.
VOC_WITHOUT_ANNOTATIONS = ("voc_2012_test",)
# Of ImageNet DET; val1 and val2 are the halves of val.
DET_SETS = {f"imagenet_det_{split}": split for split in DET_SPLITS}
# Unions for training, as the literature writes them: 07+12 and 07++12.
UNIONS = {
    "voc_0712": ("voc_2007_trainval", "voc_2012_trainval"),
    "voc_0712plus": ("voc_2007_trainval", "voc_2007_test", "voc_2012_trainval"),
}
MINI_SETS = {f"mini_{split}": split for split in ("train", "val")}
CUSTOM_SETS = ("custom_train", "custom_val")


def known_sets() -> list[str]:
    return [*COCO_SETS, *VOC_SETS, *DET_SETS, *UNIONS, *MINI_SETS, *CUSTOM_SETS]


def catalog_sets() -> list[str]:
    """Return the sets that training can name without further keys; those for detectron2's DatasetCatalog."""
    hidden = [name for name in COCO_SETS if name.endswith("test-dev")]
    return [name for name in known_sets() if name not in (*CUSTOM_SETS, *VOC_WITHOUT_ANNOTATIONS, *hidden)]


def parts_of(name: str) -> tuple[str, ...]:
    """Return the sets that a union stands for; of any other name, the name."""
    return UNIONS.get(name, (name,))


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
    if name in VOC_SETS or name in DET_SETS:
        return _locate_voc(name, find_data_root(data_root))
    if name in UNIONS:
        raise DataError(f"{name} is a union for training; name its parts instead: {', '.join(UNIONS[name])}")
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


def _locate_voc(name: str, root: Path) -> Source:
    try:
        if name in DET_SETS:
            voc = find_det_split(root, DET_SETS[name])
        else:
            voc = find_split(root, *VOC_SETS[name], annotated=name not in VOC_WITHOUT_ANNOTATIONS)
    except DataError as error:
        raise DataError(f"{name}: {error}") from None
    return Source(name, voc.list_file, voc.images, official=True, voc=voc)
