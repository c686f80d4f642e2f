"""Batches dealt out to several processes: together they draw, augment and mix what one process does."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from backbone.classification import load_config
from backbone.classification.data.sources import synthetic_images
from backbone.classification.networks import build
from backbone.classification.task import ClassificationTask
from backbone.engine.loading import Batch
from backbone.engine.share import Share

PROCESSES, IMAGES = 3, 12
EVERYTHING = {"INPUT.LIGHTING": 0.1, "INPUT.MIXUP": 0.2, "INPUT.CUTMIX": 1.0}


def make(changes: dict[str, object]) -> tuple[ClassificationTask, Batch]:
    keys = {"DATA.SYNTHETIC": True, "MODEL.NUM_CLASSES": 10, "SOLVER.IMS_PER_BATCH": IMAGES, "MODEL.MEAN_IMAGE": False}
    config = load_config("cifar10_resnet20.yaml", [part for pair in {**keys, **changes}.items() for part in pair])
    images = synthetic_images(config)
    task = ClassificationTask(build(config), images, images, config)
    return task, next(iter(task.source.steps(0, 1)))


def as_process(rank: int, folder) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=PROCESSES)
    share, found = Share.of_this_process(), []
    for changes in ({}, EVERYTHING):
        task, batch = make(changes)
        assert len(batch) == IMAGES // PROCESSES
        found += [task.augment(batch, step, share) for step in range(4)]
        # TensorBoard's picture is the main process's alone.
        if rank == 0:
            task.pictures(batch)
    torch.save(found, folder / f"{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


def test_augmentation_does_not_depend_on_the_number_of_processes(tmp_path):
    # Forked, not spawned: nothing needs to be imported again.
    mp.start_processes(as_process, (tmp_path,), nprocs=PROCESSES, start_method="fork")
    shares = [torch.load(tmp_path / f"{rank}.pt") for rank in range(PROCESSES)]
    expected = []
    for changes in ({}, EVERYTHING):
        task, batch = make(changes)
        expected += [task.augment(batch, step, Share()) for step in range(4)]
    for number, (images, targets, mixed) in enumerate(expected):
        for rank, found in enumerate(shares):
            assert torch.equal(found[number][0], images[rank::PROCESSES])
            assert torch.equal(found[number][1], targets[rank::PROCESSES])
            assert found[number][2] == mixed == (number >= 4)


@pytest.mark.parametrize("rank", range(3))
def test_shares_are_those_of_the_batches(rank):
    assert Share(rank, 3).of(np.arange(9)).tolist() == list(range(9))[rank::3]
