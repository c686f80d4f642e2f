"""The exponential moving average of a network's weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class MovingAverage:
    """decay * average + (1 - decay) * weights after each step; BN's statistics are averaged too.

    The decay grows with the steps, (1 + n) / (10 + n) at most, so that the first weights are soon forgotten.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay = decay
        self.steps = 0
        self.state = {name: value.detach().clone() for name, value in network.state_dict().items()}

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Take in the network's weights."""
        self.steps += 1
        rate = 1 - min(self.decay, (1 + self.steps) / (10 + self.steps))
        averages, values = [], []
        for name, value in network.state_dict().items():
            if value.is_floating_point():
                averages.append(self.state[name])
                values.append(value.detach())
            else:
                self.state[name].copy_(value)
        torch._foreach_lerp_(averages, values, rate)

    def state_dict(self) -> dict[str, Tensor | int]:
        return {"steps": self.steps, **{f"average.{name}": value for name, value in self.state.items()}}

    def load_state_dict(self, state: dict[str, Tensor | int]) -> None:
        """Take back what `state_dict` returned."""
        self.steps = int(state["steps"])
        for name, value in self.state.items():
            value.copy_(state[f"average.{name}"])
