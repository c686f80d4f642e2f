"""How the processes of a run agree on its end without asking each other at every step."""

from __future__ import annotations

import time
from collections.abc import Sequence

from . import distributed
from .hooks import Hook

# Microseconds between two questions, about; a signal or a call of `stop` may wait that long.
PERIOD = 1_000_000
# Steps between two questions at most: the first steps after a pause may be far quicker than those that follow.
STEPS = 64


class Agreement:
    """Finds out whether any process asks for the end of the run.

    Asking takes a wait for the slowest process. So it is done about once a second, at steps that all processes know
    beforehand, and where `ask` says "now"; with hooks that act at every step, and may stop the run there, at each.

    Args:
        hooks: of the run.
    """

    def __init__(self, hooks: Sequence[Hook]) -> None:
        self._always = any(
            getattr(type(hook), place) is not getattr(Hook, place)
            for hook in hooks
            for place in ("before_step", "after_step")
        )
        self._gap = self._left = 1
        self._began = time.monotonic()

    def ask(self, wish: int, *, now: bool) -> int:
        """Return the greatest wish of all processes, 0 between two questions. Called once a step, in every process.

        Args:
            wish: of this process; one that was not asked for must be brought again.
            now: ask at this step; the same in every process.
        """
        if not distributed.is_distributed():
            return wish
        self._left -= 1
        if self._left > 0 and not now and not self._always:
            return 0
        took = int(1e6 * (time.monotonic() - self._began) / (self._gap - self._left))
        wish, took = distributed.greatest(wish, took)
        self._gap = self._left = min(max(PERIOD // max(took, 1), 1), STEPS)
        self._began = time.monotonic()
        return wish

    def ask_next(self) -> None:
        """Ask at the next step. Called in every process."""
        self._gap = self._left = 1
        self._began = time.monotonic()
