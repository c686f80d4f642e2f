"""Semantic segmentation as a task of the shared trainer."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..common.images import montage, rgb_picture
from ..engine import distributed
from ..engine.broken import BrokenImages, check_left_out
from ..engine.class_weights import class_weights
from ..engine.defaults import preprocessing_of
from ..engine.image_progress import ImageProgress
from ..engine.loading import Batch
from ..engine.moving_average import MovingAverage
from ..engine.solver import device_of
from ..engine.task import Task
from ..weights.weight_metadata import options_of
from .data import SegmentationSet
from .data.batches import training_batches, whole_images
from .data.labels import write_label
from .evaluation import KIND, VOID, Confusion, mean_iou, metrics
from .inference import Inference, inference_of, predict, prepared
from .losses import make_loss
from .networks import AUX, OUT, SegmentationNetwork, atrous_rates
from .pictures import caption_of, comparison, overlay

PICTURED = 8  # training images in a TensorBoard picture


class Part(Batch):
    """A part of a batch, whose loss is multiplied by its share outside of the task."""


class SegmentationTask(Task):
    """Trains a network on `train` and tests it on `test`.

    Attributes:
        metrics: of the last evaluation, NaN among them; see `evaluation.metrics`.
        confusion: of the last evaluation, over all processes.
        ious: {index: mIoU} of the test images with truth.
        drawn: {index: predicted labels} of the test images that are shown.
        left_out: {index: what is wrong} of the test images that the last evaluation could not read.
        broken: the training images of this process that were replaced.
        predictions: folder for the predicted label images of every evaluation, or None.
    """

    def __init__(
        self,
        network: SegmentationNetwork,
        train: SegmentationSet | None,
        test: SegmentationSet,
        config: Any,
        *,
        predictions: Path | None = None,
    ) -> None:
        self.model = network
        self.train = train
        self.test = test
        self.config = config
        self.predictions = predictions
        self.device = device_of(config)
        self.preprocessing = preprocessing_of(config)
        self.metrics: dict[str, float] = {}
        self.confusion = Confusion(len(test.classes))
        self.ious: dict[int, float] = {}
        self.drawn: dict[int, np.ndarray] = {}
        self.left_out: dict[int, str] = {}
        self.broken = BrokenImages(config.DATA.MAX_BAD_IMAGES)
        self.average = MovingAverage.of(network, config)
        numbers = None if train is None else train.pixels
        weights = class_weights(config.SOLVER, numbers, len(test.classes))
        self.loss = make_loss(config.SOLVER, weights, self.device)
        self._accuracy: Tensor | None = None

    def batches(self, start: int, end: int) -> Iterable[Batch]:
        return training_batches(self.train, self.config, self.device, start, end, self.broken)

    def parts(self, batch: Batch, iteration: int, number: int) -> list[tuple[Batch, Tensor]]:
        cut = [Part(part.images, part.labels) for part, _ in super().parts(batch, iteration, number)]
        totals = torch.stack([self.loss.total(part.labels) for part in cut])
        return list(zip(cut, self._shares(totals, totals.sum())))

    def _shares(self, totals: Tensor, own: Tensor) -> Tensor:
        """Return totals of pixel weights over the mean of the processes' own, of which the gradients are averaged."""
        mean = distributed.mean(own)
        return totals / torch.where(mean > 0, mean, 1)

    def losses(self, model: nn.Module, batch: Batch, iteration: int) -> dict[str, Tensor]:
        scores = model(self.prepare(batch.images))
        known = batch.labels != VOID
        right = (scores[OUT].detach().argmax(1) == batch.labels) & known
        # A crop can be void all over.
        self._accuracy = right.sum() / known.sum().clamp(min=1)
        losses = {"loss_seg": self.loss(scores[OUT], batch.labels)}
        if AUX in scores:
            losses["loss_aux"] = self.config.MODEL.HEAD.AUX_WEIGHT * self.loss(scores[AUX], batch.labels)
        if isinstance(batch, Part):
            return losses
        # The loss is a weighted mean over the pixels of all processes that are not void.
        total = self.loss.total(batch.labels)
        share = self._shares(total, total)
        return {name: loss * share for name, loss in losses.items()}

    def prepare(self, images: Tensor) -> Tensor:
        """Return network input from (N, C, H, W) pixels: RGB 0..255, gray, or bands."""
        if getattr(self.model, "takes_pixels", False):
            return images
        return prepared(images, self.preprocessing, self.config)

    def step_metrics(self) -> dict[str, Tensor]:
        return {} if self._accuracy is None else {"train_accuracy": self._accuracy}

    def metadata(self) -> dict[str, Any]:
        model = self.config.MODEL
        return {
            "classes": self.test.classes,
            "architecture": model.NAME,
            **options_of(self.model.backbone),
            "head": model.HEAD.NAME,
            "head_style": model.HEAD.STYLE,
            "align_corners": model.HEAD.ALIGN_CORNERS,
            "output_stride": model.OUTPUT_STRIDE,
            "atrous_rates": list(atrous_rates(self.config)) if model.HEAD.NAME == "deeplabv3" else [],
            "preprocessing": self.preprocessing.to_dict(),
        }

    def inference(self) -> Inference:
        """Return how TEST asks for images to be tested."""
        return inference_of(self.config, self.prepare)

    def evaluate(self, *, final: bool = True) -> dict[str, dict[str, float]]:
        """Return {"sem_seg": the defined figures}; {} where the test set has no truth.

        Raises:
            DataError: too many images cannot be read; see `check_left_out`.
        """
        tested = self.averaged()
        indices = range(distributed.rank(), len(self.test), distributed.world_size())
        shown = set(self.shown())
        confusion, ious, drawn, left_out = Confusion(len(self.test.classes), self.device), {}, {}, {}
        how, names = self.inference(), self.test.names()
        with ImageProgress(len(self.test), self.test.name, visible=True) as progress:
            for index, image, truth in whole_images(self.test, indices, self.config):
                progress.add(1)
                if isinstance(image, str):
                    left_out[index] = image
                    continue
                predicted = predict(tested, image, how)
                if truth is not None:
                    ious[index] = mean_iou(confusion.add(predicted, torch.from_numpy(truth).to(self.device)))
                if index in shown or self.predictions is not None:
                    label = predicted.byte().cpu().numpy()
                    if index in shown:
                        drawn[index] = label
                    if self.predictions is not None:
                        write_label(self.predictions / f"{names[index]}.png", label)
        ious = {index: float(value) for index, value in ious.items()}
        self.ious = {index: value for part in distributed.gather(ious) for index, value in part.items()}
        self.drawn = {index: label for part in distributed.gather(drawn) for index, label in part.items()}
        self.left_out = {index: text for part in distributed.gather(left_out) for index, text in part.items()}
        check_left_out(self.test.name, len(self.test), self.left_out)
        self.confusion = confusion.gather()
        self.metrics = metrics(self.confusion.counts, self.test.classes) if self.test.has_truth else {}
        defined = {name: value for name, value in self.metrics.items() if not math.isnan(value)}
        return {KIND: defined} if defined else {}

    def shown(self) -> list[int]:
        """Return the test images that are drawn: evenly through the set, so that not one kind of image is shown."""
        number = min(self.config.TEST.PICTURES, len(self.test))
        return np.unique(np.linspace(0, len(self.test) - 1, number).astype(int)).tolist()

    def pictures(self, batch: Batch) -> dict[str, np.ndarray]:
        pixels = map(rgb_picture, batch.images[:PICTURED].permute(0, 2, 3, 1).cpu().numpy())
        labels = batch.labels[:PICTURED].byte().cpu().numpy()
        return {
            "training batch": montage([overlay(*pair, self.test.classes) for pair in zip(pixels, labels)], columns=4)
        }

    def comparisons(self) -> dict[str, np.ndarray]:
        """Return {name: prediction, truth and errors, RGB} of the test images that are shown, the worst first."""
        found, names = {}, self.test.names()
        for index in sorted(self.drawn, key=lambda index: (self.ious.get(index, 0.0), index)):
            image, truth = self.test.read(index)
            caption = caption_of(self.test.path(index).name, self.ious.get(index))
            found[names[index]] = comparison(rgb_picture(image), self.drawn[index], truth, self.test.classes, caption)
        return found

    def evaluation_pictures(self) -> dict[str, np.ndarray]:
        return {f"segmentation {name}": picture for name, picture in self.comparisons().items()}
