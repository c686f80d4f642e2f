"""Detection as a task of the shared trainer."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from detectron2.config import CfgNode
from detectron2.utils.events import EventStorage
from torch import Tensor, nn

from backbone.engine import distributed
from backbone.engine.loading import BatchSampler, EpochSampler, make_loader, settle_workers, until_error
from backbone.engine.trainer import Task

from ..data.samples import TrainingSamples, aspect_groups
from ..evaluation import CocoMetrics, evaluate_coco
from ..visualization import montage
from .datasets import Sets, TestSet, test_mapper, training_mapper
from .inference import run_on_set
from .pictures import evaluation_pictures, training_picture


class DetectionTask(Task):
    """Trains a detectron2 model on `sets.train` and evaluates it on `sets.test`.

    Attributes:
        predictions: {set name: COCO results} of the last evaluation, in the main process.
        metrics: {(set name, kind): CocoMetrics} of the last evaluation, in the main process.
    """

    def __init__(self, model: nn.Module, sets: Sets, config: CfgNode) -> None:
        self.model = model
        self.sets = sets
        self.config = config
        self.predictions: dict[str, list[dict[str, Any]]] = {}
        self.metrics: dict[tuple[str, str], CocoMetrics] = {}

    @property
    def workers(self) -> int:
        return settle_workers(self.config.DATALOADER.NUM_WORKERS, distributed.world_size())

    def batches(self, start: int, end: int) -> Iterable[list[dict[str, Any]]]:
        config, images = self.config, self.sets.train
        keep = images.trainable() if config.DATALOADER.FILTER_EMPTY_ANNOTATIONS else np.arange(len(images))
        batches = BatchSampler(
            EpochSampler(keep, config.SEED),
            batch_size=config.SOLVER.IMS_PER_BATCH,
            groups=aspect_groups(images.sizes) if config.DATALOADER.ASPECT_RATIO_GROUPING else None,
            start=start,
            steps=end,
            rank=distributed.rank(),
            world_size=distributed.world_size(),
        )
        samples = TrainingSamples(training_mapper(images, config), config.SEED)
        on_gpu = config.MODEL.DEVICE.startswith("cuda")
        return until_error(make_loader(samples, workers=self.workers, pin_memory=on_gpu, batches=batches))

    def losses(self, model: nn.Module, batch: list[dict[str, Any]], iteration: int) -> dict[str, Tensor]:
        # detectron2's heads write their counts into the storage that is current.
        with EventStorage(iteration):
            return model(batch)

    def evaluate(self) -> dict[str, dict[str, float]]:
        results = {}
        for test in self.sets.test:
            prefix = f"{test.images.name}/" if len(self.sets.test) > 1 else ""
            for kind, metrics in self._evaluate_set(test).items():
                results[prefix + kind] = metrics.to_json()[kind]
        return distributed.share(results)

    def _evaluate_set(self, test: TestSet) -> dict[str, CocoMetrics]:
        mapper = test_mapper(test.images, self.config)
        predictions = run_on_set(self.model, mapper, workers=self.workers, title=f"evaluating {test.images.name}")
        if not distributed.is_main():
            return {}
        name, engine = test.images.name, self.config.TEST.EVAL_ENGINE
        metrics = {
            kind: evaluate_coco(truth, _of_kind(predictions, kind), kind, engine=engine)
            for kind, truth in test.ground_truth.items()
        }
        self.predictions[name] = predictions
        self.metrics.update({(name, kind): value for kind, value in metrics.items()})
        return metrics

    def pictures(self, batch: list[dict[str, Any]]) -> dict[str, np.ndarray]:
        sheet = training_picture(batch, self.sets.classes, self.config.INPUT.FORMAT)
        return {"training batch": sheet[:, :, ::-1]}

    def evaluation_pictures(self) -> dict[str, np.ndarray]:
        sheets = {}
        for test in self.sets.test:
            found = self.predictions.get(test.images.name, [])
            drawn = [picture for _, picture in evaluation_pictures(test.images, found, self.config)]
            if drawn:
                sheets[f"detections {test.images.name}"] = montage(drawn, columns=2, width=640)[:, :, ::-1]
        return sheets

    def metadata(self) -> dict[str, Any]:
        images = self.sets.any
        return {"classes": list(images.classes), "category_ids": list(images.category_ids)}


def _of_kind(predictions: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    """Return the records for one kind of evaluation; masks go by their own area, so their boxes are left out."""
    if kind != "segm":
        return predictions
    return [{key: value for key, value in record.items() if key != "bbox"} for record in predictions]
