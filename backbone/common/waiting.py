"""What somebody who waits sees: a line before slow imports, and how far a long pass is. Without torch."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO, TypeVar

Value = TypeVar("Value")

log = logging.getLogger("backbone")
# Lines in a log: the first tells that work goes on, the others are few enough for a pass of hours.
SECONDS_TO_FIRST_LINE, SECONDS_BETWEEN_LINES = 5, 60
LARGE = 20 * 2**20  # bytes of JSON that are read and checked in a second or more


def say_importing(*packages: str) -> None:
    """Say on a terminal that packages are imported, which takes seconds, where they are not yet.

    Elsewhere nobody waits, and a mistake that is found after them stays the only line.
    """
    missing = [name for name in packages if name not in sys.modules]
    if missing and sys.stderr.isatty():
        _say(f"importing {' and '.join(missing)} ...", sys.stderr)


def say_reading(*paths: str | Path | None) -> None:
    """Say that files are read, where that takes seconds."""
    large = [str(path) for path in paths if path is not None and os.path.isfile(path) and os.path.getsize(path) > LARGE]
    if large:
        _say(f"reading {' and '.join(large)} ...", sys.stderr if sys.stderr.isatty() else sys.stdout)


def _say(line: str, stream: TextIO) -> None:
    print(line, file=stream, flush=True)  # noqa: T201 (commands call it)


def duration(seconds: float) -> str:
    """Return "45s", "3m20s", "2h05m" or "3d04h"."""
    seconds = int(seconds + 0.5)
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86400
    if days:
        return f"{days}d{hours % 24:02d}h"
    if hours:
        return f"{hours}h{minutes % 60:02d}m"
    return f"{minutes}m{seconds % 60:02d}s" if minutes else f"{seconds}s"


def shows_bars(stream: TextIO | None = None) -> bool:
    """Whether a bar can be shown: on a terminal, and in a notebook that has widgets."""
    stream, bars = sys.stderr if stream is None else stream, _bars()
    return bars is not None and (stream.isatty() or any(kind.__module__ == "tqdm.notebook" for kind in bars.__mro__))


def _bars() -> Any:
    """Return tqdm's class; None where only the core is installed."""
    try:
        from tqdm.auto import tqdm
    except ImportError:
        return None
    return tqdm


class Pass:
    """Counts the things of a long pass; a context. A bar on a terminal, elsewhere a line in the log now and then.

    Args:
        name: what is done; unit: of one thing, with `plural` for several.
        stream: the terminal, where standard error is not it.
        delay: seconds before there is a bar.
    """

    def __init__(
        self,
        total: int,
        name: str,
        *,
        visible: bool = True,
        unit: str = "img",
        plural: str = "images",
        stream: TextIO | None = None,
        delay: float = 0,
    ) -> None:
        on_terminal = visible and shows_bars(stream)
        self.total, self.name, self.unit, self.plural, self.done = total, name, unit, plural, 0
        self.writes = visible and not on_terminal
        self.began = time.monotonic()
        self.next_line = self.began + SECONDS_TO_FIRST_LINE
        options: dict[str, Any] = {"unit": unit, "dynamic_ncols": True, "leave": False, "file": stream, "delay": delay}
        self.bar = _bars()(total=total, desc=name, **options) if on_terminal else None

    def __enter__(self) -> Pass:
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.close()

    def add(self, number: int) -> None:
        """Count things that are done."""
        number = min(number, self.total - self.done)
        self.done += number
        if self.bar is not None:
            self.bar.update(number)
        now = time.monotonic()
        if self.writes and now >= self.next_line:
            self.next_line = now + SECONDS_BETWEEN_LINES
            speed = self.done / max(1e-9, now - self.began)
            left = duration((self.total - self.done) / max(1e-9, speed))
            done = f"{self.done:,} of {self.total:,} {self.plural}"
            log.info(f"{self.name}: {done}  {speed:.1f} {self.unit}/s  ETA {left}")


def passing(values: Sequence[Value], name: str, *, unit: str, plural: str) -> Iterator[Value]:
    """Yield values, and show how far their pass is, in the first process alone, where it takes more than a second."""
    with Pass(len(values), name, visible=_is_first(), unit=unit, plural=plural, delay=1) as shown:
        for value in values:
            yield value
            shown.add(1)


def _is_first() -> bool:
    distributed = sys.modules.get("torch.distributed")
    several = distributed is not None and distributed.is_available() and distributed.is_initialized()
    return not several or distributed.get_rank() == 0
