"""A process's share of a batch. Draws are made for the whole batch, so the number of processes does not change them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from . import distributed
from .loading import to_device


@dataclass(frozen=True)
class Share:
    """Every `processes`-th image of a batch from `rank` on, as `loading.BatchSampler` deals them out."""

    rank: int = 0
    processes: int = 1

    @classmethod
    def of_this_process(cls) -> Share:
        return cls(distributed.rank(), distributed.world_size())

    def of(self, values: np.ndarray) -> np.ndarray:
        """Return the share's rows of what was drawn for the whole batch, a row an image."""
        return np.ascontiguousarray(values[self.rank :: self.processes])

    def take(self, values: Tensor, places: np.ndarray) -> Tensor:
        """Return `whole[places]` of the share's images, where `whole` is `values` of all processes, in batch order.

        Processes exchange the rows that lie elsewhere: a collective call.

        Args:
            values: (N, ...), a row an image of this process.
            places: (N * processes,), a permutation, the same in every process.
        """
        own = self.of(places)
        if self.processes == 1:
            return values[_on(values, own)]
        everyone = [places[rank :: self.processes] for rank in range(self.processes)]
        asked = [wanted[wanted % self.processes == self.rank] // self.processes for wanted in everyone]
        sent = values[_on(values, np.concatenate(asked))].contiguous()
        received = torch.empty(sent.shape, dtype=sent.dtype, device=sent.device)
        holders = own % self.processes
        sizes = np.bincount(holders, minlength=self.processes).tolist()
        dist.all_to_all_single(received, sent, sizes, [len(rows) for rows in asked])
        # They arrive by the process that sent them.
        return received[_on(values, np.argsort(np.argsort(holders, kind="stable")))]


def _on(values: Tensor, rows: np.ndarray) -> Tensor:
    return to_device(torch.from_numpy(rows), values.device)
