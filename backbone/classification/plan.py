"""What a pretraining run is about to do, on one page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from ..common.text import count
from ..engine import plan as page
from .data import ImagesInMemory, LabelledImages


def plan(
    network: nn.Module,
    train: LabelledImages | None,
    test: LabelledImages,
    config: Any,
    *,
    weights: str,
    notes: list[str],
    protocols: Sequence[str],
) -> str:
    """Return the plan: network, weights, data, batch, recipe, schedule, device, precision and output folder.

    Args:
        protocols: of the tests.
    """
    classes = count(len(test.classes), "class", "classes")
    rows = [
        ("network", f"{config.MODEL.NAME}, {config.MODEL.NORM}, {classes}; {page.trained(network)}{_frozen(network)}"),
        *(("paper", paper_row(row)) for row in config.PAPER.ROWS),
        ("weights", weights),
    ]
    if train is not None:
        rows.append(("train", _set(train)))
    rows.append(("test", f"{_set(test)}; {', '.join(protocols)}"))
    if train is not None:
        loaders = "" if isinstance(train, ImagesInMemory) else f"; {page.loaders(config)}"
        rows += [
            ("batch", f"{page.batch(config)}{loaders}{_balance(config)}"),
            ("images", _augmentation(config)),
            ("schedule", _schedule(train, config)),
        ]
        notes = [*page.schedule_notes(config, len(train)), *notes]
    return page.page(config, rows, notes)


def paper_row(row: Sequence[Any]) -> str:
    """Return one of PAPER.ROWS in words."""
    table, name, protocol, top1, top5 = row
    errors = [f"top-1 {top1:g} %"] if top1 else []
    errors += [f"top-5 {top5:g} %"] if top5 else []
    where = f"Table {table}" if table.isdigit() else table
    return f"{where}, {name}, {protocol}: {', '.join(errors) + ' error' if errors else 'a curve, no figure'}"


def _set(images: LabelledImages) -> str:
    where = "in memory" if isinstance(images, ImagesInMemory) else "read from files"
    return f"{images.name}: {count(len(images), 'image')}, {where}{images.note and f'; {images.note}'}"


def _frozen(network: nn.Module) -> str:
    stages = network.stage_names[: network.freeze_at]
    return f", {', '.join(stages)} frozen" if stages else ""


def _balance(config: Any) -> str:
    return (", every class equally often" if config.DATA.BALANCED else "") + page.class_weights(config.SOLVER)


def _augmentation(config: Any) -> str:
    node = config.INPUT
    crop = {
        "shorter_side": f"shorter side {node.SHORTER_SIDE[0]}..{node.SHORTER_SIDE[-1]}, crop {node.TRAIN_SIZE}",
        "area": f"{node.AREA[0]:g}..{node.AREA[-1]:g} of the area, resized to {node.TRAIN_SIZE}",
        "pad": f"{node.PAD} zeros around, crop {node.TRAIN_SIZE}",
    }
    parts = [crop[node.CROP], *(["flip"] if node.FLIP else [])]
    values = (("lighting", node.LIGHTING), ("mixup", node.MIXUP), ("cutmix", node.CUTMIX))
    parts += [f"{name} {value:g}" for name, value in values if value]
    parts += ["progressive sizes"] if node.PROGRESSIVE else []
    return ", ".join([*parts, "minus the mean image" if config.MODEL.MEAN_IMAGE else "minus the mean a channel"])


def _schedule(train: LabelledImages, config: Any) -> str:
    solver = config.SOLVER
    course = page.course(solver)
    if solver.WARMUP_ERROR:
        course += f", x{solver.WARMUP_FACTOR:g} until the training error is below {solver.WARMUP_ERROR:.0%}"
    length = page.length(config, len(train))
    return f"{length}; lr {solver.BASE_LR:.4g}, {course}; weight decay {solver.WEIGHT_DECAY:g}"
