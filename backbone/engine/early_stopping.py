"""Training ends where it has long been no better: TEST.PATIENCE."""

from __future__ import annotations

from typing import Any

from ..common.text import count
from .hooks import Hook, Run


class EarlyStopping(Hook):
    """Stops a run after `patience` evaluations, one after the other, without a new best.

    The best is the one that decides about model_best.pth.
    """

    def __init__(self, patience: int) -> None:
        self.patience = patience
        self.without = 0

    def after_evaluation(self, trainer: Run) -> None:
        state = trainer.state
        if not any(state.results.values()):
            return
        self.without = 0 if state.best_iteration == state.iteration else self.without + 1
        if self.without >= self.patience and not state.stopped:
            behind = f"no new best of {trainer.settings.best} in {count(self.without, 'evaluation')}"
            trainer.stop(f"{behind}, the best was at iteration {state.best_iteration} (TEST.PATIENCE {self.patience})")

    def state_dict(self) -> dict[str, Any]:
        return {"without": self.without}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.without = state["without"]
