"""Training steps of classifiers: ResNet-50 against torchvision's reference loop and timm's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from backbone.common.errors import RunError
from backbone.engine.loading import resolve_workers
from backbone.engine.timing import Timing, alternate, only_those_that_run

from .classifiers import CLASSES, Loop, Setting, make_loops
from .folders import file_ways
from .input import find_images
from .memory import clean, memory_note, peak_bytes, saved_bytes
from .report import Section

PEER, OURS = "torchvision", "ours"
# By kind of device: images a step, their side, steps in a round.
BATCH = {"cuda": 256, "cpu": 8}
SIZE = {"cuda": 224, "cpu": 128}
STEPS = {"cuda": 5, "cpu": 1}
FILE_STEPS = {"cuda": 20, "cpu": 4}
SETTINGS = (Setting(), Setting(torch.bfloat16), Setting(torch.bfloat16, channels_last=True))
COMPILED = Setting(torch.bfloat16, channels_last=True, compiled=True)
# Of the first losses in float32, relative. Another place of the strides makes some 1e-3.
TOLERANCE = 2e-4
HEADER = ("data", "loop", "precision", "form", "ms a step", "images/s", "times torchvision", "MiB", "of torchvision's")
Row = list[object]


def measure(
    *,
    batch: int | None,
    rounds: int,
    device: str,
    compiled: bool,
    images: Path | None,
    workers: int = -1,
    name: str = "resnet50",
    size: int | None = None,
    seconds: float | None = None,
) -> Section:
    """Time training steps of a network that torchvision and timm have too.

    Args:
        batch: images a step; None for BATCH.
        compiled: also all three compiled.
        images: a folder of image files, to be read and decoded too.
        workers: loader processes of those; -1 for as many as a training takes.
        size: side of the images; None for SIZE.
        seconds: of each setting, see `suite.run_all`.

    Raises:
        RunError: the first losses do not agree.
        DataError: there are no images in the folder.
    """
    kind = torch.device(device).type
    batch, size = batch or BATCH[kind], size or SIZE[kind]
    rows: list[Row] = []
    figures: dict[str, Any] = {}
    notes = [memory_note(kind, "network")]
    # As all three projects' trainings have it: the images are of one size.
    with torch.backends.cudnn.flags(enabled=True, benchmark=True, deterministic=False, allow_tf32=True):
        for setting in (*SETTINGS, *([COMPILED] if compiled else [])):
            loops = make_loops(name, setting, batch=batch, size=size, device=device)
            if setting == SETTINGS[0]:
                apart = check_agreement(loops, batch, size, device)
                notes.insert(0, f"Same weights: the first losses in float32 are {apart:.0e} apart.")
                notes += [] if "timm" in loops else ["timm is not installed: left out."]
            timed, skipped = _time_on_device(
                loops, batch=batch, size=size, device=device, rounds=rounds, seconds=seconds
            )
            notes += [f"Left out: {loop}, {setting.precision}, {setting.form}: {why}." for loop, why in skipped.items()]
            figures[f"{setting.precision}, {setting.form}"] = timed
            rows += _rows("on the device", setting, timed)
            del loops
            clean()
        if images is not None:
            setting = SETTINGS[-1] if kind == "cuda" else SETTINGS[0]
            loops = make_loops(name, setting, batch=batch, size=size, device=device)
            workers = resolve_workers(workers, 1)
            figures["files"] = _time_on_files(
                images, loops, batch=batch, size=size, workers=workers, device=device, rounds=rounds
            )
            rows += _rows("files", setting, figures["files"])
            notes.append(
                f"files: {FILE_STEPS[kind]} batches from the folder {images.name}, random resized crop and flip, "
                f"{workers} loader processes each, started anew in each round; torchvision's reads with Pillow."
            )
    return Section(
        name=f"pretraining-{name}-{kind}",
        title=f"Training steps of {name} on ImageNet's sizes",
        method=(
            f"{batch}x3x{size}x{size} a step, {CLASSES} classes, SGD. torchvision: as its references/classification, "
            "float32 batches from the loader; timm: its loss and optimizer factory, uint8 normalised on the device; "
            "ours: as tools/pretrain.py, uint8 normalised on the device. In one process, in turn, median of "
            f"{_fewest(figures)} rounds of {STEPS[kind]}; times and memory against torchvision in the same precision "
            "and form."
        ),
        header=HEADER,
        rows=rows,
        notes=notes,
        figures=figures,
    )


def _fewest(figures: dict[str, dict[str, dict[str, Any]]]) -> int:
    """Return the rounds that were counted: of all settings the fewest."""
    return min(loop["rounds"] for loops in figures.values() for loop in loops.values())


def _batch(batch: int, size: int, device: str) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (batch, 3, size, size), generator=generator).to(torch.uint8)
    return pixels.to(device), torch.randint(CLASSES, (batch,), generator=generator).to(device)


def check_agreement(loops: dict[str, Loop], batch: int, size: int, device: str) -> float:
    """Return how far the first losses are from torchvision's, relative.

    Raises:
        RunError: further than TOLERANCE: they do not compute the same.
    """
    pixels, labels = _batch(batch, size, device)
    with torch.no_grad(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        losses = {name: float(loop.loss(loop.inputs(pixels), labels)) for name, loop in loops.items()}
    apart = max(abs(loss - losses[PEER]) / abs(losses[PEER]) for loss in losses.values())
    if not apart <= TOLERANCE:
        raise RunError(
            f"the first losses are {apart:.1e} apart with the same weights, {TOLERANCE:.0e} is allowed: {losses}"
        )
    return apart


def _time_on_device(
    loops: dict[str, Loop], *, batch: int, size: int, device: str, rounds: int, seconds: float | None
) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """Return figures of the loops on a batch that lies on the device, and why others are left out."""
    kind = torch.device(device).type
    pixels, labels = _batch(batch, size, device)
    inputs = {name: loop.inputs(pixels) for name, loop in loops.items()}

    def steps(name: str, number: int) -> Callable[[], None]:
        def run() -> None:
            for _ in range(number):
                loops[name].step(inputs[name], labels)

        return run

    ways, skipped = only_those_that_run({name: steps(name, STEPS[kind]) for name in loops}, lambda name: name == PEER)
    timings = alternate(ways, rounds=rounds, warm_up=0, within=seconds)
    memory = {}
    for name in ways:
        loop = loops[name]
        loop.optimizer.zero_grad(set_to_none=True)
        if kind == "cuda":
            # A loop may keep the gradients of one step through the forward pass of the next.
            memory[name] = peak_bytes(steps(name, 2), loop.network, loop.optimizer)
            loop.optimizer.zero_grad(set_to_none=True)
        else:
            memory[name] = saved_bytes(loop.network, lambda loop=loop, name=name: loop.loss(inputs[name], labels))
    return _figures(timings, memory, STEPS[kind], batch), skipped


def _time_on_files(
    folder: Path, loops: dict[str, Loop], *, batch: int, size: int, workers: int, device: str, rounds: int
) -> dict[str, dict[str, Any]]:
    """Return figures of torchvision's and our loop with their own loaders."""
    steps = FILE_STEPS[torch.device(device).type]
    ways = file_ways(find_images(folder), loops, batch=batch, size=size, steps=steps, workers=workers, device=device)
    return _figures(alternate(ways, rounds=rounds), dict.fromkeys(ways), steps, batch)


def _figures(
    timings: dict[str, Timing], memory: dict[str, int | None], steps: int, batch: int
) -> dict[str, dict[str, Any]]:
    return {
        name: {
            "ms_a_step": 1000 * timing.median / steps,
            "images_per_second": batch * steps / timing.median,
            "times_torchvision": timings[PEER].median / timing.median,
            "bytes": memory[name],
            "bytes_of_torchvision": memory[name] / memory[PEER] if memory[name] and memory[PEER] else None,
            "spread": timing.spread,
            "rounds": timing.rounds,
        }
        for name, timing in timings.items()
    }


def _rows(data: str, setting: Setting, figures: dict[str, dict[str, Any]]) -> list[Row]:
    rows = []
    for name, found in figures.items():
        mebibytes = found["bytes"] / 2**20 if found["bytes"] is not None else None
        times = found["ms_a_step"], found["images_per_second"], found["times_torchvision"]
        rows.append([data, name, setting.precision, setting.form, *times, mebibytes, found["bytes_of_torchvision"]])
    return rows
