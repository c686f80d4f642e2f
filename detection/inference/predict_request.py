"""What tools/predict.py does in each of its processes."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from backbone import RunError
from backbone.common.text import count
from backbone.engine import distributed, slurm
from backbone.engine.extensions import import_modules
from backbone.engine.lost import Advice
from backbone.engine.processes import Launch
from backbone.engine.record import LOGGER, start_logging
from backbone.weights import resolve
from detection import register

from .detections import found_line
from .exported import ENGINES_OF
from .opening import load
from .predict import Options, predict

log = logging.getLogger(LOGGER)
ADVICE = Advice("the same command goes on with it", "--num-processes or DATALOADER.NUM_WORKERS")


@dataclass(frozen=True)
class PredictRequest:
    """A detector (see `detection.load`), what it is to detect on, and the `Options`."""

    weights: str
    device: str | None
    engine: str | None
    config: str | None
    overrides: tuple[str, ...]
    imports: tuple[str, ...]
    source: str
    output: Path
    options: dict[str, Any]


def run_request(request: PredictRequest) -> None:
    """Load the detector, predict, and let the first process say what came of it."""
    start_logging(None, quiet=not distributed.is_main())
    register()
    import_modules(request.imports)
    given = {"config": request.config, "overrides": request.overrides}
    # What is to be fetched, the first process of each machine fetches for all.
    distributed.made_once_a_machine(lambda: resolve(request.weights))
    detector = load(request.weights, request.device, "float32", request.engine, **given)
    options = Options(**request.options, weights=_facts_of(request.weights))
    outcome = predict(detector, request.source, request.output, **vars(options))
    if distributed.is_main():
        skipped = f", {outcome.skipped} unreadable skipped" if outcome.skipped else ""
        found = found_line(outcome.detections, outcome.drawn, options.least_score)
        log.info("%s, %s%s", count(outcome.images, "image"), found, skipped)
        what = "pictures and predictions.json" if options.pictures else "predictions.json"
        log.info("%s in %s", what, request.output)


def launch_of(request: PredictRequest, processes: int | None) -> Launch:
    """Return the processes that are asked for, or of which torchrun or srun has started this one.

    Raises:
        RunError: several are to share standard input.
    """
    slurm.take_over()
    given = dict(zip(request.overrides[::2], request.overrides[1::2])).get("MODEL.DEVICE")
    device = (request.device or given or ("cuda" if torch.cuda.is_available() else "cpu")).partition(":")[0]
    # Whatever else it says is refused where the config is checked.
    takes_gpu = device == "cuda" and Path(request.weights).suffix.lower() not in ENGINES_OF
    launch = Launch("cuda" if takes_gpu else "cpu", processes, advice=ADVICE)
    if request.source == "-" and launch.world_size > 1:
        # A started process has no standard input, and those of torchrun would share one.
        number = launch.world_size
        raise RunError(f"--input -: standard input is for one process, not {number}; write the list to a file")
    return launch


def _facts_of(weights: str) -> str:
    """Return the path or name of weights with the size and the time of the file, if it is one."""
    path = Path(weights)
    if not path.exists():
        return weights
    facts = path.stat()
    return f"{path.resolve()}, {facts.st_size:,} bytes, {facts.st_mtime_ns}"
