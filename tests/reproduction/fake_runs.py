"""Run folders as tools/pretrain.py leaves them, made up: what gathering and reports are tested on."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

from backbone.classification import load_config
from backbone.engine.config import dump

VERSIONS = {"python": "3.11.7", "torch": "2.11.0", "torchvision": "0.26.0"}


def make_run(
    runs: Path,
    stem: str,
    *,
    error: float = 0.09,
    iterations: int | None = None,
    finished: bool = True,
    protocols: Sequence[str] | None = None,
    overrides: Sequence[object] = (),
    date: str = "2026-01-02T03:04:05+00:00",
) -> Path:
    """Write a run folder of configs/<stem>.yaml.

    Args:
        error: top-1 error at the end, a share; top-5 is a fifth of it.
        iterations: steps done (else all of the schedule).
        protocols: tested at the end (else the config's).
    """
    config = load_config(stem, overrides)
    folder = runs / stem
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(dump(config), encoding="utf-8")
    total = config.SOLVER.MAX_ITER
    done = total if iterations is None else iterations
    metrics = curve_lines(done, total, error, config.TEST.PROTOCOL)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in metrics), encoding="utf-8")
    if finished:
        tested = protocols if protocols is not None else (config.TEST.PROTOCOL, *config.TEST.FINAL_PROTOCOLS)
        write_results(folder, dict.fromkeys(tested, error), iteration=done, date=date)
    return folder


def write_results(folder: Path, errors: dict[str, float], *, iteration: int | None, date: str) -> None:
    """Write the results.json of a training, or of a test where `iteration` is None."""
    folder.mkdir(parents=True, exist_ok=True)
    tests = {
        name: {"top1_error": error, "top5_error": error / 5, "top1_accuracy": 1 - error, "images": 10000}
        for name, error in errors.items()
    }
    extra = {} if iteration is None else {"iteration": iteration}
    record = {**tests, **extra, "versions": VERSIONS, "device": "Some GPU", "command": "pretrain.py", "date": date}
    (folder / "results.json").write_text(json.dumps(record), encoding="utf-8")


def curve_lines(done: int, total: int, error: float, protocol: str, *, lines: int = 400) -> list[dict]:
    """Return metrics of a run that falls from chance to `error`, with two drops of the rate."""
    rows = []
    for index in range(1, lines + 1):
        at = round(index * total / lines)
        if at > done:
            break
        drops = (at > total / 2) + (at > 0.75 * total)
        level = error + 0.8 * math.exp(-12 * at / total) + 0.06 * (2 - drops)
        noise = 0.01 * math.sin(index * 1.7)
        rows.append(
            {
                "iteration": at,
                "lr": 0.1**drops,
                "total_loss": level,
                "train_error": max(0.0, 0.7 * level - 0.03 + noise),
            }
        )
        if index % 10 == 0:
            rows.append({"iteration": at, f"{protocol}/top1_error": level + 2 * noise * (2 - drops)})
    return rows
