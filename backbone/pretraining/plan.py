"""What a pretraining run is about to do, on one page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from ..engine.environment import device_name
from ..engine.loading import settle_workers
from ..engine.solver import device_of
from ..text import count
from .data import ImagesInMemory, LabelledImages


def plan(
    network: nn.Module,
    train: LabelledImages | None,
    test: LabelledImages,
    config: Any,
    *,
    weights: str,
    processes: int,
    notes: list[str],
) -> str:
    """Return the plan: network, weights, data, batch, recipe, schedule, device, precision and output folder."""
    device = device_name(device_of(config))
    rows = [
        ("network", _network(network, test, config)),
        *(("paper", paper_row(row)) for row in config.PAPER.ROWS),
        ("weights", weights),
        *([("train", _set(train))] if train is not None else []),
        ("test", f"{_set(test)}; {config.TEST.PROTOCOL}"),
        *(_training(train, config, processes) if train is not None else []),
        *(("", note) for note in notes),
        ("device", device if processes == 1 else f"{processes} x {device}"),
        ("precision", _precision(config)),
        ("output", config.OUTPUT_DIR),
    ]
    return "\n".join(["Plan", *(f"  {name:<10} {text}" for name, text in rows)])


def paper_row(row: Sequence[Any]) -> str:
    """Return one of PAPER.ROWS in words."""
    table, name, protocol, top1, top5 = row
    errors = [f"top-1 {top1:g} %"] if top1 else []
    errors += [f"top-5 {top5:g} %"] if top5 else []
    where = f"Table {table}" if table.isdigit() else table
    return f"{where}, {name}, {protocol}: {', '.join(errors) + ' error' if errors else 'a curve, no figure'}"


def _network(network: nn.Module, test: LabelledImages, config: Any) -> str:
    parameters = sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)
    classes = count(len(test.classes), "class", "classes")
    return f"{config.MODEL.NAME}, {config.MODEL.NORM}, {classes}; {parameters / 1e6:.2f} M parameters trained"


def _set(images: LabelledImages) -> str:
    where = "in memory" if isinstance(images, ImagesInMemory) else "read from files"
    return f"{images.name}: {count(len(images), 'image')}, {where}"


def _training(train: LabelledImages, config: Any, processes: int) -> list[tuple[str, str]]:
    solver = config.SOLVER
    total = solver.IMS_PER_BATCH
    batch = (
        f"{count(total, 'image')} a step, {total // processes} in each of {count(processes, 'process', 'processes')}"
    )
    if not isinstance(train, ImagesInMemory):
        batch += f"; {count(settle_workers(config.DATALOADER.NUM_WORKERS, processes), 'loader worker')} each"
    return [("batch", batch), ("images", _augmentation(config)), ("schedule", _schedule(train, config))]


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
    epochs = solver.MAX_ITER * solver.IMS_PER_BATCH / max(1, len(train))
    steps = [step for step in solver.STEPS if step < solver.MAX_ITER]
    drops = {
        "WarmupCosineLR": "cosine",
        "Plateau": f"x{solver.GAMMA:g} on plateau",
        "WarmupMultiStepLR": f"x{solver.GAMMA:g} at {', '.join(f'{step:,}' for step in steps)}"
        if steps
        else "constant",
    }[solver.LR_SCHEDULER_NAME]
    warm_up = f", warm-up {solver.WARMUP_ITERS:,}" if solver.WARMUP_ITERS else ""
    if solver.WARMUP_ERROR:
        warm_up += f", x{solver.WARMUP_FACTOR:g} until the training error is below {solver.WARMUP_ERROR:.0%}"
    average = f", weights averaged ({solver.EMA_DECAY:g})" if solver.EMA_DECAY else ""
    return (
        f"{count(solver.MAX_ITER, 'iteration')} = {epochs:.4g} epochs; lr {solver.BASE_LR:.4g}, {drops}{warm_up}; "
        f"weight decay {solver.WEIGHT_DECAY:g}{average}"
    )


def _precision(config: Any) -> str:
    amp = config.SOLVER.AMP
    parts = [f"{amp.DTYPE} where it is safe, else float32" if amp.ENABLED else "float32"]
    parts += ["channels_last"] if config.MODEL.CHANNELS_LAST else []
    if config.MODEL.COMPILE:
        mode = config.MODEL.COMPILE_MODE
        parts.append("compiled" if mode == "default" else f"compiled ({mode})")
    return ", ".join(parts)
