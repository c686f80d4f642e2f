"""From what stands on the command line to a Request."""

from __future__ import annotations

from argparse import Namespace

import detection
from backbone import ConfigError
from backbone.engine.arguments import given_keys, overrides_of
from backbone.engine.session import Request

CUSTOM = {"train": "TRAIN", "val": "TEST"}


def make_request(arguments: Namespace) -> Request:
    """Return the request of tools/train_net.py's arguments.

    Raises:
        ConfigError: config, overrides or flags do not fit together.
    """
    given = given_keys(arguments)
    overrides = [*overrides_of(arguments, root_key="DATASETS.ROOT"), *_own_data(arguments)]
    if arguments.scheme is not None:
        overrides += ["SOLVER.SCHEME", arguments.scheme]
    return Request(
        config=detection.get_config(arguments.config, overrides),
        given=given,
        resume=arguments.resume,
        eval_only=arguments.eval_only,
        force=arguments.force,
        overwrite=arguments.overwrite,
    )


def _own_data(arguments: Namespace) -> list[object]:
    overrides: list[object] = []
    for split, section in CUSTOM.items():
        json_file, folder = getattr(arguments, f"{split}_json"), getattr(arguments, f"{split}_images")
        if (json_file is None) != (folder is None):
            missing = "images" if folder is None else "json"
            raise ConfigError(f"--{split}-json and --{split}-images belong together; --{split}-{missing} is missing")
        if json_file is None:
            continue
        name = split.upper()
        overrides += [f"DATASETS.{section}", (f"custom_{split}",)]
        overrides += [f"DATASETS.CUSTOM.{name}_JSON", json_file, f"DATASETS.CUSTOM.{name}_IMAGES", folder]
    if arguments.train_json is not None and arguments.val_json is None:
        # The config's own test set has other classes.
        overrides += ["DATASETS.TEST", ()]
    return overrides
