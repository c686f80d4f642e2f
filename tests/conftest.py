"""What all tests share."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import quick

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"

quick.keep_memory()


def pytest_collection_finish() -> None:
    # What the tests import stays; the garbage collector need not look through it again and again.
    gc.freeze()
    if "torch" in sys.modules:
        quick.draw_blocks()


@pytest.fixture(autouse=True)
def no_log_is_left() -> Iterator[None]:
    """Take the log of a run from the terminal that it began with, which is another one in the next test."""
    yield
    record = sys.modules.get("backbone.engine.record")
    if record is not None:
        record.stop_logging()


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder with samples of COCO, VOC, CIFAR-10 and ImageNet: $SHARED_DATA, else ../shared/data."""
    folder = Path(os.environ.get("SHARED_DATA") or SHARED_DATA)
    if not folder.is_dir():
        pytest.skip(f"no folder {folder}; set SHARED_DATA to the folder with the samples of the data sets")
    return folder


@pytest.fixture
def count_calls() -> Callable[..., int]:
    """Return how many functions, Python's and C's, run inside a call: its work, on a busy machine too."""

    def count(function: Callable[..., Any], *arguments: Any) -> int:
        calls = 0

        def see(frame: Any, event: str, argument: Any) -> None:
            nonlocal calls
            calls += event in ("call", "c_call")

        before = sys.getprofile()
        sys.setprofile(see)
        try:
            function(*arguments)
        finally:
            sys.setprofile(before)
        return calls

    return count
