"""Our sets by name, for detectron2's DatasetCatalog."""

from __future__ import annotations

from typing import Any

from ..config import default_config
from ..data.sets import DetectionSet
from .datasets import load_sets, source_of


def load_named(name: str) -> tuple[DetectionSet, dict[str, Any]]:
    """Read and check a set by its name; return it with what detectron2's metadata holds of it.

    Raises:
        DataError: as in `load_sets`.
    """
    config = default_config()
    config.DATASETS.TRAIN, config.DATASETS.TEST = (name,), ()
    source = source_of(name, config)
    config.MODEL.MASK_ON = source.voc is None
    about = {"evaluator_type": "coco"}
    if source.voc is None:
        about |= {"json_file": str(source.json_file), "image_root": str(source.image_folder)}
    return load_sets(config, training=True).train, about
