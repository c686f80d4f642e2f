"""What all tests share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder with samples of COCO, VOC, CIFAR-10 and ImageNet: $SHARED_DATA, else ../shared/data."""
    folder = Path(os.environ.get("SHARED_DATA") or SHARED_DATA)
    if not folder.is_dir():
        pytest.skip(f"no folder {folder}; set SHARED_DATA to the folder with the samples of the data sets")
    return folder
