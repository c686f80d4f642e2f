"""Loggers: one protocol for metrics.jsonl, TensorBoard, Weights & Biases, MLflow and loggers of one's own."""

from __future__ import annotations

import json
import logging
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from backbone.common.errors import ConfigError, RunError
from backbone.engine import loggers
from backbone.engine.loggers import RunLogger, RunRecord, check_loggers, register_logger
from backbone.engine.record import read_metrics
from backbone.engine.services import IDS

CONFIG = {"SOLVER": {"BASE_LR": 0.01, "STEPS": [3, 5]}, "MODEL": {"NAME": "resnet18"}}
PICTURE = np.full((6, 8, 3), 90, np.uint8)


def write(folder, *names: str, after: int = 0) -> RunRecord:
    """Report as the trainer does: two steps and an evaluation."""
    record = RunRecord(names, folder, after)
    record.config(CONFIG)
    for step in (after + 1, after + 2):
        record.scalars({"train/total_loss": 1.0 / step, "train/lr": 0.01}, step)
    record.scalars({"bbox/AP": 0.5, "bbox/AP-tea cup (big)": float("nan")}, after + 2)
    record.picture("training batch", PICTURE, after + 2)
    record.close(finished=True)
    return record


def test_a_logger_of_ones_own(tmp_path, monkeypatch):
    monkeypatch.setattr(loggers, "_makers", dict(loggers._makers))
    told = []

    class Mine(RunLogger):
        def __init__(self, folder, after):
            told.append((folder, after))

        def config(self, values):
            told.append(values["MODEL"])

        def scalars(self, values, iteration):
            told.append((iteration, sorted(values)))

        def close(self, *, finished=True):
            told.append(finished)

    register_logger("mine", Mine)
    check_loggers(["mine", "tensorboard"])
    write(tmp_path, "mine")
    step = ["train/lr", "train/total_loss"]
    figures = (2, ["bbox/AP", "bbox/AP-tea cup (big)"])
    assert told == [(tmp_path, 0), {"NAME": "resnet18"}, (1, step), (2, step), figures, True]
    lines = read_metrics(tmp_path / "metrics.jsonl")
    assert lines[:2] == [{"iteration": step, "total_loss": 1 / step, "lr": 0.01} for step in (1, 2)]
    assert lines[2]["bbox/AP"] == 0.5


def test_a_service_that_fails_does_not_end_the_run(tmp_path, monkeypatch, caplog):
    def broken(*_):
        raise OSError("no network")

    monkeypatch.setattr(logging.getLogger("backbone"), "propagate", True)
    monkeypatch.setitem(loggers._makers, "mine", lambda folder, after: SimpleNamespace(config=broken))
    record = write(tmp_path, "mine")
    assert list(record.loggers) == ["metrics"]
    assert "LOGGERS: mine failed, and the run goes on without it: no network" in caplog.text
    assert len(read_metrics(tmp_path / "metrics.jsonl")) == 3
    # One that cannot be opened ends it before the first step.
    monkeypatch.setitem(loggers._makers, "mine", broken)
    with pytest.raises(RunError, match="LOGGERS: mine cannot be opened: no network"):
        write(tmp_path, "mine")


def test_names_are_checked_before_a_run(monkeypatch):
    with pytest.raises(ConfigError, match=r"LOGGERS has 'wandbb'; it may hold .*; did you mean 'wandb'\?"):
        check_loggers(["wandbb"])
    monkeypatch.setattr(loggers.importlib.util, "find_spec", lambda name: None)
    for name in ("wandb", "mlflow"):
        with pytest.raises(RunError, match=rf"not installed; run `pip install 'resnet-detection\[{name}\]'`"):
            check_loggers([name])


def records_of(file: Path) -> Iterator[bytes]:
    """Yield what an offline run of Weights & Biases has written: LevelDB's log format behind seven bytes."""
    content, place, whole = file.read_bytes(), 7, b""
    while place + 7 <= len(content):
        if 2**15 - place % 2**15 < 7:  # no header across the end of a block
            place += 2**15 - place % 2**15
            continue
        size, kind = struct.unpack_from("<HB", content, place + 4)
        whole += content[place + 7 : place + 7 + size]
        place += 7 + size
        if kind in (1, 4):  # alone, or the last part
            yield whole
            whole = b""


def test_weights_and_biases_offline(tmp_path, monkeypatch, capfd):
    pytest.importorskip("wandb")
    from wandb.proto import wandb_internal_pb2

    monkeypatch.setenv("WANDB_MODE", "offline")
    folder = tmp_path / "run"
    folder.mkdir()
    write(folder, "wandb")
    write(folder, "wandb", after=2)
    assert capfd.readouterr() == ("", "")
    files = sorted(folder.rglob("run-*.wandb"))
    until = time.monotonic() + 10
    while min(file.stat().st_size for file in files) < 100 and time.monotonic() < until:
        time.sleep(0.1)  # a process of its own writes them
    number = json.loads((folder / IDS).read_text())["wandb"]
    assert files and all(number in file.name for file in files)
    history, config = [], {}
    for content in (content for file in files for content in records_of(file)):
        record = wandb_internal_pb2.Record.FromString(content)
        changes = [*record.run.config.update, *record.config.update]
        config |= {item.key or item.nested_key[0]: json.loads(item.value_json) for item in changes}
        history.append({item.key or "/".join(item.nested_key): item.value_json for item in record.history.item})
    assert config["SOLVER"] == CONFIG["SOLVER"]
    losses = {int(row["iteration"]): float(row["train/total_loss"]) for row in history if "train/total_loss" in row}
    assert losses == {step: 1 / step for step in (1, 2, 3, 4)}
    assert any(row.get("bbox/AP") == "0.5" for row in history)
    assert any("training batch" in name for row in history for name in row)


def test_mlflow_with_a_file_store(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "store").as_uri())
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    folder = tmp_path / "run"
    folder.mkdir()
    write(folder, "mlflow")
    write(folder, "mlflow", after=2)
    client = mlflow.MlflowClient()
    (run,) = client.search_runs([client.get_experiment_by_name("resnet-detection").experiment_id])
    assert run.info.run_id == json.loads((folder / IDS).read_text())["mlflow"]
    assert (run.info.status, run.info.run_name) == ("FINISHED", "run")
    assert run.data.params["SOLVER.STEPS"] == "[3, 5]"
    assert run.data.metrics["bbox/AP"] == 0.5
    history = client.get_metric_history(run.info.run_id, "train/total_loss")
    assert [(metric.step, metric.value) for metric in history] == [(step, 1 / step) for step in (1, 2, 3, 4)]
    assert client.list_artifacts(run.info.run_id)[0].path == "training_batch"
