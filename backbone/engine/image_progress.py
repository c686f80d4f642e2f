"""How far a pass over images is: a bar on a terminal, a line a minute in the log elsewhere."""

from __future__ import annotations

import logging
import time

from tqdm.auto import tqdm

from .distributed import is_main, world_size
from .progress import duration, shows_bars
from .record import LOGGER

log = logging.getLogger(LOGGER)
SECONDS_BETWEEN_LINES = 60


class ImageProgress:
    """Counts images over all processes; a context."""

    def __init__(self, total: int, name: str, visible: bool) -> None:
        visible = visible and is_main()
        on_terminal = visible and shows_bars()
        self.total, self.name, self.done = total, name, 0
        self.writes = visible and not on_terminal
        self.began = self.written = time.monotonic()
        self.bar = tqdm(total=total, desc=name, unit="img", disable=not on_terminal, dynamic_ncols=True, leave=False)

    def __enter__(self) -> ImageProgress:
        return self

    def __exit__(self, *_) -> None:
        self.bar.close()

    def add(self, images: int) -> None:
        """Count images of this process; the others are taken to be as far."""
        step = min(images * world_size(), self.total - self.done)
        self.done += step
        self.bar.update(step)
        now = time.monotonic()
        if self.writes and now - self.written >= SECONDS_BETWEEN_LINES:
            self.written = now
            speed = self.done / (now - self.began)
            left = duration((self.total - self.done) / speed)
            log.info(f"{self.name}: {self.done:,} of {self.total:,} images  {speed:.1f} img/s  ETA {left}")
