"""Running a detector over a set, to predictions in COCO's results form."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import numpy as np
from detectron2.structures import Instances
from torch import nn

from backbone.engine import distributed
from backbone.engine.image_progress import ImageProgress
from backbone.engine.loading import make_loader, until_error
from backbone.engine.record import LOGGER

from ..data.keypoints import CENTRE
from ..data.samples import EvaluationSamples, Reader
from .gathering import gather_records
from .mask_crops import MaskCrops
from .pipeline import WAITING, detect_in_batches, in_order, run_model
from .transform import TestMapper

log = logging.getLogger(LOGGER)


def detect(model: nn.Module, samples: list[dict[str, Any]]) -> list[Instances]:
    """Return the detections of each sample, on the CPU, in pixels of its file."""
    return [found.to("cpu") for found in run_model(model, samples)]


def to_coco(instances: Instances, image_id: int, category_ids: list[int]) -> list[dict[str, Any]]:
    """Return one image's detections as records of COCO's results form: XYWH boxes, compressed RLE masks."""
    masks = instances.pred_masks.numpy() if instances.has("pred_masks") else None
    boxes, scores = instances.pred_boxes.tensor.numpy(), instances.scores.numpy()
    points = instances.pred_keypoints.numpy() if instances.has("pred_keypoints") else None
    return coco_records(boxes, scores, instances.pred_classes.numpy(), masks, image_id, category_ids, points)


def coco_records(
    boxes: np.ndarray,
    scores: np.ndarray,
    labels: np.ndarray,
    masks: np.ndarray | MaskCrops | None,
    image_id: int,
    category_ids: list[int],
    keypoints: np.ndarray | None = None,
) -> list[dict[str, Any]]:
    """Return XYXY boxes (N, 4), and masks (N, H, W) and keypoints (N, K, 3) where there are any, as records of COCO's
    results form."""
    boxes = boxes.astype(np.float64)
    boxes[:, 2:] -= boxes[:, :2]
    records = [
        {"image_id": image_id, "category_id": category_ids[label], "bbox": box, "score": score}
        for label, box, score in zip(labels.tolist(), boxes.tolist(), scores.astype(np.float64).tolist())
    ]
    if masks is not None:
        encoded = masks.encoded() if isinstance(masks, MaskCrops) else map(encode_mask, masks)
        for record, segmentation in zip(records, encoded):
            record["segmentation"] = segmentation
    if keypoints is not None:
        # COCO's coordinates are indices of pixels.
        points = keypoints.astype(np.float64) - (CENTRE, CENTRE, 0)
        for record, values in zip(records, points.reshape(len(records), -1).tolist()):
            record["keypoints"] = values
    return records


def encode_mask(mask: np.ndarray) -> dict[str, Any]:
    """Return an (H, W) bool mask as COCO's compressed RLE, its counts as text."""
    from pycocotools import mask as coco_mask

    encoded = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": list(encoded["size"]), "counts": encoded["counts"].decode("ascii")}


def run_on_set(
    model: nn.Module, mapper: TestMapper, *, workers: int, title: str, lenient: bool = False, batch_size: int = 1
) -> list[dict[str, Any]]:
    """Detect on every image of the mapper's set. Processes share the images; the main one gets all records.

    Loader processes decode the images, and a thread makes the records beside the next ones.

    Args:
        batch_size: images of one shape that go through the model together.
        lenient: name images that cannot be read, and leave them out.

    Returns:
        COCO results, in the order of the set's images; in other processes an empty list.
    """
    images = mapper.images
    own = list(range(distributed.rank(), len(images), distributed.world_size()))
    found: list[tuple[int, list[dict[str, Any]]]] = []

    def records(pair: tuple[tuple[int, Any], Instances | None]) -> tuple[int, Any]:
        (index, sample), detections = pair
        if detections is None:
            return index, sample
        return index, to_coco(detections.to("cpu"), sample["image_id"], images.category_ids)

    with ImageProgress(len(images), title, visible=True) as progress:
        samples = zip(
            own, read_samples(mapper, own, workers, lenient, pin_memory=next(model.parameters()).device.type == "cuda")
        )
        detected = detect_in_batches(model, samples, lambda pair: pair[1], batch_size=batch_size)
        for index, result in in_order(records, detected, threads=min(1, workers), ahead=WAITING):
            if isinstance(result, str):
                log.warning("left out of %s: %s", title, result)
                continue
            found.append((index, result))
            progress.add(1)
    return gather_records(found, images.image_ids)


def read_samples(
    mapper: Reader, indices: list[int], workers: int, lenient: bool, *, pin_memory: bool
) -> Iterator[dict[str, Any] | str]:
    """Yield the samples of some images in order; of one that cannot be read, with `lenient`, what is wrong with it."""
    loader = make_loader(
        EvaluationSamples(mapper, indices, lenient=lenient),
        workers=workers if len(indices) > 8 else 0,
        pin_memory=pin_memory,
    )
    for batch in until_error(loader):
        yield batch[0]
