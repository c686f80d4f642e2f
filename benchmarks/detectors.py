"""Whole detectors, training step and inference, against detectron2's own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from backbone.engine.timing import Timing, alternate, only_those_that_run

from .memory import clean, memory_note
from .report import Section
from .scenes import coco_batches, drawn_batches
from .stock import check_agreement, make_pair
from .variants import PEER, PRECISIONS, Batches, Pair, Variant, Way, inference_variants, training_variants

# Shorter side and batches in a round, by kind of device.
SHORTER = {"cuda": 800, "cpu": 800}
BATCHES = {"cuda": 2, "cpu": 1}
HEADER = ("", "network", "precision", "ms an image", "images/s", "times detectron2", "MiB", "of detectron2's")


def measure(
    name: str,
    *,
    data_root: Path | None,
    size: tuple[int, int] | None,
    batch: int,
    rounds: int,
    device: str,
    compiled: bool,
    regions: int | None = None,
    precisions: Sequence[str] = PRECISIONS,
    seconds: float | None = None,
) -> Section:
    """Time one of `suite.DETECTORS`.

    Args:
        data_root: that holds COCO; None for drawn images.
        size: of drawn images, height and width; its smaller one is the shorter side of COCO's.
        compiled: also with torch.compile on the backbone.
        regions: see `stock.stock_config`.
        precisions: of PRECISIONS.
        seconds: of training and of inference each, see `suite.run_all`.

    Raises:
        RunError: detectron2's detector and ours do not agree.
        DataError: COCO is not there.
    """
    kind = torch.device(device).type
    batches, images = _batches(data_root, size, batch, kind)
    pair = make_pair(name, batches[0], device, regions)
    apart = check_agreement(pair, batches[0])
    notes = [
        "Same weights (random, frozen BN calibrated): losses and detections in float64 are "
        + ("the same." if apart == 0 else f"{apart:.0e} apart."),
        memory_note(kind, "detector"),
    ]
    rows, figures, counted = [], {}, []
    for phase, variants in (
        ("training", training_variants(compiled=compiled)),
        ("inference", inference_variants(compiled=compiled)),
    ):
        variants = [variant for variant in variants if variant.precision in precisions]
        limits = {"rounds": rounds, "within": seconds}
        timings, memory, skipped = _time(pair, variants, batches, training=phase == "training", **limits)
        counted.append(next(iter(timings.values())).rounds)
        notes += [f"Left out: {phase}, {line}." for line in skipped]
        figures[phase] = _figures(timings, memory, batches)
        rows += [[phase, *row] for row in _rows(figures[phase], list(timings))]
    return Section(
        name=f"detectors-{name}-{kind}" + ("-compiled" if compiled else ""),
        title=f"Faster R-CNN {name.replace('_', ' ').upper()}" + (", compiled" if compiled else ""),
        method=_method(name, images, batch, min(counted), regions),
        header=HEADER,
        rows=rows,
        notes=notes,
        figures={phase: {v.label: f for v, f in found.items()} for phase, found in figures.items()} | {"apart": apart},
    )


def _batches(data_root: Path | None, size: tuple[int, int] | None, batch: int, kind: str) -> tuple[Batches, str]:
    """Return the batches, and in words what images they are of."""
    shorter = min(size) if size else SHORTER[kind]
    if data_root is None:
        size = size or (shorter, shorter * 3 // 2)
        return drawn_batches(size, batch=batch, batches=BATCHES[kind]), f"drawn images of {size[0]}x{size[1]}"
    found = coco_batches(data_root, shorter, batch=batch, batches=BATCHES[kind])
    return found, f"COCO train2017 images, shorter side {shorter}"


def _time(
    pair: Pair,
    variants: Sequence[Variant],
    batches: Batches,
    *,
    training: bool,
    rounds: int,
    within: float | None,
) -> tuple[dict[Variant, Timing], dict[Variant, int | None], list[str]]:
    """Return timings and memory by variant, and lines about those that do not run."""
    made = {variant: Way(pair, variant, batches, training=training) for variant in variants}
    ways, skipped = only_those_that_run(made, keep=lambda variant: variant.whose == PEER)
    timings = alternate(ways, rounds=rounds, warm_up=0, within=within)
    memory = {variant: way.memory() for variant, way in ways.items()}
    del made, ways
    clean()
    return timings, memory, [f"{variant.label}: {reason}" for variant, reason in skipped.items()]


def _figures(
    timings: dict[Variant, Timing], memory: dict[Variant, int | None], batches: Batches
) -> dict[Variant, dict[str, float | None]]:
    images = sum(map(len, batches))
    found: dict[Variant, dict[str, float | None]] = {}
    for variant, timing in timings.items():
        peer = Variant(PEER, variant.dtype)
        bytes_, of_peer = memory[variant], memory[peer]
        found[variant] = {
            "ms_an_image": 1000 * timing.median / images,
            "images_per_second": images / timing.median,
            "times_detectron2": timings[peer].median / timing.median,
            "bytes": bytes_,
            "bytes_of_detectron2": bytes_ / of_peer if bytes_ is not None and of_peer else None,
            "spread": timing.spread,
        }
    return found


def _rows(figures: dict[Variant, dict[str, float | None]], order: Sequence[Variant]) -> list[list[object]]:
    rows = []
    for variant in order:
        found = figures[variant]
        mebibytes = found["bytes"] / 2**20 if found["bytes"] is not None else None
        ratios = found["times_detectron2"], mebibytes, found["bytes_of_detectron2"]
        rows.append([variant.network, variant.precision, found["ms_an_image"], found["images_per_second"], *ratios])
    return rows


def _method(name: str, images: str, batch: int, rounds: int, regions: int | None) -> str:
    fewer = "" if regions is None else f"; {regions} regions an image in the second stage"
    return (
        f"detectron2's model zoo config of {name.replace('_', ' ').upper()} with its own modules, and ours of the same "
        f"config{fewer}. {images[0].upper()}{images[1:]}. Training: {batch} a step, losses, backward pass and SGD "
        "(at rate 0, so that every step is the same). Inference: one image at a time, boxes at the end. bfloat16: "
        f"under autocast. In one process, in turn, median of {rounds} rounds; times and memory against detectron2 in "
        "the same precision."
    )
