"""The forms in which detectors are timed: detectron2's and ours, by precision, layout, folding and compilation."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from detectron2.solver import build_optimizer
from detectron2.utils.events import EventStorage
from torch import nn

from backbone.engine.solver import fuse
from backbone.networks.conv_norm import use_winograd
from detection.engine.task import DetectionTask
from detection.inference.fast import fast_copy
from detection.modeling.waits import StepCounts, on_device

from .memory import peak_bytes, saved_bytes
from .stock import Pair

Batches = list[list[dict[str, Any]]]
PEER, OURS = "detectron2", "ours"
PRECISIONS = ("float32", "bfloat16")
# Of autocast; None for none.
DTYPES = (None, torch.bfloat16)


@dataclass(frozen=True)
class Variant:
    """One form of a detector.

    Attributes:
        whose: PEER or OURS.
        dtype: None for float32, else of autocast.
        fold: inference alone; the copy that `predict` and evaluations run, in `dtype` (TEST.PRECISION).
    """

    whose: str
    dtype: torch.dtype | None = None
    channels_last: bool = False
    fold: bool = False
    compiled: bool = False

    @property
    def network(self) -> str:
        added = {"channels_last": self.channels_last, "fold": self.fold, "backbone compiled": self.compiled}
        return ", ".join([self.whose, *(name for name, there in added.items() if there)])

    @property
    def precision(self) -> str:
        return str(self.dtype or torch.float32).removeprefix("torch.")

    @property
    def label(self) -> str:
        return f"{self.network}, {self.precision}"


def training_variants(*, compiled: bool) -> list[Variant]:
    """Return what a training step is timed with; of each precision detectron2's first."""
    found = []
    for dtype in DTYPES:
        found += [Variant(PEER, dtype), Variant(OURS, dtype), Variant(OURS, dtype, channels_last=True)]
        found += [Variant(OURS, dtype, channels_last=True, compiled=True)] if compiled else []
    return found


def inference_variants(*, compiled: bool) -> list[Variant]:
    """Return what inference is timed with; of each precision detectron2's first."""
    found = []
    for dtype in DTYPES:
        found += [Variant(PEER, dtype), Variant(OURS, dtype), Variant(OURS, dtype, fold=True)]
        found += [Variant(OURS, dtype, fold=True, compiled=True)] if compiled else []
    return found


def make_model(pair: Pair, variant: Variant) -> nn.Module:
    """Return a copy of the pair's detector in the variant's form."""
    if variant.fold:
        return fast_copy(pair.ours, variant.precision, compile=variant.compiled)
    model = copy.deepcopy(pair.stock if variant.whose == PEER else pair.ours)
    if variant.channels_last:
        for module in model.modules():
            if isinstance(module, nn.Conv2d):
                module.to(memory_format=torch.channels_last)
    if variant.compiled:
        model.backbone.compile()
    return model


def _pinned(sample: dict[str, Any]) -> dict[str, Any]:
    return {**sample, "image": sample["image"].pin_memory()}


class Way:
    """A detector in one form, ready to be timed.

    Args:
        batches: training samples; one round goes through all.
    """

    def __init__(self, pair: Pair, variant: Variant, batches: Batches, *, training: bool) -> None:
        self.variant = variant
        self.training = training
        self.device = torch.device(pair.config.MODEL.DEVICE)
        # Our loader pins the images that it hands over.
        pinned = variant.whose == OURS and self.device.type == "cuda"
        self.batches = [list(map(_pinned, batch)) for batch in batches] if pinned else batches
        self.model = make_model(pair, variant).train(training)
        self.optimizer = build_optimizer(pair.config, self.model) if training else None
        if training and variant.whose == OURS:
            # As `backbone.engine.solver.quicken` does it in the product.
            fuse(self.optimizer)
            use_winograd(self.model, DetectionTask.winograd_kinds)

    def __call__(self) -> None:
        """Run one round: a training step on each batch, or detection on one image after the other."""
        for samples in self.batches:
            if self.training:
                self._train(samples)
            else:
                self._detect(samples)

    def _train(self, samples: list[dict[str, Any]]) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        sum(self.losses(samples).values()).backward()
        self.optimizer.step()

    def losses(self, samples: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        own = self.variant.whose == OURS
        # As DetectionTask does.
        samples = [on_device(sample, str(self.device)) for sample in samples] if own else samples
        with StepCounts() if own else EventStorage(), self._precision():
            return self.model(samples)

    def _detect(self, samples: list[dict[str, Any]]) -> None:
        with torch.inference_mode(), self._precision():
            for sample in samples:
                self.model([sample])

    def _precision(self) -> contextlib.AbstractContextManager:
        dtype = self.variant.dtype
        cast = dtype and not self.variant.fold  # that copy's weights are of the type, not its inputs
        return torch.autocast(self.device.type, dtype) if cast else contextlib.nullcontext()

    def memory(self) -> int | None:
        """Return the peak of a round on a GPU; on a CPU what a training's forward pass keeps, and None in a test."""
        if self.device.type == "cuda":
            return self._peak()
        return saved_bytes(self.model, lambda: self.losses(self.batches[0])) if self.training else None

    def _peak(self) -> int:
        if self.optimizer is not None:
            self.optimizer.zero_grad(set_to_none=True)
        run: Callable[[], None] = self
        try:
            return peak_bytes(run, self.model, self.optimizer)
        finally:
            if self.optimizer is not None:
                self.optimizer.zero_grad(set_to_none=True)
