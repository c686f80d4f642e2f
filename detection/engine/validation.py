"""The loss on a test set: what a training step would have of its images, of the weights as they are (TEST.LOSS)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.utils.events import EventStorage
from torch import nn
from torch.nn.modules.dropout import _DropoutNd
from torchvision.ops import StochasticDepth

from backbone.common.errors import RunError
from backbone.engine import distributed
from backbone.engine.image_progress import ImageProgress
from backbone.engine.record import LOSS

from ..config.checks import VALIDATION_LOSS
from ..data.mapper import Mapper
from ..data.view import View
from ..inference.run import read_samples
from ..inference.transform import TestMapper, TestTransform
from .datasets import TestSet, training_mapper

# The kind of evaluation under which the losses stand, beside "bbox" and its like.
KIND = VALIDATION_LOSS.rpartition("/")[0]
# Layers that behave otherwise in training, and have no part in the losses' form.
RANDOM = (_DropoutNd, StochasticDepth)


class LossMapper:
    """Maps an index of a set to its image as it is tested, with the objects in it as `instances`.

    What a test ignores is no target: crowd regions and difficult objects.
    """

    def __init__(self, test: TestSet, config: CfgNode) -> None:
        self.images = test.labelled
        self.read = TestMapper(self.images, TestTransform(config, views=False))
        self.truth: Mapper = training_mapper(self.images, config)

    def __call__(self, index: int) -> dict[str, Any]:
        sample = self.read(index)
        height, width = sample["image"].shape[-2:]
        return {**sample, "instances": self.truth.targets(index, View.of(self.images.size(index), (width, height)))}


class _Positives:
    """In place of the running number of positive anchors that RetinaNet divides its losses by: the image's own."""

    number = 1.0

    def __call__(self, name: str, value: float, *_: Any) -> float:
        self.number = value
        return value


@contextmanager
def in_training_form(model: nn.Module) -> Iterator[_Positives]:
    """Let a detector return losses in place of detections; its network, norms and dropout stay as in a test.

    RetinaNet divides the losses by the positive anchors of the images alone; what is yielded has their number.
    """
    modes, positives = {module: module.training for module in model.modules()}, _Positives()
    network = getattr(model, "backbone", None)
    inside = set(network.modules()) if isinstance(network, nn.Module) else set()
    for module in modes:
        module.training = not (module in inside or hasattr(module, "running_mean") or isinstance(module, RANDOM))
    averages = hasattr(model, "_ema_update")
    if averages:
        model._ema_update = positives
    try:
        yield positives
    finally:
        if averages:
            del model._ema_update
        for module, mode in modes.items():
            module.training = mode


def validation_losses(
    model: nn.Module, test: TestSet, config: CfgNode, *, workers: int, lenient: bool = False
) -> dict[str, float]:
    """Return total_loss and its parts, means over a set's images; {} but in the main process. A collective call.

    The losses of an image are detectron2's, of the image alone, as it is tested, in float32 and without gradients.
    The draws of anchors and regions are seeded by SEED plus the image's place in the set, so that they depend neither
    on the step nor on the processes. RetinaNet's are the set's sum over its positive anchors.

    Args:
        lenient: leave out images that cannot be read.

    Raises:
        RunError: a predicted box or score is not finite.
    """
    mapper = LossMapper(test, config)
    images, device = mapper.images, next(model.parameters()).device
    own = list(range(distributed.rank(), len(images), distributed.world_size()))
    found: list[tuple[int, float, dict[str, float]]] = []
    gpus = [device] if device.type == "cuda" else []
    title = f"loss on {images.name}"
    with (
        torch.random.fork_rng(gpus),
        torch.no_grad(),
        in_training_form(model) as positives,
        ImageProgress(len(images), title, visible=True) as progress,
    ):
        samples = read_samples(mapper, own, workers, lenient, pin_memory=bool(gpus))
        for index, sample in zip(own, samples):
            # The detections' pass over the set has named what cannot be read.
            if not isinstance(sample, str):
                torch.manual_seed(config.SEED + index)
                found.append((index, *_losses_of(model, sample, positives)))
                progress.add(1)
    return _means([pair for part in distributed.gather_to_main(found) for pair in part])


def _losses_of(model: nn.Module, sample: dict[str, Any], positives: _Positives) -> tuple[float, dict[str, float]]:
    try:
        # detectron2's heads write their counts into the storage that is current.
        with EventStorage():
            losses = model([sample])
    except FloatingPointError:
        raise RunError(f"{sample['file_name']}: a predicted box or score is not finite") from None
    return positives.number, {name: float(value) for name, value in losses.items()}


def _means(found: list[tuple[int, float, dict[str, float]]]) -> dict[str, float]:
    """Return the weighted means of (place, weight, losses), the same ones however processes have shared the images."""
    found = sorted(found, key=lambda one: one[0])
    names = dict.fromkeys(name for *_, losses in found for name in losses)
    total = math.fsum(weight for _, weight, _ in found)
    means = {name: math.fsum(weight * losses.get(name, 0.0) for _, weight, losses in found) / total for name in names}
    return {LOSS: math.fsum(means.values()), **means} if means else {}


def losses_line(name: str, losses: dict[str, float]) -> str:
    """Return one line on the losses of a set."""
    parts = ", ".join(f"{part.removeprefix('loss_')} {value:.4f}" for part, value in losses.items() if part != LOSS)
    return f"validation   {name}: loss {losses[LOSS]:.4f} ({parts})"
