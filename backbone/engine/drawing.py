"""Pictures of the first batches of a training, as the network gets them."""

from __future__ import annotations

import logging
from pathlib import Path

from ..common.errors import RunError
from ..common.images.save import write_jpeg
from . import distributed
from .record import LOGGER
from .task import Task

log = logging.getLogger(LOGGER)
STEPS = 4


def draw_batches(task: Task, folder: Path, seed: int) -> None:
    """Write a sheet of the images of each of the first STEPS steps of a training with this seed.

    Raises:
        RunError: this kind of task draws none, or the folder cannot be written to.
    """
    written = []
    for step, batch in enumerate(task.batches(0, STEPS), start=1):
        for name, picture in task.pictures(batch).items() if distributed.is_main() else ():
            written.append(folder / f"step_{step}_{name.replace(' ', '_')}.jpg")
            write_jpeg(written[-1], picture)
    if distributed.is_main():
        if not written:
            raise RunError("--draw: this kind of training draws no pictures")
        log.info("drew the first %d steps of seed %d: %s", STEPS, seed, ", ".join(map(str, written)))
