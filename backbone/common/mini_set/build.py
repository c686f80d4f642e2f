"""Writing the mini set in COCO form, and keeping a copy in the user's cache."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import time
from pathlib import Path

import cv2

from ..cache import CACHE_VARIABLE, cache_folder
from ..errors import DataError
from .masks import polygons, run_lengths, tight_box
from .scene import Instance, draw_scene
from .shapes import CLASSES, SHAPES

VERSION = 1  # part of the cache folder's name; raise it when a change alters what is drawn
TRAIN_IMAGES, VAL_IMAGES = 200, 50
SPLITS = ("train", "val")
JPEG_QUALITY = 92
ABANDONED_SECONDS = 3600


def write_mini_set(root: Path, *, seed: int = 0, train: int = TRAIN_IMAGES, val: int = VAL_IMAGES) -> None:
    """Draw the set into `root`: train/*.jpg, val/*.jpg, annotations/instances_{train,val}.json.

    The same seed gives the same bytes with the same releases of numpy and OpenCV. An image depends on the seed, its
    split and its index alone, so a smaller set is the beginning of a larger one.

    Raises:
        DataError: a negative seed or number of images, or a folder that cannot be written.
    """
    for name, value in (("seed", seed), ("train", train), ("val", val)):
        if value < 0:
            raise DataError(f"mini set: {name} must be 0 or more, not {value}")
    root = Path(root)
    try:
        for split, images in zip(SPLITS, (train, val)):
            _write_split(root, split, seed, images)
    except OSError as error:
        place, reason = error.filename or root, error.strerror or error
        raise DataError(
            f"mini set: cannot write {place}: {reason}; choose a folder that is writable and has room"
        ) from error


def mini_set_root(seed: int = 0) -> Path:
    """Return the folder of the set with this seed, drawn into the cache when first asked for (seconds).

    For the cache see `cache_folder`. The set is drawn into a temporary folder beside its place and renamed: who is
    interrupted leaves no half-made set, and of two at once the first one done wins.

    Raises:
        DataError: a negative seed, a cache folder that cannot be written, or a set in it with its annotations missing.
    """
    root = cache_folder() / f"mini-v{VERSION}-seed{seed}"
    # os.path's test is false, where Path's may raise, for a place that may not be looked at.
    if not os.path.exists(root):
        _draw_into_cache(root, seed)
    for split in SPLITS:
        path = _annotations_path(root, split)
        if not path.is_file():
            raise DataError(f"mini set: {path} is missing; delete {root} and it is drawn again")
    return root


def _draw_into_cache(root: Path, seed: int) -> None:
    prefix = f".{root.name}-"
    _drop_abandoned(root.parent, prefix)
    temporary = root.with_name(f"{prefix}{os.getpid()}-{secrets.token_hex(4)}")
    try:
        write_mini_set(temporary, seed=seed)
        temporary.rename(root)
    except DataError as error:
        raise DataError(f"{error} (${CACHE_VARIABLE} names the cache)") from error
    except OSError as error:
        # A folder with something in it is never replaced; where there is one, another process was first.
        if not root.is_dir():
            raise DataError(f"mini set: cannot make {root}: {error.strerror}; set ${CACHE_VARIABLE}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _drop_abandoned(cache: Path, prefix: str) -> None:
    """Remove the temporary folders of processes that were killed; one that is still drawing is far younger."""
    with contextlib.suppress(OSError):
        for folder in cache.glob(f"{prefix}*"):
            if time.time() - folder.stat().st_mtime > ABANDONED_SECONDS:
                shutil.rmtree(folder, ignore_errors=True)


def _annotations_path(root: Path, split: str) -> Path:
    return root / "annotations" / f"instances_{split}.json"


def _write_split(root: Path, split: str, seed: int, count: int) -> None:
    folder = root / split
    folder.mkdir(parents=True, exist_ok=True)
    images, annotations = [], []
    for index in range(count):
        scene = draw_scene(seed, SPLITS.index(split), index)
        height, width = scene.image.shape[:2]
        name = f"{index + 1:06d}.jpg"
        encoded = cv2.imencode(".jpg", scene.image, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1]
        (folder / name).write_bytes(encoded.tobytes())
        images.append({"id": index + 1, "file_name": name, "width": width, "height": height, "license": 1})
        for instance in scene.instances:
            annotations.append(_annotation(instance, identity=len(annotations) + 1, image_id=index + 1))
    content = {**_header(split, seed), "images": images, "annotations": annotations}
    path = _annotations_path(root, split)
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")


def _annotation(instance: Instance, *, identity: int, image_id: int) -> dict[str, object]:
    return {
        "id": identity,
        "image_id": image_id,
        "category_id": CLASSES.index(instance.name) + 1,
        "iscrowd": int(instance.crowd),
        "area": int(instance.mask.sum()),
        "bbox": tight_box(instance.mask),
        "segmentation": run_lengths(instance.mask) if instance.crowd else polygons(instance.mask),
    }


def _header(split: str, seed: int) -> dict[str, object]:
    return {
        "info": {"description": f"Built-in mini detection set, {split}", "version": str(VERSION), "seed": seed},
        "licenses": [
            {"id": 1, "name": "CC0 1.0 Universal", "url": "https://creativecommons.org/publicdomain/zero/1.0/"}
        ],
        "categories": [
            {"id": number, "name": name, "supercategory": SHAPES[name].supercategory}
            for number, name in enumerate(CLASSES, start=1)
        ],
    }
