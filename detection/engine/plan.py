"""What a run is about to do, on one page."""

from __future__ import annotations

import torch
from detectron2.config import CfgNode
from torch import nn

from backbone.engine.environment import device_name
from backbone.engine.loading import settle_workers
from backbone.text import count

from ..data.sets import DetectionSet
from ..modeling.backbone import architecture_of
from .datasets import Sets


def plan(model: nn.Module, sets: Sets, config: CfgNode, *, weights: str, processes: int, notes: list[str]) -> str:
    """Return the plan: model, weights, data, batch, schedule, device, precision and output folder."""
    rows = [
        ("model", _model(model, config)),
        ("weights", weights),
        *([("train", _set(sets.train))] if sets.train is not None else []),
        *(("test", _set(test.images)) for test in sets.test),
        *(
            [("batch", _batch(config, processes)), ("schedule", schedule_line(config, sets.train))]
            if sets.train is not None
            else []
        ),
        *(("", note) for note in notes),
        ("device", _device(config, processes)),
        ("precision", _precision(config)),
        ("output", config.OUTPUT_DIR),
    ]
    return "\n".join(["Plan", *(f"  {name:<10} {text}" for name, text in rows)])


def _model(model: nn.Module, config: CfgNode) -> str:
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    frozen = sum(parameter.numel() for parameter in model.parameters() if not parameter.requires_grad)
    kind = "Mask R-CNN" if config.MODEL.MASK_ON else "Faster R-CNN"
    head = config.MODEL.ROI_HEADS.NAME
    # A plain VGG has none, whatever the key says.
    norm = config.MODEL.RESNETS.NORM if getattr(architecture_of(config)[1], "batch_norm", True) else "no normalisation"
    classes = count(config.MODEL.ROI_HEADS.NUM_CLASSES, "class", "classes")
    return (
        f"{kind}, {config.MODEL.BACKBONE.NAME}, {head}, {norm}, {classes}; "
        f"{trained / 1e6:.2f} M parameters trained, "
        f"{frozen / 1e6:.2f} M frozen (freeze_at {config.MODEL.BACKBONE.FREEZE_AT})"
    )


def _set(images: DetectionSet) -> str:
    crowds = int(images.crowd.sum())
    parts = [
        f"{images.name}: {count(len(images), 'image')} ({len(images.trainable()):,} with objects)",
        count(len(images.boxes) - crowds, "object"),
        count(crowds, "crowd region"),
        count(len(images.classes), "class", "classes"),
    ]
    if images.skipped:
        parts.append(f"{count(images.skipped, 'unusable box', 'unusable boxes')} left out")
    if images.difficult:
        parts.append(f"{count(images.difficult, 'difficult object')} left out")
    return ", ".join(parts)


def _batch(config: CfgNode, processes: int) -> str:
    total = config.SOLVER.IMS_PER_BATCH
    size = config.INPUT.MIN_SIZE_TRAIN
    shown = f"{min(size)}..{max(size)}" if len(size) > 1 else str(size[0])
    workers = settle_workers(config.DATALOADER.NUM_WORKERS, processes)
    return (
        f"{count(total, 'image')} a step, {total // processes} in each of {count(processes, 'process', 'processes')}; "
        f"shorter side {shown}, longer at most {config.INPUT.MAX_SIZE_TRAIN}; {count(workers, 'loader worker')} each"
    )


def schedule_line(config: CfgNode, images: DetectionSet) -> str:
    """Return iterations, epochs and learning rate in words."""
    solver = config.SOLVER
    used = len(images.trainable()) if config.DATALOADER.FILTER_EMPTY_ANNOTATIONS else len(images)
    epochs = solver.MAX_ITER * solver.IMS_PER_BATCH / max(1, used)
    steps = [step for step in solver.STEPS if step < solver.MAX_ITER]
    drops = (
        "cosine"
        if "Cosine" in solver.LR_SCHEDULER_NAME
        else f"x{solver.GAMMA:g} at {', '.join(f'{step:,}' for step in steps)}"
    )
    if not steps and "Cosine" not in solver.LR_SCHEDULER_NAME:
        drops = "constant"
    warm_up = f", warm-up {solver.WARMUP_ITERS:,}" if solver.WARMUP_ITERS else ""
    return f"{count(solver.MAX_ITER, 'iteration')} = {epochs:.4g} epochs; lr {solver.BASE_LR:.4g}, {drops}{warm_up}"


def _device(config: CfgNode, processes: int) -> str:
    device = torch.device(config.MODEL.DEVICE)
    name = device_name(device)
    return name if processes == 1 else f"{processes} x {name}"


def _precision(config: CfgNode) -> str:
    amp = config.SOLVER.AMP
    name = f"{amp.DTYPE} where it is safe, else float32" if amp.ENABLED else "float32"
    return name + (", channels_last" if config.MODEL.CHANNELS_LAST else "")
