"""The errors of networks on a set, by one protocol."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from ...common.errors import ArchitectureError, DataError, RunError
from ...common.text import count
from ...engine.broken import check_left_out
from ...engine.distributed import gather, rank, world_size
from ...engine.image_progress import ImageProgress
from ...engine.loading import resolve_workers
from ..data.sets import LabelledImages
from .protocols import Protocol
from .results import Errors
from .scoring import Prepare, Scorer
from .views import Views, load_views


def evaluate(
    networks: Sequence[nn.Module],
    images: LabelledImages,
    protocol: Protocol,
    *,
    prepare: Prepare | Sequence[Prepare],
    device: torch.device | str,
    workers: int = -1,
    batch_size: int = 64,
    amp: torch.dtype | None = None,
    channels_last: bool = False,
    progress: bool = False,
) -> Errors:
    """Test a network, or an ensemble of several whose softmax probabilities are averaged.

    With several processes each takes every world_size-th image; all return the same.

    Args:
        networks: backbones that give logits, in evaluation mode, on `device`.
        prepare: for all networks or one each; takes (N, 3, H, W) uint8 RGB on `device` and returns a network's input.
        workers: loader processes; -1 the cores of this machine shared out.
        batch_size: views of crop x crop pixels in a forward pass; views of dense count by their area.
        amp: autocast's dtype, or None.
        channels_last: memory layout of the networks' input.
        progress: show a bar on a terminal, lines in the log elsewhere.

    Raises:
        ArchitectureError: a network gives no logits, or is not made for the set's classes.
        DataError: more than 10 images and more than 1 % of the set, or all of them, cannot be read.
        RunError: the networks' scores are not finite.
    """
    _check(networks, images)
    device = torch.device(device)
    began = time.monotonic()
    settings = {"device": device, "batch_size": batch_size, "amp": amp, "channels_last": channels_last}
    scorer = Scorer(networks, prepare, protocol, **settings)
    share = np.arange(rank(), len(images), world_size())
    loader = load_views(
        Views(images, share, protocol),
        batch_size=batch_size,
        workers=resolve_workers(workers, world_size()),
        pin_memory=device.type == "cuda",
    )
    with _without_tuning(protocol), ImageProgress(len(images), protocol.name, progress) as shown:
        probabilities, missing = scorer.run(loader, (len(share), len(images.classes)), shown)
    unreadable = {int(share[row]): message for row, message in missing.items()}
    found = _guesses(probabilities, share, unreadable, images)
    return _join(images, protocol, gather((found, unreadable, time.monotonic() - began)))


def _check(networks: Sequence[nn.Module], images: LabelledImages) -> None:
    if not networks or not len(images):
        raise DataError(f"{images.name}: nothing to test: {len(networks)} networks and {len(images)} images")
    for network in networks:
        if "logits" not in network.out_features:
            raise ArchitectureError(f"{network.architecture}: gives no logits; create it with num_classes")
        classes = network.feature_info["logits"].channels
        if classes != len(images.classes):
            raise ArchitectureError(
                f"{network.architecture}: made for {count(classes, 'class', 'classes')}, but {images.name} has "
                f"{len(images.classes)}; the set's list of classes must be the one of training"
            )
        if network.training:
            raise ValueError(f"{network.architecture}: is in training mode; call eval() first")


@contextmanager
def _without_tuning(protocol: Protocol) -> Iterator[None]:
    """Keep cuDNN from trying all its algorithms for each of dense's many image sizes."""
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = before and protocol.name != "dense"
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


def _guesses(
    probabilities: Tensor, share: np.ndarray, unreadable: dict[int, str], images: LabelledImages
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the likeliest classes (n, up to 5), likeliest first, -1 for unreadable images; their probabilities, and
    the right class's (n,)."""
    broken = (~probabilities.isfinite().all(1)).nonzero()
    if len(broken):
        place = images.place(int(share[broken[0].item()]))
        raise RunError(f"{place}: the network's scores are not finite: its weights diverged, or amp overflowed")
    scores, guesses = (part.cpu() for part in probabilities.topk(min(5, probabilities.shape[1])))
    guesses[torch.from_numpy(np.isin(share, list(unreadable)))] = -1
    labels = torch.from_numpy(images.labels[share]).to(probabilities.device)
    return guesses, scores, probabilities.gather(1, labels[:, None])[:, 0].cpu()


def _join(
    images: LabelledImages, protocol: Protocol, parts: list[tuple[tuple[Tensor, ...], dict[int, str], float]]
) -> Errors:
    whole = [torch.empty(len(images), *values.shape[1:], dtype=values.dtype) for values in parts[0][0]]
    unreadable: dict[int, str] = {}
    for first, (found, missing, _) in enumerate(parts):
        for values, part in zip(whole, found):
            values[first :: len(parts)] = part
        unreadable |= missing
    guesses, scores, likelihoods = whole
    check_left_out(images.name, len(images), unreadable)
    right = guesses == torch.from_numpy(images.labels)[:, None]
    tested = len(images) - len(unreadable)
    return Errors(
        protocol=protocol.name,
        top1=(tested - int(right[:, 0].sum())) / tested,
        top5=(tested - int(right.any(1).sum())) / tested,
        images=tested,
        left_out=tuple(images.place(index) for index in sorted(unreadable)),
        seconds=max(seconds for _, _, seconds in parts),
        guesses=guesses,
        scores=scores,
        likelihoods=likelihoods,
        labels=images.labels,
        classes=images.classes,
    )
