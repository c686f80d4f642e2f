"""The exponential moving average of a network's weights."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from . import distributed


class MovingAverage:
    """decay * average + (1 - decay) * weights after each step; BN's statistics are averaged too.

    The decay grows with the steps, (1 + n) / (10 + n) at most, so that the first weights are soon forgotten.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay = decay
        self.steps = 0
        self.state = {name: value.detach().clone() for name, value in network.state_dict().items()}
        self.buffers = [name for name, _ in network.named_buffers() if name in self.state]

    @classmethod
    def of(cls, network: nn.Module, config: Any) -> MovingAverage | None:
        """Return the average of SOLVER.EMA_DECAY; None where that is 0."""
        return cls(network, config.SOLVER.EMA_DECAY) if config.SOLVER.EMA_DECAY else None

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Take in the network's weights."""
        self.steps += 1
        rate = 1 - min(self.decay, (1 + self.steps) / (10 + self.steps))
        state = network.state_dict()
        counters = [name for name, value in state.items() if not value.is_floating_point()]
        weights = [name for name, value in state.items() if value.is_floating_point()]
        torch._foreach_lerp_([self.state[name] for name in weights], [state[name] for name in weights], rate)
        if counters:
            torch._foreach_copy_([self.state[name] for name in counters], [state[name] for name in counters])

    def share(self) -> None:
        """Give every process the main one's buffers: BN's statistics differ by the images that a process has seen."""
        distributed.share_tensors(self.state[name] for name in self.buffers)

    def state_dict(self) -> dict[str, Tensor | int]:
        return {"steps": self.steps, **{f"average.{name}": value for name, value in self.state.items()}}

    def load_state_dict(self, state: dict[str, Tensor | int]) -> None:
        """Take back what `state_dict` returned."""
        self.steps = int(state["steps"])
        for name, value in self.state.items():
            value.copy_(state[f"average.{name}"])
