"""Sizes of the images from the data, and the batch from the data and the memory, where a config asks for it."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

import numpy as np
import torch
from detectron2.config import CfgNode

from backbone.common.text import count
from backbone.engine import distributed
from backbone.engine.config import get, put, read_yaml
from backbone.engine.record import CONFIG
from backbone.engine.solver import device_of

from ..data.sets import DetectionSet

# How much larger than they are small images are made: detectors find larger objects better.
ENLARGED = 1.25
# A shorter side below it makes features of COCO's objects useless.
LEAST_SIDE = 256
# Bytes that a million pixels take in training: 1.5 GiB for ResNet-50 with FPN and frozen BN, 2 with masks.
BYTES_OF_A_MEGAPIXEL = 2 * 2**30
# Of the memory that is free; the rest is for weights and what others take meanwhile.
SHARE = 0.7
# Fewer steps in an epoch than these, and a few epochs teach little.
STEPS_OF_AN_EPOCH = 50
SIZES = ("INPUT.MIN_SIZE_TRAIN", "INPUT.MAX_SIZE_TRAIN", "INPUT.MIN_SIZE_TEST", "INPUT.MAX_SIZE_TEST")
BATCH = "SOLVER.IMS_PER_BATCH"


def fit_to_data(
    config: CfgNode, images: DetectionSet, given: Collection[str], folder: Path | None
) -> tuple[CfgNode, list[str]]:
    """Obey INPUT.AUTO_SIZE and SOLVER.AUTO_BATCH; a collective call.

    Args:
        images: that are trained on.
        given: keys that the user gave on the command line; they are left as they are.
        folder: of a run that goes on, which keeps what it began with.

    Returns:
        The frozen config, and what was set, a line each.
    """
    saved = read_yaml(folder / CONFIG) if folder is not None and (folder / CONFIG).is_file() else None
    fitted = config.clone()
    fitted.defrost()
    notes = []
    if config.INPUT.AUTO_SIZE and given.isdisjoint(SIZES):
        notes += _fit_size(fitted, images, saved)
    if config.SOLVER.AUTO_BATCH and BATCH not in given:
        notes += _fit_batch(fitted, images, saved)
    fitted.freeze()
    return fitted, notes


def _fit_size(config: CfgNode, images: DetectionSet, saved: dict | None) -> list[str]:
    if saved is not None:
        for key in SIZES:
            value = get(saved, key)
            put(config, key, tuple(value) if isinstance(value, list) else value)
        return []
    shorter = float(np.median(np.min(images.sizes, axis=1)))
    ratio = min(1.0, max(LEAST_SIDE, ENLARGED * shorter) / config.INPUT.MIN_SIZE_TEST)
    if ratio == 1.0:
        return []
    for key in SIZES:
        value = get(config, key)
        put(
            config,
            key,
            tuple(round(side * ratio) for side in value) if isinstance(value, tuple) else round(value * ratio),
        )
    inputs = config.INPUT
    return [
        f"INPUT.AUTO_SIZE: shorter sides of {shorter:,.0f} pixels in the data are trained at "
        f"{min(inputs.MIN_SIZE_TRAIN)} to {max(inputs.MIN_SIZE_TRAIN)} and tested at {inputs.MIN_SIZE_TEST}"
    ]


def _fit_batch(config: CfgNode, images: DetectionSet, saved: dict | None) -> list[str]:
    processes = distributed.world_size()
    if saved is not None:
        config.SOLVER.IMS_PER_BATCH = get(saved, BATCH)
        return []
    inputs, jitter = config.INPUT, config.INPUT.LARGE_SCALE_JITTER
    sides = jitter.SIZE if jitter.ENABLED else (max(inputs.MIN_SIZE_TRAIN), inputs.MAX_SIZE_TRAIN)
    area = sides[0] * sides[1] / 1e6
    free = distributed.share(_free_bytes(config))
    held = int(SHARE * free / (area * BYTES_OF_A_MEGAPIXEL))
    wanted = max(2, len(images.trainable()) // STEPS_OF_AN_EPOCH) // processes
    each = max(1, min(held, wanted, config.SOLVER.REFERENCE_BATCH_SIZE // processes))
    config.SOLVER.IMS_PER_BATCH = each * processes
    return [
        f"SOLVER.AUTO_BATCH: {count(each, 'image')} a process, for {free / 2**30:.1f} GiB of free memory and the data"
    ]


def _free_bytes(config: CfgNode) -> int:
    """Return the memory that is free on the device of this process."""
    device = device_of(config)
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
