"""A training step of a backbone against detectron2's: time, and what is kept for the backward pass."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

import backbone
from backbone.engine.timing import alternate

from .inference import STAGES, detectron2_backbone
from .memory import saved_bytes
from .report import Section


def measure(name: str, *, size: tuple[int, int], batch: int, rounds: int, device: str) -> Section:
    """Time a forward and backward pass with frozen BN and freeze_at 2."""
    images = torch.randn(batch, 3, *size, device=device)
    networks = {
        "detectron2": detectron2_backbone(name, freeze_at=2),
        "ours": backbone.create(name, norm="frozen_bn", freeze_at=2, out_features=STAGES),
        "ours, channels_last": backbone.create(name, norm="frozen_bn", freeze_at=2, out_features=STAGES),
        "ours, checkpointing": backbone.create(
            name, norm="frozen_bn", freeze_at=2, out_features=STAGES, checkpointing=True
        ),
    }
    for network in networks.values():
        network.train().to(device)
    networks["ours, channels_last"].to(memory_format=torch.channels_last)
    timings = alternate({label: _step(net, images) for label, net in networks.items()}, rounds=rounds)
    kept = {label: saved_bytes(net, lambda net=net: net(images)) for label, net in networks.items()}
    stock = "detectron2"
    rows = [
        [label, 1000 * t.median, timings[stock].median / t.median, kept[label] / 2**20, kept[label] / kept[stock]]
        for label, t in timings.items()
    ]
    return Section(
        name=f"training-{name}-{torch.device(device).type}",
        title=f"A training step of the {name} backbone",
        method=(
            f"Forward and backward of {batch}x3x{size[0]}x{size[1]}, frozen BN, freeze_at 2, float32, res2 to res5; in "
            f"one process, in turn, median of {rounds} rounds. Memory: what the forward pass keeps for the backward "
            "pass besides the parameters."
        ),
        header=["network", "ms", "times detectron2", "kept MiB", "of detectron2's"],
        rows=rows,
        figures={label: {"ms": 1000 * t.median, "kept_bytes": kept[label]} for label, t in timings.items()},
    )


def _step(network: nn.Module, images: Tensor) -> Callable[[], object]:
    def run() -> None:
        network.zero_grad(set_to_none=True)
        sum(feature.mean() for feature in network(images).values() if feature.requires_grad).backward()

    return run
