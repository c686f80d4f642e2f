"""Images through a detector, in order and in constant memory.

They are read ahead in threads (OpenCV decodes and resizes without Python's lock), detected in batches of one shape, and
what becomes of the detections is done in a thread beside the next images.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Any, TypeVar

import torch
from detectron2.structures import Instances
from torch import Tensor, nn

from backbone import DataError

Input, Value, Result = TypeVar("Input"), TypeVar("Value"), TypeVar("Result")
Sample = dict[str, Any]
# Batches in which one looks for images of one shape.
WINDOW = 4
# Images whose detections may wait to be finished.
WAITING = 4
# What detectron2 leaves beside the keypoints: 0.2 MB an object, which nothing here reads.
HEATMAPS = "pred_keypoint_heatmaps"
# TEST.BATCH_SIZE 0 on a GPU.
GPU_BATCH = 4


def batch_size_of(config: Any) -> int:
    """Return TEST.BATCH_SIZE; where it is 0, the device's own."""
    return config.TEST.BATCH_SIZE or (GPU_BATCH if config.MODEL.DEVICE.startswith("cuda") else 1)


def run_pipeline(
    model: nn.Module,
    inputs: Iterable[Input],
    read: Callable[[Input], Sample],
    finish: Callable[[Input, Sample, Instances], Result],
    *,
    batch_size: int = 1,
    threads: int = 1,
) -> Iterator[tuple[Input, Result | DataError]]:
    """Yield each input with what `finish` makes of its detections, or with the error of its reading; in order.

    `inputs` are drawn as they are needed, so they need not end, and few of them are in memory at a time.

    Args:
        model: that stands where detectron2's would; see `as_tested`.
        read: makes a sample of `TestTransform`, and may put more into it; DataError where it cannot. In threads.
        finish: takes the input, its sample and its detections on the CPU. In one thread, in order.
        batch_size: images of one shape that go through `model` together.
        threads: that read; 0 to do everything in this one.
    """

    def read_or_error(item: Input) -> tuple[Input, Sample | DataError]:
        try:
            return item, read(item)
        except DataError as error:
            return item, error

    def finished(found: tuple[tuple[Input, Sample | DataError], Any]) -> tuple[Input, Result | DataError]:
        (item, sample), detections = found
        return (item, sample) if detections is None else (item, finish(item, sample, detections.to("cpu")))

    samples = in_order(read_or_error, inputs, threads=threads, ahead=2 * threads + batch_size)
    found = detect_in_batches(model, samples, lambda pair: pair[1], batch_size=batch_size)
    yield from in_order(finished, found, threads=min(1, threads), ahead=WAITING)


def in_order(work: Callable[[Value], Result], values: Iterable[Value], *, threads: int, ahead: int) -> Iterator[Result]:
    """Yield work(value) of each, in order; in threads that are at most `ahead` values before what was asked for.

    An error of `work` or of `values` comes out in its turn. What has not begun then, or when one stops asking, is left.
    """
    if not threads:
        yield from map(work, values)
        return
    pool, begun, values, error = ThreadPoolExecutor(threads), deque[Future[Result]](), iter(values), None
    try:
        while True:
            try:
                begun.append(pool.submit(work, next(values)))
            except StopIteration:
                break
            except Exception as raised:
                error = raised
                break
            if len(begun) > ahead:
                yield begun.popleft().result()
        while begun:
            yield begun.popleft().result()
        if error is not None:
            raise error
    finally:
        pool.shutdown(cancel_futures=True)


def detect_in_batches(
    model: nn.Module, values: Iterable[Value], sample_of: Callable[[Value], Any], *, batch_size: int
) -> Iterator[tuple[Value, Instances | None]]:
    """Yield each value with its detections, on the model's device, in order; with None where it holds no sample.

    Args:
        sample_of: returns the sample that a value holds.
    """
    values = iter(values)
    while window := list(islice(values, WINDOW * batch_size if batch_size > 1 else 1)):
        by_shape: dict[Any, list[int]] = {}
        for index, value in enumerate(window):
            if isinstance(sample := sample_of(value), dict):
                by_shape.setdefault(sample["image"].shape, []).append(index)
        found: list[Instances | None] = [None] * len(window)
        for indices in by_shape.values():
            for start in range(0, len(indices), batch_size):
                chosen = indices[start : start + batch_size]
                samples = [sample_of(window[index]) for index in chosen]
                for index, output in zip(chosen, run_model(model, samples)):
                    found[index] = output
        yield from zip(window, found)


def run_model(model: nn.Module, samples: list[Sample]) -> list[Instances]:
    """Return the detections of each sample, on the model's device, in pixels of its file."""
    device = next(model.parameters()).device
    with torch.inference_mode():
        moved = [_with_images(sample, lambda image: image.to(device, non_blocking=True)) for sample in samples]
        found = [output["instances"] for output in model(moved)]
    for instances in found:
        if instances.has(HEATMAPS):
            instances.remove(HEATMAPS)
    return found


def pinned(sample: Sample, device: str) -> Sample:
    """Return the sample with its images where a GPU copies them from without a wait; on a CPU as it is."""
    return _with_images(sample, torch.Tensor.pin_memory) if device.startswith("cuda") else sample


def _with_images(sample: Sample, change: Callable[[Tensor], Tensor]) -> Sample:
    """Return the sample with its image, and its views, changed: each network of a test reads them again."""
    views = {side: change(view) for side, view in sample.get("views", {}).items()}
    return {**sample, "image": change(sample["image"]), "views": views}
