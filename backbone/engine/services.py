"""Services that take a run's numbers: Weights & Biases and MLflow. Each needs the package of its extra."""

from __future__ import annotations

import json
import logging
import math
import os
import re
import time
from pathlib import Path
from typing import Any

import numpy as np

from ..common.files import write_json
from .config import flat
from .record import LOGGER, RunLogger

log = logging.getLogger(LOGGER)
# The project (Weights & Biases) or experiment (MLflow) of a run, where their environment variables name none.
PROJECT = "resnet-detection"
# In the run folder: the ids by which a resumed run goes on in the services.
IDS = "loggers.json"


class WandbLogger(RunLogger):
    """Weights & Biases, as its environment says: WANDB_MODE, WANDB_PROJECT, WANDB_ENTITY, WANDB_API_KEY."""

    def __init__(self, folder: Path, after: int) -> None:
        import wandb

        self.wandb = wandb
        known = _known_ids(folder).get("wandb") if after else None
        settings = wandb.Settings(silent=True, console="off")
        project = os.environ.get("WANDB_PROJECT", PROJECT)
        self.run = wandb.init(
            project=project,
            name=folder.name,
            dir=str(folder),
            id=known,
            resume="allow" if known else None,
            settings=settings,
        )
        # Not wandb's own count of calls: a resumed run goes back to the step of its checkpoint.
        self.run.define_metric("*", step_metric="iteration")
        _keep_id(folder, "wandb", self.run.id)
        log.info("wandb        %s", Path(self.run.dir).parent if self.run.offline else self.run.url)

    def config(self, values: dict[str, Any]) -> None:
        self.run.config.update(values, allow_val_change=True)

    def scalars(self, values: dict[str, float], iteration: int) -> None:
        self.run.log({"iteration": iteration, **values})

    def picture(self, name: str, picture: np.ndarray, iteration: int) -> None:
        self.run.log({"iteration": iteration, name: self.wandb.Image(picture)})

    def close(self, *, finished: bool = True) -> None:
        self.run.finish(exit_code=0 if finished else 1)


class MlflowLogger(RunLogger):
    """MLflow, as its environment says: MLFLOW_TRACKING_URI, MLFLOW_EXPERIMENT_NAME."""

    def __init__(self, folder: Path, after: int) -> None:
        from mlflow import MlflowClient
        from mlflow.entities import Metric, Param

        self.Metric, self.Param = Metric, Param
        self.client = MlflowClient()
        known = _known_ids(folder).get("mlflow") if after else None
        if known is None:
            name = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
            experiment = self.client.get_experiment_by_name(name)
            number = experiment.experiment_id if experiment else self.client.create_experiment(name)
            known = self.client.create_run(number, run_name=folder.name).info.run_id
            _keep_id(folder, "mlflow", known)
        else:
            self.client.set_terminated(known, "RUNNING")
        self.id = known
        log.info("mlflow       run %s", self.id)

    def config(self, values: dict[str, Any]) -> None:
        # A parameter cannot change: of a resumed run it is what the run began with.
        had = self.client.get_run(self.id).data.params
        items = [self.Param(_allowed(key), str(value)[:500]) for key, value in flat(values) if key not in had]
        for start in range(0, len(items), 100):
            self.client.log_batch(self.id, params=items[start : start + 100])

    def scalars(self, values: dict[str, float], iteration: int) -> None:
        now = int(time.time() * 1000)
        finite = {name: float(value) for name, value in values.items() if math.isfinite(value)}
        self.client.log_batch(
            self.id, metrics=[self.Metric(_allowed(name), value, now, iteration) for name, value in finite.items()]
        )

    def picture(self, name: str, picture: np.ndarray, iteration: int) -> None:
        self.client.log_image(self.id, picture, artifact_file=f"{_allowed(name).replace(' ', '_')}/{iteration:07d}.jpg")

    def close(self, *, finished: bool = True) -> None:
        self.client.set_terminated(self.id, "FINISHED" if finished else "KILLED")


def _known_ids(folder: Path) -> dict[str, str]:
    try:
        return dict(json.loads((folder / IDS).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return {}


def _keep_id(folder: Path, service: str, number: str) -> None:
    write_json(folder / IDS, {**_known_ids(folder), service: number})


def _allowed(name: str) -> str:
    """Return a name in the letters that MLflow takes."""
    return re.sub(r"[^\w\-. /]", "_", name, flags=re.ASCII)
