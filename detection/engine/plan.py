"""What a run is about to do, on one page."""

from __future__ import annotations

import numpy as np
from detectron2.config import CfgNode
from torch import nn

from backbone.common.text import count, some
from backbone.engine import plan as page
from backbone.engine.config import get

from ..config.names import architecture_of, classes_key, has_our_backbone, is_retinanet, kind_of
from ..data.sets import DetectionSet
from .datasets import Sets, repeats_of, used_for_training


def plan(model: nn.Module, sets: Sets, config: CfgNode, *, weights: str, notes: list[str]) -> str:
    """Return the plan: model, weights, data, batch, schedule, device, precision and output folder."""
    rows = [("model", _model(model, config)), ("weights", weights)]
    if sets.train is not None:
        rows += _rows_of("train", sets.train, labelled=True)
    rows += [row for test in sets.test for row in _rows_of("test", test.images, labelled=test.has_truth)]
    if sets.test:
        rows.append(("", f"tested in {config.TEST.PRECISION} (TEST.PRECISION)"))
    if sets.train is not None:
        # Of a large set, it takes seconds.
        repeats = repeats_of(sets.train, config)
        number = _images_of_an_epoch(sets.train, config, repeats)
        rows += [
            ("batch", _batch(config)),
            *_augmentation(config),
            *_sampling(repeats, config),
            ("schedule", schedule_line(config, number)),
        ]
        rows += _losses(config)
        notes = [*page.schedule_notes(config, number, recipe_for(config)), *notes]
    return page.page(config, rows, notes)


def _model(model: nn.Module, config: CfgNode) -> str:
    frozen = sum(parameter.numel() for parameter in model.parameters() if not parameter.requires_grad)
    head = "" if is_retinanet(config) else f"{config.MODEL.ROI_HEADS.NAME}, "
    # A plain VGG has none, whatever the key says.
    norm = config.MODEL.RESNETS.NORM
    if not has_our_backbone(config):
        norm = "a network of your own"
    elif not getattr(architecture_of(config)[1], "batch_norm", True):
        norm = "no normalisation"
    classes = count(get(config, classes_key(config)), "class", "classes")
    if config.MODEL.KEYPOINT_ON:
        classes += f", {count(config.MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS, 'keypoint')}"
    return (
        f"{kind_of(config)}, {config.MODEL.BACKBONE.NAME}, {head}{norm}, {classes}; "
        f"{page.trained(model)}, "
        f"{frozen / 1e6:.2f} M frozen (freeze_at {config.MODEL.BACKBONE.FREEZE_AT})"
    )


def _rows_of(name: str, images: DetectionSet, *, labelled: bool) -> list[tuple[str, str]]:
    """Return what a set holds, the classes of which it has nothing, and the warnings of the data check."""
    lacking = images.without_objects().items() if labelled else ()
    rows = [f"of {count(len(names), 'class', 'classes')} {why}: {some(names)}" for why, names in lacking]
    return [(name, _set(images)), *(("", row) for row in (*rows, *images.warnings))]


def _set(images: DetectionSet) -> str:
    crowds = int(images.crowd.sum())
    form = f" ({images.form})" if images.form else ""
    parts = [
        f"{images.name}{form}: {count(len(images), 'image')} ({len(images.trainable()):,} with objects)",
        count(len(images.boxes) - crowds, "object"),
        count(crowds, "crowd region"),
        count(len(images.classes), "class", "classes"),
    ]
    if images.skipped:
        parts.append(f"{count(images.skipped, 'unusable box', 'unusable boxes')} left out")
    if images.difficult:
        parts.append(f"{count(images.difficult, 'difficult object')} left out")
    return ", ".join(parts)


def _batch(config: CfgNode) -> str:
    sides = config.INPUT.MIN_SIZE_TRAIN
    shown = f"{min(sides)}..{max(sides)}" if len(sides) > 1 else str(sides[0])
    size = f"shorter side {shown}, longer at most {config.INPUT.MAX_SIZE_TRAIN}"
    jitter = config.INPUT.LARGE_SCALE_JITTER
    if jitter.ENABLED:
        size = f"{jitter.SIZE[1]} x {jitter.SIZE[0]}, images scaled by {jitter.SCALE[0]:g}..{jitter.SCALE[1]:g}"
    return f"{page.batch(config)}; {size}; {page.loaders(config)}"


def _augmentation(config: CfgNode) -> list[tuple[str, str]]:
    """Return a row of what is done to training samples beyond resizing and horizontal flips."""
    inputs = config.INPUT
    crop, mosaic, copies = inputs.CROP, inputs.MOSAIC, inputs.COPY_PASTE
    parts = [
        (inputs.RANDOM_FLIP != "horizontal", f"flips: {inputs.RANDOM_FLIP}"),
        (crop.ENABLED, f"crops ({crop.TYPE} {crop.SIZE[0]:g}, {crop.SIZE[1]:g})"),
        (mosaic.ENABLED, f"mosaics of four images ({mosaic.PROB:.0%})"),
        (copies.ENABLED, f"pasted objects ({copies.PROB:.0%})"),
        (inputs.COLOR_JITTER.ENABLED, "colours jittered"),
    ]
    shown = [text for on, text in parts if on]
    return [("", "; ".join(shown))] if shown else []


def _sampling(repeats: np.ndarray | None, config: CfgNode) -> list[tuple[str, str]]:
    if repeats is None:
        return []
    more = count(int((repeats > 1).sum()), "image")
    text = f"{more} of rare classes more often than once an epoch, {repeats.max():.3g} times at most"
    return [("sampling", f"{text} (DATALOADER.REPEAT_THRESHOLD {config.DATALOADER.REPEAT_THRESHOLD:g})")]


def _losses(config: CfgNode) -> list[tuple[str, str]]:
    """Return what is special about the loss of the box head."""
    box = config.MODEL.ROI_BOX_HEAD
    kind = "" if is_retinanet(config) or box.CLASS_LOSS == "softmax" else f"box head {box.CLASS_LOSS}"
    if kind.endswith("focal"):
        kind += f", gamma {box.FOCAL_GAMMA:g}, alpha {box.FOCAL_ALPHA:g}"
    text = (kind + page.class_weights(config.SOLVER)).removeprefix("; ")
    return [("loss", text)] if text else []


def schedule_line(config: CfgNode, images: int) -> str:
    """Return iterations, epochs and learning rate in words; `images` are those of an epoch."""
    return f"{page.length(config, images)}; lr {config.SOLVER.BASE_LR:.4g}, {page.course(config.SOLVER)}"


def recipe_for(config: CfgNode) -> str:
    """Return the config that fine-tunes a detector of this kind on a small set."""
    if is_retinanet(config):
        return "finetune_retinanet_r50_fpn.yaml"
    return f"finetune_{'mask' if config.MODEL.MASK_ON else 'faster'}_rcnn_r50_fpn.yaml"


def images_of_an_epoch(images: DetectionSet, config: CfgNode) -> int:
    """Return the images of an epoch."""
    return _images_of_an_epoch(images, config, repeats_of(images, config))


def _images_of_an_epoch(images: DetectionSet, config: CfgNode, repeats: np.ndarray | None) -> int:
    return len(used_for_training(images, config)) if repeats is None else round(repeats.sum())
