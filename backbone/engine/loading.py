"""Batches that are a function of the seed and the step alone, so a resumed run sees what it would have seen.

Nothing is remembered between steps: the order of images, their grouping by aspect and every random draw follow from
(seed, position). A loader can start at any step, with any number of worker processes.
"""

from __future__ import annotations

import itertools
import os
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from ..common.errors import DataError, UserError
from . import distributed, lost
from .signals import end_with, leave_to_the_run, start_tracker

Item = tuple[int, int]  # position in the endless sequence, index of the image


@dataclass(frozen=True)
class Batch:
    """A process's share of one step: images with labels.

    Attributes:
        images: (N, 3, H, W) uint8, RGB.
        labels: int64; (N,) the classes of images, or (N, H, W) those of pixels.
    """

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, rows: slice) -> Batch:
        return Batch(self.images[rows], self.labels[rows])


class EpochSampler:
    """The endless sequence of images: a fresh permutation an epoch.

    Args:
        repeats: how often each image comes in an epoch, on average: its whole part always, and once more with the
            probability of the rest.

    Raises:
        DataError: there are no images, of which an endless sequence cannot be made.
    """

    def __init__(self, indices: Sequence[int], seed: int, repeats: np.ndarray | None = None) -> None:
        if not len(indices):
            raise DataError("the training set holds no images")
        self.indices = np.asarray(indices)
        self.seed = seed
        self.repeats = repeats

    def __iter__(self) -> Iterator[Item]:
        return self.beginning_at(0)

    def beginning_at(self, position: int) -> Iterator[Item]:
        """Yield the sequence from a position on; earlier epochs are not drawn."""
        epoch, skipped = self._place(position)
        while True:
            for index in self._epoch(epoch)[skipped:]:
                yield position, int(index)
                position += 1
            epoch, skipped = epoch + 1, 0

    def batches(self, position: int, size: int) -> Iterator[np.ndarray]:
        """Yield the indices of the sequence from a position on, `size` at a time."""
        epoch, skipped = self._place(position)
        rest = self._epoch(epoch)[skipped:]
        while True:
            while len(rest) < size:
                epoch += 1
                rest = np.concatenate([rest, self._epoch(epoch)])
            yield rest[:size]
            rest = rest[size:]

    def _place(self, position: int) -> tuple[int, int]:
        """Return the epoch of a position, and how many of its images come before; repeats make epochs differ."""
        if self.repeats is None:
            return divmod(position, len(self.indices))
        epoch = 0
        while position >= (length := len(self._epoch(epoch))):
            epoch, position = epoch + 1, position - length
        return epoch, position

    def _epoch(self, epoch: int) -> np.ndarray:
        random, indices = np.random.default_rng((self.seed, epoch)), self.indices
        if self.repeats is not None:
            whole = np.floor(self.repeats)
            often = whole + (random.random(len(indices)) < self.repeats - whole)
            indices = np.repeat(indices, often.astype(np.int64))
        return random.permutation(indices)


class BatchSampler(Sampler[list[Item]]):
    """Batches of all processes together, of which this process takes its share.

    Args:
        batch_size: images a step over all processes.
        groups: a label an image; a batch holds images of one label, so that little padding is needed.
        start: steps to leave out at the beginning.
        steps: steps after which the sequence ends; None never.
    """

    def __init__(
        self,
        sampler: EpochSampler,
        *,
        batch_size: int,
        groups: np.ndarray | None = None,
        start: int = 0,
        steps: int | None = None,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.sampler = sampler
        self.batch_size = batch_size
        self.groups = groups
        self.start = start
        self.steps = steps
        self.share = slice(rank, None, world_size)

    def __iter__(self) -> Iterator[list[Item]]:
        # Groups decide which images a batch takes, so the batches before it must be made.
        first = self.start if self.groups is None else 0
        for step, batch in enumerate(self._batches(first * self.batch_size), first):
            if self.steps is not None and step >= self.steps:
                return
            if step >= self.start:
                yield batch[self.share]

    def indices(self) -> Iterator[np.ndarray]:
        """Yield the batches' indices alone, in a fraction of the time.

        Raises:
            ValueError: there are groups, which decide over the batches.
        """
        if self.groups is not None:
            raise ValueError("batches of groups are made item by item")
        batches = self.sampler.batches(self.start * self.batch_size, self.batch_size)
        for batch in itertools.islice(batches, None if self.steps is None else max(0, self.steps - self.start)):
            yield batch[self.share]

    def _batches(self, start: int) -> Iterator[list[Item]]:
        waiting: dict[int, list[Item]] = {}
        for position, index in self.sampler.beginning_at(start):
            group = 0 if self.groups is None else int(self.groups[index])
            batch = waiting.setdefault(group, [])
            batch.append((position, index))
            if len(batch) == self.batch_size:
                yield waiting.pop(group)


def batches_of_steps(
    indices: Sequence[int],
    config: Any,
    start: int,
    end: int,
    *,
    repeats: np.ndarray | None = None,
    groups: np.ndarray | None = None,
) -> BatchSampler:
    """Return this process's batches of the steps start..end-1, by the config's seed and batch.

    Args:
        indices, repeats: see EpochSampler; groups: see BatchSampler.
    """
    return BatchSampler(
        EpochSampler(indices, config.SEED, repeats),
        batch_size=config.SOLVER.IMS_PER_BATCH,
        groups=groups,
        start=start,
        steps=end,
        rank=distributed.rank(),
        world_size=distributed.world_size(),
    )


def resolve_workers(wanted: int, processes: int) -> int:
    """Return the number of loader processes: as asked, or for -1 the cores of this machine shared out, at most 8."""
    if wanted >= 0:
        return wanted
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(8, cores // max(1, processes)))


def _start_worker(_: int) -> None:
    import cv2

    leave_to_the_run()
    # At once, not when torch looks: until then it would hold the run folder.
    end_with(os.getppid(), signal.SIGKILL)
    cv2.setNumThreads(0)
    torch.set_num_threads(1)


def _as_list(samples: list[Any]) -> list[Any]:
    return samples


def make_loader(
    samples: Dataset,
    *,
    workers: int,
    pin_memory: bool,
    batches: Iterable[list[Any]] | None = None,
    collate: Callable[[list[Any]], Any] | None = None,
) -> DataLoader:
    """Return a DataLoader: by `batches`, or one sample at a time in order; of lists, or of what `collate` makes."""
    if workers:
        start_tracker()
    order = {"batch_sampler": batches} if batches is not None else {"batch_size": 1, "shuffle": False}
    return DataLoader(
        samples,
        **order,
        num_workers=workers,
        collate_fn=collate or _as_list,
        pin_memory=pin_memory,
        worker_init_fn=_start_worker,
        # Its own, so that starting a loader draws nothing from the generator that training draws from.
        generator=torch.Generator(),
    )


def to_device(values: Tensor, device: torch.device) -> Tensor:
    """Move values of the CPU to a device without waiting for it; pageable memory would make the copy wait for all the
    work that a GPU still has to do."""
    return (values.pin_memory() if device.type == "cuda" else values).to(device, non_blocking=True)


def until_error(loader: DataLoader) -> Iterator[list[Any]]:
    """Yield the loader's batches; a UserError of a worker process comes out as one line, without its traceback."""
    iterator = iter(loader)
    try:
        yield from iterator
        return
    except UserError as error:
        kind, lines = type(error), str(error).strip().splitlines()
        message = lines[-1].partition(f"{kind.__name__}: ")[2] or str(error)
        # torch's frames refer to the error and it to them; while that circle lives, the workers do.
        error.__traceback__ = None
    except (ConnectionError, EOFError, RuntimeError) as error:
        # A process that dies while it hands over a batch takes the connection with it. And where torch looks before the
        # system has told it, it says that a process exited, not which signal ended it.
        found = lost.LOADER.search(str(error))
        if not isinstance(error, RuntimeError) or (found and found[3] is None):
            for worker in getattr(iterator, "_workers", ()):
                worker.join(1)
                if worker.exitcode:
                    raise lost.loader_error(worker.pid, worker.exitcode) from None
        raise
    raise kind(message)
