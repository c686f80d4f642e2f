"""The end of a training: cut off in its last step, gone on from by a longer run, and in several processes."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import warm_commands

from backbone.classification import load_config
from backbone.classification.data import ImagesInMemory
from backbone.classification.networks import build
from backbone.classification.optimizer import make_optimizer
from backbone.classification.task import ClassificationTask
from backbone.engine import checkpoint
from backbone.engine.record import read_metrics
from backbone.engine.solver import make_schedule, make_settings
from backbone.engine.trainer import Trainer

KEYS = {
    "MODEL.NUM_CLASSES": 10,
    "MODEL.DEVICE": "cpu",
    "MODEL.MEAN_IMAGE": False,
    "SOLVER.IMS_PER_BATCH": 4,
    "SOLVER.EMA_DECAY": 0.5,
    "SOLVER.CHECKPOINT_PERIOD": 2,
    "SOLVER.CHECKPOINTS_TO_KEEP": 9,
    "TEST.PRECISE_BN.NUM_IMAGES": 8,
}


def images(number: int) -> ImagesInMemory:
    random = np.random.default_rng(number)
    pixels = random.integers(0, 256, (number, 32, 32, 3), dtype=np.uint8)
    return ImagesInMemory("noise", list("0123456789"), random.integers(0, 10, number), pixels)


def make(folder: Path, **changes: object) -> Trainer:
    keys = {**KEYS, "OUTPUT_DIR": str(folder), **{key.replace("__", "."): value for key, value in changes.items()}}
    folder.mkdir(exist_ok=True)
    config = load_config("cifar10_resnet20.yaml", [part for pair in keys.items() for part in pair])
    torch.manual_seed(0)
    task = ClassificationTask(build(config), images(24), images(8), config)
    settings = make_settings(config, best="single/top1_accuracy")
    return Trainer(task, make_optimizer(task.model, config), make_schedule(config), settings)


def resumed(folder: Path, **changes: object) -> Trainer:
    trainer = make(folder, **changes)
    trainer.resume(checkpoint.newest(folder))
    return trainer


def assert_same(first: Path, second: Path, *names: str) -> None:
    """The two runs wrote the same weights, and measured the same."""
    for name in names:
        one, other = checkpoint.load(first / name), checkpoint.load(second / name)
        assert one["metadata"]["bn_statistics"] == other["metadata"]["bn_statistics"], name
        assert all(torch.equal(value, other["model"][key]) for key, value in one["model"].items()), name


def evaluations(folder: Path) -> dict[int, float]:
    lines = read_metrics(folder / "metrics.jsonl")
    return {line["iteration"]: line["single/top1_accuracy"] for line in lines if "single/top1_accuracy" in line}


def test_sigterm_in_the_last_step(tmp_path):
    keys = {"SOLVER__MAX_ITER": 3}
    make(tmp_path / "whole", **keys).train()
    trainer = make(tmp_path / "cut", **keys)
    stepped = trainer.task.stepped

    def killed(iteration: int) -> None:
        stepped(iteration)
        if iteration == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    trainer.task.stepped = killed
    with pytest.raises(SystemExit) as ended:
        trainer.train()
    assert ended.value.code == 128 + signal.SIGTERM
    state = resumed(tmp_path / "cut", **keys).train()
    assert_same(tmp_path / "whole", tmp_path / "cut", "model_final.pth", "model_0000003.pth", "model_best.pth")
    assert evaluations(tmp_path / "cut") == evaluations(tmp_path / "whole")
    assert checkpoint.load(tmp_path / "cut" / "model_final.pth")["metadata"]["bn_statistics"] == "precise"
    assert state.best_iteration == 3


@pytest.mark.parametrize("period", [1, 2])
def test_a_longer_run_is_as_if_it_had_been_as_long_from_the_beginning(tmp_path, period):
    keys = {"TEST__EVAL_PERIOD": period, "SOLVER__STEPS": ()}
    whole = make(tmp_path / "whole", SOLVER__MAX_ITER=6, **keys).train()
    make(tmp_path / "longer", SOLVER__MAX_ITER=3, **keys).train()
    state = resumed(tmp_path / "longer", SOLVER__MAX_ITER=6, **keys).train()
    assert_same(tmp_path / "whole", tmp_path / "longer", "model_0000004.pth", "model_final.pth")
    for iteration in (4, 5, 6):
        assert evaluations(tmp_path / "longer").get(iteration) == evaluations(tmp_path / "whole").get(iteration)
    best = checkpoint.load(tmp_path / "longer" / "model_best.pth")
    assert best["iteration"] == state.best_iteration
    assert best["metadata"]["bn_statistics"] == ("precise" if state.best_iteration == 6 else "moving")
    if state.best_iteration == whole.best_iteration:
        assert_same(tmp_path / "whole", tmp_path / "longer", "model_best.pth")


def evaluate_in(rank: int, folder: Path) -> None:
    os.environ |= {"OMP_NUM_THREADS": "1"}
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    trainer = make(folder / str(rank), SOLVER__MAX_ITER=2, TEST__EVAL_PERIOD=1, TEST__PRECISE_BN__ENABLED=False)
    task, tested = trainer.task, []
    task.test_with = lambda protocols: tested.append(task.network().state_dict()) or {}
    trainer.train()
    torch.save(tested, folder / f"{rank}.pth")
    dist.barrier()
    dist.destroy_process_group()


def test_all_processes_test_one_network(tmp_path):
    """Averaged BN statistics, too, are those of the main process; each process has seen other images."""
    warm_commands.call(evaluate_in, tmp_path)
    first, second = (torch.load(tmp_path / f"{rank}.pth") for rank in (0, 1))
    assert len(first) == len(second) == 2
    for one, other in zip(first, second):
        assert all(torch.equal(value, other[name]) for name, value in one.items())
