"""Where the data sets lie when no folder is named."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ..common.errors import DataError


def data_root(config: Any) -> Path:
    """Return DATA.ROOT, else $DETECTRON2_DATASETS, else ./datasets.

    Raises:
        DataError: it does not exist.
    """
    root = Path(config.DATA.ROOT or os.environ.get("DETECTRON2_DATASETS") or "datasets")
    if not root.exists():
        raise DataError(f"{root}: the data root does not exist; give --data-root (of {config.DATA.NAME})")
    return root
