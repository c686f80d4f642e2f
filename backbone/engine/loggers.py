"""Where a run's numbers go: metrics.jsonl always, and the services of LOGGERS."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from ..common.commands import pip_line
from ..common.errors import ConfigError, RunError
from ..common.text import nearest
from .record import LOGGER, Events, MetricsFile, RunLogger
from .services import MlflowLogger, WandbLogger

log = logging.getLogger(LOGGER)


Maker = Callable[[Path, int], RunLogger]
# Names of LOGGERS that need the package of that name, which an extra brings.
SERVICES = ("wandb", "mlflow")
_makers: dict[str, Maker] = {"tensorboard": Events, "wandb": WandbLogger, "mlflow": MlflowLogger}


def register_logger(name: str, make: Maker) -> None:
    """Let LOGGERS name a logger of one's own; call it in a module of `--import`."""
    _makers[name] = make


def check_loggers(names: Iterable[str]) -> None:
    """Raise ConfigError for a name that is none, RunError for a service whose package is not installed."""
    for name in names:
        if name not in _makers:
            raise ConfigError(f"LOGGERS has {name!r}; it may hold {', '.join(_makers)}{nearest(str(name), _makers)}")
        if name in SERVICES and importlib.util.find_spec(name) is None:
            raise RunError(f"LOGGERS has {name}, which is not installed; run `{pip_line(name)}`")


class RunRecord(RunLogger):
    """All loggers of a run as one; of a process that is not the main one, of none.

    metrics.jsonl and TensorBoard must be written: a full disk ends the run. A service that fails is left out with a
    warning, and the run goes on.

    Raises:
        RunError: a logger cannot be opened, or a file cannot be written.
    """

    def __init__(self, names: tuple[str, ...] = (), folder: Path | None = None, after: int = 0, **metrics: Any) -> None:
        self.loggers: dict[str, Any] = {}
        if folder is None:
            return
        self.loggers["metrics"] = MetricsFile(folder, after=after, **metrics)
        for name in names:
            try:
                self.loggers[name] = _makers[name](folder, after)
            except Exception as error:
                self.close(finished=False)
                if name == "tensorboard" or isinstance(error, RunError):
                    raise
                offline = "; WANDB_MODE=offline needs no account" if name == "wandb" else ""
                raise RunError(f"LOGGERS: {name} cannot be opened: {error}{offline}") from None

    def config(self, values: dict[str, Any]) -> None:
        self._tell("config", values)

    def scalars(self, values: dict[str, float], iteration: int) -> None:
        self._tell("scalars", values, iteration)

    def picture(self, name: str, picture: np.ndarray, iteration: int) -> None:
        self._tell("picture", name, picture, iteration)

    def close(self, *, finished: bool = True) -> None:
        self._tell("close", finished=finished)

    def _tell(self, what: str, *values: Any, **more: Any) -> None:
        for name, logger in list(self.loggers.items()):
            try:
                getattr(logger, what)(*values, **more)
            except RunError:
                raise
            except Exception as error:
                if name in ("metrics", "tensorboard"):
                    raise
                log.warning("LOGGERS: %s failed, and the run goes on without it: %s", name, error)
                del self.loggers[name]
