"""torch's random draws as a function of a sample's own generator."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def torch_draws_from(random: np.random.Generator) -> Iterator[None]:
    """Within it, torch's draws on the CPU follow from `random`; behind it, they go on as if nothing had been drawn.

    torchvision's transforms draw so. torch.manual_seed would seed the GPU's generators as well.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(int(random.integers(2**63)))
        yield
