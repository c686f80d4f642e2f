"""The folder of what is made once and used again, of this user."""

from __future__ import annotations

import os
from pathlib import Path

from .errors import DataError

CACHE_VARIABLE = "RESNET_DETECTION_CACHE"


def cache_folder() -> Path:
    """Return $RESNET_DETECTION_CACHE, else $XDG_CACHE_HOME/resnet-detection, else ~/.cache/resnet-detection.

    Raises:
        DataError: there is no home folder either.
    """
    chosen, shared = os.environ.get(CACHE_VARIABLE), os.environ.get("XDG_CACHE_HOME")
    try:
        return Path(chosen).expanduser() if chosen else Path(shared or "~/.cache").expanduser() / "resnet-detection"
    except RuntimeError as error:
        raise DataError(f"no home folder is known; set {CACHE_VARIABLE} to a folder you can write") from error
