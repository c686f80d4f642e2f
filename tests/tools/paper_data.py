"""A data root in the official layouts, made of links to the samples, for every row of Tables 7 to 12."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from ilsvrc_sample import write_det


def write_paper_root(samples: Path, root: Path, *, images: int | None = None) -> Path:
    """Lay out VOC 2007, VOC 2012, COCO 2014 with test-dev and ImageNet DET under `root`, and return it.

    VOC 2007 has the samples' VOC 2012 images. Test splits list the images of val; those of VOC 2012 have no annotation.

    Args:
        samples: the folder of `shared_data`.
        images: of each split, the first ones; all for None.
    """
    _write_voc(samples / "VOCdevkit" / "VOC2012", root / "VOCdevkit", images)
    write_coco_sets(samples / "coco", root / "coco", year=2014, images=images)
    _write_test_dev(samples / "coco", root / "coco")
    write_det(root, sorted((samples / "imagenet_sample" / "images").glob("*/*.JPEG")), val=4)
    return root


def _write_voc(samples: Path, devkit: Path, images: int | None) -> None:
    lists = samples / "ImageSets" / "Main"
    train, val = ((lists / f"{split}.txt").read_text().split()[:images] for split in ("train", "val"))
    _write_year(samples, devkit / "VOC2007", {"trainval": train, "test": val}, annotated=[*train, *val])
    _write_year(samples, devkit / "VOC2012", {"trainval": train, "test": val}, annotated=train)


def _write_year(samples: Path, year: Path, splits: dict[str, list[str]], *, annotated: Sequence[str]) -> None:
    for folder in ("ImageSets/Main", "Annotations"):
        (year / folder).mkdir(parents=True)
    for split, names in splits.items():
        (year / "ImageSets" / "Main" / f"{split}.txt").write_text("".join(f"{name}\n" for name in names))
    (year / "JPEGImages").symlink_to((samples / "JPEGImages").resolve())
    for name in annotated:
        file = f"Annotations/{name}.xml"
        (year / file).symlink_to((samples / file).resolve())


def write_coco_sets(samples: Path, root: Path, *, year: int, images: int | None = None) -> Path:
    """Write COCO's train and val of a year under `root`, from the samples' folder coco; return `root`."""
    (root / "annotations").mkdir(parents=True)
    for split in ("train", "val"):
        data = json.loads((samples / "annotations" / f"instances_{split}2017.json").read_text(encoding="utf-8"))
        data["images"] = data["images"][:images]
        kept = {image["id"] for image in data["images"]}
        data["annotations"] = [one for one in data["annotations"] if one["image_id"] in kept]
        _write_json(data, root / "annotations" / f"instances_{split}{year}.json")
        (root / f"{split}{year}").symlink_to((samples / f"{split}2017").resolve())
    return root


def _write_test_dev(samples: Path, root: Path) -> None:
    data = json.loads((root / "annotations" / "instances_val2014.json").read_text(encoding="utf-8"))
    del data["annotations"]
    _write_json(data, root / "annotations" / "image_info_test-dev2015.json")
    (root / "test2015").symlink_to((samples / "val2017").resolve())


def _write_json(data: dict, path: Path) -> None:
    path.write_text(json.dumps(data), encoding="utf-8")
