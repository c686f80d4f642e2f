"""Detection as a task of the shared trainer."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from detectron2.config import CfgNode
from detectron2.layers import Conv2d
from torch import Tensor, nn

from backbone.common.images import montage
from backbone.engine import distributed
from backbone.engine.broken import BrokenImages
from backbone.engine.class_weights import class_weights
from backbone.engine.loading import batches_of_steps, make_loader, resolve_workers, until_error
from backbone.engine.moving_average import MovingAverage
from backbone.engine.record import LOGGER
from backbone.engine.task import Task

from ..config.names import is_retinanet
from ..data.proposals import Proposals
from ..data.samples import SparingSamples, aspect_groups
from ..data.transforms import Transform
from ..evaluation import CocoMetrics, VocMetrics
from ..inference.cost import cost_line
from ..inference.methods import as_tested
from ..inference.pipeline import batch_size_of
from ..inference.run import run_on_set
from ..inference.transform import TestMapper, TestTransform
from ..modeling.box_losses import set_class_weights
from ..modeling.compiled import compile_parts
from ..modeling.testing import Pipeline
from ..modeling.waits import StepCounts, on_device
from ..modeling.winograd_layer import WinogradLayer
from .datasets import Sets, TestSet, repeats_of, training_mapper, used_for_training
from .pictures import PAIR, evaluation_pictures, training_picture
from .scoring import figures_line, score
from .validation import KIND, losses_line, validation_losses

log = logging.getLogger(LOGGER)
# Where RetinaNet keeps the running number of positive anchors that its losses are divided by; no buffer of the model.
NORMALIZER = "loss_normalizer"


class DetectionTask(Task):
    """Trains a detectron2 model on `sets.train` and evaluates it on `sets.test`.

    Args:
        proposals: of `sets.train`, for a model that trains on given ones.
        transforms: of the training samples, behind those of the config.

    Attributes:
        predictions: {set name: COCO results} of the last evaluation, in the main process.
        metrics: {(set name, kind): its metrics} of the last evaluation, in the main process.
    """

    winograd_kinds = {Conv2d: WinogradLayer}

    def __init__(
        self,
        model: nn.Module,
        sets: Sets,
        config: CfgNode,
        proposals: Proposals | None = None,
        transforms: Sequence[Transform] = (),
    ) -> None:
        self.model = model
        self.proposals = proposals
        self.transforms = transforms
        self.sets = sets
        self.config = config
        self.predictions: dict[str, list[dict[str, Any]]] = {}
        self.metrics: dict[tuple[str, str], CocoMetrics | VocMetrics] = {}
        self.broken = BrokenImages(config.DATASETS.MAX_BAD_IMAGES, "DATASETS.MAX_BAD_IMAGES")
        self.average = MovingAverage.of(model, config)
        if not is_retinanet(config):
            set_class_weights(model, weights_of_classes(sets, config), config)
        if config.MODEL.COMPILE and sets.train is not None:
            compile_parts(model)
        self._cost_is_known = False
        self._statistics: dict[str, Tensor | float] = {}

    @property
    def workers(self) -> int:
        return resolve_workers(self.config.DATALOADER.NUM_WORKERS, distributed.world_size())

    def batches(self, start: int, end: int) -> Iterable[list[dict[str, Any]]]:
        config, images = self.config, self.sets.train
        used = used_for_training(images, config)
        groups = aspect_groups(images.sizes) if config.DATALOADER.ASPECT_RATIO_GROUPING else None
        batches = batches_of_steps(used, config, start, end, repeats=repeats_of(images, config), groups=groups)
        mapper = training_mapper(images, config, self.proposals, self.transforms)
        samples = SparingSamples(mapper, config.SEED, used)
        on_gpu = config.MODEL.DEVICE.startswith("cuda")
        for batch in until_error(make_loader(samples, workers=self.workers, pin_memory=on_gpu, batches=batches)):
            self.broken.add([message for sample in batch for message in sample.pop("broken", ())])
            yield batch

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), NORMALIZER: distributed.gather(getattr(self.model, NORMALIZER, None))}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        normalizers = state.get(NORMALIZER) or [None]
        if (value := normalizers[distributed.rank() % len(normalizers)]) is not None:
            setattr(self.model, NORMALIZER, value)

    def losses(self, model: nn.Module, batch: list[dict[str, Any]], iteration: int) -> dict[str, Tensor]:
        # detectron2 copies tensor by tensor and waits for each.
        batch = [on_device(sample, self.config.MODEL.DEVICE) for sample in batch]
        # detectron2's heads write their counts into the storage that is current.
        with StepCounts(iteration) as storage:
            losses = model(batch)
        counts = storage.counts()
        self._statistics = {**counts, **foreground_shares(counts)}
        return losses

    def step_metrics(self) -> dict[str, Tensor | float]:
        """Return detectron2's own counts of the last step, such as fast_rcnn/fg_cls_accuracy, and what follows."""
        return self._statistics

    def evaluate(self, *, final: bool = True) -> dict[str, dict[str, float]]:
        """See Task.evaluate. Of sets without ground truth only the last predictions are of use.

        Raises:
            DataError: an image cannot be read, in the last evaluation.
        """
        results = {}
        wanted = [test for test in self.sets.test if final or test.has_truth]
        # Of the weights as they are now, and for this evaluation alone. A training has new ones at each: compiling
        # would take longer than it saves.
        alone = self.sets.train is None
        model = self.averaged() if wanted else None
        tested = as_tested(model, self.config, self.sets.classes, may_compile=alone) if wanted else None
        for test in wanted:
            prefix = f"{test.images.name}/" if len(self.sets.test) > 1 else ""
            for metrics in self._evaluate_set(tested, test, final).values():
                results |= {prefix + kind: figures for kind, figures in metrics.to_json().items()}
            if self.config.TEST.LOSS and test.has_truth:
                losses = validation_losses(model, test, self.config, workers=self.workers, lenient=not final)
                results |= {prefix + KIND: losses} if losses else {}
                if losses:
                    log.info(losses_line(test.images.name, losses), extra={"file_only": sys.stderr.isatty()})
        return distributed.share(results)

    def _evaluate_set(self, tested: nn.Module, test: TestSet, final: bool) -> dict[str, CocoMetrics | VocMetrics]:
        mapper = TestMapper(test.images, TestTransform(self.config))
        began = time.monotonic()
        title = f"evaluating {test.images.name}"
        # An evaluation on the way must not end a training; the figures that it ends with are those of the whole set.
        together = {"workers": self.workers, "batch_size": batch_size_of(self.config)}
        predictions = run_on_set(tested, mapper, title=title, lenient=not final, **together)
        if not distributed.is_main():
            return {}
        if isinstance(tested, Pipeline) and not self._cost_is_known:
            log.info(cost_line(tested.networks[0].model, tested, mapper))
            self._cost_is_known = True
        name = test.images.name
        metrics = score(test, predictions, self.config.TEST.EVAL_ENGINE)
        # Beside a bar the terminal is spared.
        log.info(figures_line(name, metrics, time.monotonic() - began), extra={"file_only": sys.stderr.isatty()})
        self.predictions[name] = predictions
        self.metrics.update({(name, kind): value for kind, value in metrics.items()})
        return metrics

    def pictures(self, batch: list[dict[str, Any]]) -> dict[str, np.ndarray]:
        sheet = training_picture(batch, self.sets.classes, self.config.INPUT.FORMAT)
        return {"training batch": sheet[:, :, ::-1]}

    def evaluation_pictures(self) -> dict[str, np.ndarray]:
        sheets = {}
        for test in self.sets.test:
            if test.images.name not in self.predictions:
                continue
            found = self.predictions[test.images.name]
            drawn = [picture for _, picture in evaluation_pictures(test.images, found, self.config)]
            if drawn:
                sheets[f"detections {test.images.name}"] = montage(drawn, columns=2, width=PAIR)[:, :, ::-1]
        return sheets

    def metadata(self) -> dict[str, Any]:
        images = self.sets.any
        return {"classes": list(images.classes), "category_ids": list(images.category_ids)}


def weights_of_classes(sets: Sets, config: CfgNode) -> list[float]:
    """Return the weight of each class in the loss: CLASS_WEIGHTS times, where a set is trained on, CLASS_BALANCE."""
    train, classes = sets.train, len(sets.classes)
    numbers = None if train is None else np.bincount(train.labels[~train.crowd], minlength=classes)
    return class_weights(config.SOLVER, numbers, classes).tolist()


def foreground_shares(counts: dict[str, Tensor | float]) -> dict[str, Tensor | float]:
    """Return the share of the foreground among the anchors and regions that were drawn, by detectron2's counts."""
    found = {}
    for name, number in counts.items():
        for what, other in (("num_fg_samples", "num_bg_samples"), ("num_pos_anchors", "num_neg_anchors")):
            rest = counts.get(name.replace(what, other)) if name.endswith(what) else None
            if rest is not None and number + rest > 0:
                found[name.replace(what, "foreground_share")] = number / (number + rest)
    return found
