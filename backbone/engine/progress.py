"""How fast a run goes and how long it will take: a bar on a terminal, plain lines in the log."""

from __future__ import annotations

import logging
import sys
import time
from collections import deque

import torch
from tqdm.auto import tqdm

from ..common.waiting import duration, shows_bars
from .record import LOGGER

log = logging.getLogger(LOGGER)


class Speed:
    """Images a second, the share of time spent waiting for data, and the time left, over the last steps."""

    def __init__(self, images_per_step: int, window: int = 50) -> None:
        self.images_per_step = images_per_step
        self.steps: deque[tuple[float, float]] = deque(maxlen=window)

    def add(self, seconds: float, waiting: float) -> None:
        """Add one step: its whole time and, of it, the time spent waiting for data."""
        self.steps.append((seconds, waiting))

    @property
    def seconds_per_step(self) -> float:
        return sum(step[0] for step in self.steps) / max(1, len(self.steps))

    @property
    def images_per_second(self) -> float:
        seconds = self.seconds_per_step
        return self.images_per_step / seconds if seconds else 0.0

    @property
    def data_share(self) -> float:
        total = sum(step[0] for step in self.steps)
        return sum(step[1] for step in self.steps) / total if total else 0.0

    def time_left(self, steps: int) -> float:
        """Seconds for `steps` more steps."""
        return steps * self.seconds_per_step


def gpu_memory() -> float | None:
    """Peak memory of this process's GPU in GiB, or None on a CPU."""
    if not (torch.cuda.is_available() and torch.cuda.is_initialized()):
        return None
    return torch.cuda.max_memory_allocated() / 2**30


def peak_memory(device: torch.device) -> int:
    """Return the bytes that this process has had at once: on the GPU, or in all."""
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device)
    import resource  # not on every system

    # Linux counts in kilobytes, macOS in bytes.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


class Progress:
    """Shows a run's steps: one bar that stays on its line on a terminal, a line every so often elsewhere."""

    def __init__(self, *, start: int, total: int, visible: bool) -> None:
        self.total = total
        self.began = time.monotonic()
        self.bar = tqdm(
            total=total,
            initial=start,
            disable=not (visible and shows_bars()),
            dynamic_ncols=True,
            leave=False,
            bar_format="{percentage:3.0f}%|{bar:12}| {n_fmt}/{total_fmt} {postfix}",
        )

    def step(self, speed: Speed, iteration: int, losses: dict[str, float], rate: float) -> None:
        """Move on by one step; `losses` and `rate` are the last ones known."""
        if self.bar.disable:
            return
        self.bar.set_postfix_str(self.line(speed, iteration, losses, rate, short=True), refresh=False)
        self.bar.update(1)

    def report(self, speed: Speed, iteration: int, losses: dict[str, float], rate: float) -> None:
        """Write one line to the log; beside a bar the terminal is spared."""
        text = f"iter {iteration}/{self.total}  {self.line(speed, iteration, losses, rate)}"
        log.info(text, extra={"file_only": not self.bar.disable})

    def line(self, speed: Speed, iteration: int, losses: dict[str, float], rate: float, short: bool = False) -> str:
        """Return where the run stands; `short` for a terminal, whose edge cuts the single losses off first."""
        each = ", ".join(f"{_short(name)} {value:.3f}" for name, value in losses.items()) if len(losses) > 1 else ""
        memory = gpu_memory()
        total = f"loss {sum(losses.values()):.3f}"
        parts = [
            total if short or not each else f"{total} ({each})",
            f"lr {rate:.3g}",
            f"{speed.images_per_second:.1f} img/s",
            f"data {100 * speed.data_share:.0f}%",
            *([f"{memory:.1f} GiB"] if memory is not None else []),
            f"ETA {duration(speed.time_left(self.total - iteration))}",
            *([each] if short and each else []),
        ]
        return "  ".join(parts)

    def close(self) -> None:
        self.bar.close()


def _short(name: str) -> str:
    return name.removeprefix("loss_")
