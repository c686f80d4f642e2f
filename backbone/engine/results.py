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
from ..common.text import count
from ..networks import Backbone
from ..weights import save_weights
from .checkpoint import BEST, FINAL, newest
from .record import LOGGER, RESULTS
from .state import State, best_figure

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


def say_weights(folder: Path, state: State, figure: str, ema_decay: float) -> None:
    """Print which files of weights a training has left, and what each holds.

    Args:
        figure: "kind/metric", by which the best ones were chosen.
        ema_decay: of the average of the weights; 0 for none.
    """
    average = f", the average over the steps (SOLVER.EMA_DECAY {ema_decay:g})" if ema_decay else ""
    lines = [f"{folder / FINAL}: the last ones, after {count(state.iteration, 'iteration')}{average}"]
    if state.best_iteration >= 0:
        (name, value), kind = next(iter(best_figure(figure, state.best).items())), figure.rpartition("/")[0]
        lines.append(
            f"{folder / BEST}: the best ones, {kind}/{name} {value:.4f} at iteration {state.best_iteration}{average}"
        )
    if average and (last := newest(folder)) is not None:
        lines.append(f"{last}: the last ones without the average, and what --resume goes on from")
    log.info("\n".join(f"{'weights' if number == 0 else '':<12} {line}" for number, line in enumerate(lines)))


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
