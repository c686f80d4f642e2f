"""What every run leaves at its end: results.json, a table, pictures and a backbone file."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..common.environment import provenance
from ..common.files import write_json, write_text
from ..common.images import montage
from ..common.images.save import write_jpeg
from ..networks import Backbone
from ..weights import save_weights
from .record import LOGGER, RESULTS

log = logging.getLogger(LOGGER)
# Of every figure in results.json, in all tasks.
UNIT = "fraction (0 to 1)"
TABLE, BACKBONE, PICTURES = "results.md", "backbone.safetensors", "pictures"


def write_results(config: Any, record: dict[str, Any], *copies: Path) -> None:
    """Write results.json into OUTPUT_DIR, and copies of it, with unit, versions and device behind `record`."""
    record = {**record, "unit": UNIT, **provenance(torch.device(config.MODEL.DEVICE))}
    for path in (Path(config.OUTPUT_DIR) / RESULTS, *copies):
        write_json(path, record)


def write_table(config: Any, text: str) -> None:
    """Write results.md into OUTPUT_DIR, and print it."""
    write_text(Path(config.OUTPUT_DIR) / TABLE, text + "\n")
    log.info("\n%s\n", text)


def say_where(config: Any, missing: str = "") -> None:
    """Print where the results are; `missing` says why there is no table."""
    folder = Path(config.OUTPUT_DIR)
    if missing:
        log.info("results in %s (%s)", folder / RESULTS, missing)
    else:
        log.info("results      %s, %s", folder / RESULTS, folder / TABLE)


def write_pictures(
    folder: Path, pictures: Sequence[tuple[str, np.ndarray]], sheet: str, *, width: int = 640
) -> Path | None:
    """Write pictures, names with (H, W, 3) RGB, below `folder`, and a sheet of all; return it (None of none).

    Args:
        width: of each picture on the sheet.
    """
    if not pictures:
        return None
    for name, picture in pictures:
        write_jpeg(folder / PICTURES / f"{name}.jpg", picture)
    write_jpeg(folder / sheet, montage([picture for _, picture in pictures], columns=2, width=width))
    return folder / sheet


def write_backbone(network: Backbone, config: Any, metadata: dict[str, Any], hint: str = "") -> None:
    """Write the weights as a file that other trainings start from, with all that belongs to them."""
    path = Path(config.OUTPUT_DIR) / BACKBONE
    save_weights(network, path, metadata={**metadata, "iterations": config.SOLVER.MAX_ITER})
    log.info("backbone     %s%s", path, hint)
