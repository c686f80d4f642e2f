"""Flags that name data of one's own, as config keys."""

from __future__ import annotations

from backbone import ConfigError
from backbone.engine.held_out import check_share

from ..data.own import has_part


def own_data_keys(
    *,
    train: str | None = None,
    val: str | None = None,
    split: float | None = None,
    train_images: str | None = None,
    val_images: str | None = None,
    train_json: str | None = None,
    val_json: str | None = None,
) -> list[object]:
    """Return KEY, VALUE, ... for sets of one's own; [] where none is given.

    Args:
        train, val: a file or folder in any form. Where `train` has a part for validation, `val` and `split` may be left
            out.
        split: share of the training images that is held out.
        train_images, val_images: the images' folder, where it is not found by itself.
        train_json, val_json: in place of train and val, files in COCO's form; the folders of the images are needed.

    Raises:
        ConfigError: they do not fit together.
    """
    keys: list[object] = []
    for part, section, path, json_file, folder in (
        ("train", "TRAIN", train, train_json, train_images),
        ("val", "TEST", val, val_json, val_images),
    ):
        if path is not None and json_file is not None:
            raise ConfigError(f"--{part} and --{part}-json exclude each other; --{part} takes COCO JSON too")
        if path is None and (json_file is None) != (folder is None):
            missing = "images" if folder is None else "json"
            raise ConfigError(f"--{part}-json and --{part}-images belong together; --{part}-{missing} is missing")
        if path is None and json_file is None:
            continue
        keys += [f"DATASETS.{section}", (f"custom_{part}",)]
        for end, value in (("", path), ("_JSON", json_file), ("_IMAGES", folder)):
            keys += [f"DATASETS.CUSTOM.{part.upper()}{end}", value] if value is not None else []
    trains, tests = train is not None or train_json is not None, val is not None or val_json is not None
    if split is not None:
        check_share(split, train=trains, val=tests)
        return [*keys, "DATASETS.CUSTOM.SPLIT", split, "DATASETS.TEST", ("custom_val",)]
    if trains and not tests:
        # The config's own test set has other classes.
        has_own = train is not None and has_part(train, "val")
        keys += ["DATASETS.CUSTOM.VAL", train, "DATASETS.TEST", ("custom_val",)] if has_own else ["DATASETS.TEST", ()]
    return keys
