"""The benchmarks by name."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from . import cifar, detectors, evaluation, inference, loader, pretraining, product, training
from . import input as input_pipeline
from .report import Section
from .variants import PRECISIONS

INFERENCE_SIZE, TRAINING_SIZE = (800, 1216), (480, 640)
# Detectors that are timed unless others are named, by kind of device.
DETECTORS = {"cuda": ("r50_fpn", "r50_c4", "r101_fpn", "r101_c4"), "cpu": ("r50_fpn", "r50_c4")}
# Images in a training step of a backbone or a detector.
BATCH = 2


def run_all(
    benchmarks: Sequence[str],
    *,
    names: Sequence[str],
    size: tuple[int, int] | None,
    batch: int | None,
    rounds: int,
    device: str,
    exports: bool,
    images: Path | None,
    data_root: Path | None = None,
    compiled: bool | None = None,
    whole: Sequence[str] = (),
    workers: int = -1,
    regions: int | None = None,
    precisions: Sequence[str] = PRECISIONS,
    seconds: float | None = None,
) -> Iterator[Section]:
    """Run the benchmarks one after the other, and yield each result as it comes.

    Args:
        batch: images in a training step; None for the benchmark's own number.
        compiled: also time the compiled forms of detectors and classifiers; None: on a GPU alone.
        whole: the detectors, by default DETECTORS of the device.
        workers: loader processes of pretraining from files; -1 for as many as a training takes.
        regions: of an image in the second stage of detectors; None for detectron2's own number.
        precisions: of detectors.
        seconds: of a table of detectors, classifiers or backbone inference, after which no other round begins.
    """
    compiled = device == "cuda" if compiled is None else compiled
    for benchmark in benchmarks:
        if benchmark == "evaluation":
            yield evaluation.measure(rounds=min(rounds, 3))
            continue
        if benchmark == "input":
            yield input_pipeline.measure(images, rounds=rounds)
            continue
        if benchmark == "product":
            for name in whole or DETECTORS[device]:
                yield product.measure(name, images, rounds=rounds)
            continue
        if benchmark == "loader":
            yield loader.measure(data_root, rounds=rounds)
            continue
        if benchmark == "detectors":
            for name in whole or DETECTORS[device]:
                yield detectors.measure(
                    name,
                    data_root=data_root,
                    size=size,
                    batch=batch or BATCH,
                    rounds=rounds,
                    device=device,
                    compiled=compiled,
                    regions=regions,
                    precisions=precisions,
                    seconds=seconds,
                )
            continue
        if benchmark == "pretraining":
            yield pretraining.measure(
                batch=batch,
                size=min(size) if size else None,
                rounds=rounds,
                device=device,
                compiled=compiled,
                images=images,
                workers=workers,
                seconds=seconds,
            )
            yield cifar.measure(rounds=rounds, device=device, compiled=compiled, seconds=seconds)
            continue
        for name in names:
            if benchmark == "inference":
                yield inference.measure(
                    name,
                    size=size or INFERENCE_SIZE,
                    rounds=rounds,
                    device=device,
                    exports=exports,
                    seconds=seconds,
                )
            else:
                yield training.measure(
                    name, size=size or TRAINING_SIZE, batch=batch or BATCH, rounds=rounds, device=device
                )
