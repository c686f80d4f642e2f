"""The benchmarks by name."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from backbone.benchmarks import input as input_pipeline
from backbone.benchmarks.report import Section

from . import evaluation, inference, loader, training

INFERENCE_SIZE, TRAINING_SIZE = (800, 1216), (480, 640)


def run_all(
    benchmarks: Sequence[str],
    *,
    names: Sequence[str],
    size: tuple[int, int] | None,
    batch: int,
    rounds: int,
    device: str,
    exports: bool,
    images: Path | None,
    data_root: Path | None = None,
) -> Iterator[Section]:
    """Run the benchmarks one after the other, and yield each result as it comes."""
    for benchmark in benchmarks:
        if benchmark == "evaluation":
            yield evaluation.measure(rounds=min(rounds, 3))
            continue
        if benchmark == "input":
            yield input_pipeline.measure(images, rounds=rounds)
            continue
        if benchmark == "loader":
            yield loader.measure(data_root, rounds=rounds)
            continue
        for name in names:
            if benchmark == "inference":
                yield inference.measure(
                    name, size=size or INFERENCE_SIZE, rounds=rounds, device=device, exports=exports
                )
            else:
                yield training.measure(name, size=size or TRAINING_SIZE, batch=batch, rounds=rounds, device=device)
