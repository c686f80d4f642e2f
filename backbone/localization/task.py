"""Localisation as a task of the shared trainer."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import Dataset

from ..classification.data.decode import decode_upright
from ..classification.testing import Protocol, evaluate
from ..common.errors import DataError
from ..common.files import write_whole
from ..engine import distributed
from ..engine.broken import BrokenImages, check_left_out
from ..engine.defaults import preprocessing_of
from ..engine.image_progress import ImageProgress
from ..engine.loading import make_loader, resolve_workers, until_error
from ..engine.moving_average import MovingAverage
from ..engine.record import LOGGER
from ..engine.solver import device_of
from ..engine.task import Task
from ..weights.weight_metadata import options_of
from .boxes import encode
from .data import BoxedImages
from .evaluation import KIND, localization_errors
from .inference import best_proposals, localize, propose, to_pixels
from .networks import RCNN, RPN, LocalizationNetwork
from .samples import LocalizationBatch, training_batches
from .weights import Member, facts_of, open_classifiers, open_trained

log = logging.getLogger(LOGGER)
# Of R-CNN: proposals of the training images, (N, PROPOSALS, 4) and how many each has.
PROPOSALS_FILE = "proposals.npz"
# Smooth L1's bend, as in Faster R-CNN's RPN.
BETA = 1 / 9


class LocalizationTask(Task):
    """Trains a network on `train` and tests it, alone or in an ensemble, on `test`.

    Attributes:
        found: {index: (classes, boxes)} of the last evaluation, over all processes.
        left_out: {index: what is wrong} of the test images that it could not read.
    """

    def __init__(
        self,
        network: LocalizationNetwork,
        train: BoxedImages | None,
        test: BoxedImages,
        config: Any,
        others: Sequence[Member] = (),
        proposers: Sequence[Member] = (),
    ) -> None:
        self.model = network
        self.train, self.test = train, test
        self.config = config
        self.device = device_of(config)
        self.prepare = preprocessing_of(config)
        self.others, self.proposers = list(others), list(proposers)
        self.broken = BrokenImages(config.DATA.MAX_BAD_IMAGES)
        self.found: dict[int, tuple[list[int], np.ndarray]] = {}
        self.left_out: dict[int, str] = {}
        self.average = MovingAverage.of(network, config)
        self._classes: Tensor | None = None
        self._class_figures: dict[str, float] = {}

    # -- training

    def batches(self, start: int, end: int) -> Iterable[LocalizationBatch]:
        proposals = self._proposals() if self.config.MODEL.KIND == RCNN else None
        return training_batches(self.train, self.config, self.device, (start, end), self.broken, proposals)

    def losses(self, model: nn.Module, batch: LocalizationBatch, iteration: int) -> dict[str, Tensor]:
        """Return the loss of the image's own class: of its binary classifier, and of its regression on positives."""
        layout = torch.channels_last if self.config.MODEL.CHANNELS_LAST else torch.contiguous_format
        inputs = self.prepare(batch.images).contiguous(memory_format=layout)
        scores, moves = model(inputs, batch.labels[:, None])
        scores = scores.flatten(1).gather(1, batch.places)
        moves = moves.flatten(1, 4).gather(1, batch.places[:, :, None].expand(-1, -1, 4))
        positive = batch.positive
        # Of the others the boxes are empty, and their logarithms not finite.
        boxes = torch.where(positive[:, :, None], batch.boxes, batch.references)
        apart = F.smooth_l1_loss(moves, encode(batch.references, boxes), beta=BETA, reduction="none").sum(2)
        return {
            "loss_class": F.binary_cross_entropy_with_logits(scores, positive.float()),
            "loss_box": (apart * positive).sum() / positive.numel(),
        }

    def metadata(self) -> dict[str, Any]:
        model = self.config.MODEL
        return {
            "classes": self.test.classes,
            "architecture": model.NAME,
            **options_of(self.model.backbone),
            **facts_of(self.config),
            "preprocessing": self.prepare.to_dict(),
        }

    def _proposals(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the proposals of the training images; made once, and kept in the run folder."""
        path = Path(self.config.OUTPUT_DIR) / PROPOSALS_FILE
        if not path.is_file():
            self._write_proposals(path)
        distributed.barrier()
        with np.load(path, allow_pickle=False) as file:
            boxes, counts = file["boxes"], file["counts"]
        if boxes.shape[:2] != (len(self.train), self.config.MODEL.PROPOSALS) or len(counts) != len(self.train):
            raise DataError(f"{path}: is of other images or of another MODEL.PROPOSALS; remove it, it is made again")
        return boxes, counts

    def _write_proposals(self, path: Path) -> None:
        config, number = self.config, self.config.MODEL.PROPOSALS
        found = {}
        for index, image in self._images(self.train, "proposals"):
            if isinstance(image, str):
                continue
            scores, boxes = propose(self.proposers, image, [int(self.train.labels[index])], config)
            best = best_proposals(scores[0], boxes[0], number=number, iou=config.MODEL.PROPOSAL_NMS)
            found[index] = to_pixels(best, image.shape[1], image.shape[0])
        everyone = distributed.gather_to_main(found)
        if not distributed.is_main():
            return
        boxes = np.zeros((len(self.train), number, 4), dtype=np.float32)
        counts = np.zeros(len(self.train), dtype=np.int64)
        for index, own in (pair for part in everyone for pair in part.items()):
            boxes[index, : len(own)], counts[index] = own, len(own)

        def write(temporary: Path) -> None:
            with open(temporary, "wb") as file:
                np.savez(file, boxes=boxes, counts=counts)

        write_whole(path, write)
        log.info("proposals    %s: %.4g an image", path, counts.mean())

    # -- testing

    def evaluate(self, *, final: bool = True) -> dict[str, dict[str, float]]:
        """Return {"loc": the figures of `localization_errors`}; {} where the test set has no boxes.

        Raises:
            DataError: too many images cannot be read; see `check_left_out`.
        """
        tested = self.averaged()
        guesses = self._guessed_classes()
        members = [Member(tested, self.prepare, self.config), *self.others]
        found, left_out = {}, {}
        for index, image in self._images(self.test, self.test.name):
            if isinstance(image, str):
                left_out[index] = image
                continue
            classes = guesses[index] if guesses is not None else [int(self.test.labels[index])]
            found[index] = (classes, localize(members, self.proposers, image, classes, self.config))
        self.found = {index: guess for part in distributed.gather(found) for index, guess in part.items()}
        self.left_out = {index: text for part in distributed.gather(left_out) for index, text in part.items()}
        check_left_out(self.test.name, len(self.test), self.left_out)
        if not self.test.has_truth:
            return {}
        true_classes = self.config.TEST.CLASSES == "truth"
        errors = localization_errors(self.found, self.test, true_classes=true_classes)
        accuracy = 1 - errors["true_class_error" if true_classes else "top5_error"]
        return {KIND: {**errors, "accuracy": accuracy}}

    def _guessed_classes(self) -> list[list[int]] | None:
        """Return the likeliest classes of each test image, up to five, by TEST.CLASSIFIERS; None for the true ones."""
        config = self.config
        if config.TEST.CLASSES == "truth":
            return None
        if self._classes is None:
            networks, prepare = open_classifiers(config, self.test.classes)
            protocol = Protocol("dense", crop=config.INPUT.TRAIN_SIZE, sides=tuple(config.TEST.DENSE_SIDES))
            amp = config.SOLVER.AMP
            self._classes = evaluate(
                networks,
                self.test,
                protocol,
                prepare=prepare,
                device=self.device,
                workers=config.DATALOADER.NUM_WORKERS,
                batch_size=config.TEST.BATCH_SIZE,
                amp=getattr(torch, amp.DTYPE) if amp.ENABLED else None,
                progress=distributed.is_main(),
            ).guesses
        return self._classes.tolist()

    def _images(self, images: BoxedImages, title: str) -> Iterator[tuple[int, np.ndarray | str]]:
        """Yield this process's images (H, W, 3) RGB with their indices; what is wrong with one that cannot be read."""
        indices = range(distributed.rank(), len(images), distributed.world_size())
        workers = resolve_workers(self.config.DATALOADER.NUM_WORKERS, distributed.world_size())
        with ImageProgress(len(images), title, visible=True) as progress:
            for (sample,) in until_error(make_loader(_Whole(images, indices), workers=workers, pin_memory=False)):
                progress.add(1)
                yield sample


class _Whole(Dataset):
    def __init__(self, images: BoxedImages, indices: Sequence[int]) -> None:
        self.images = images
        self.indices = list(indices)

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, place: int) -> tuple[int, np.ndarray | str]:
        index = self.indices[place]
        try:
            return index, decode_upright(self.images.content(index))
        except DataError as error:
            return index, f"{self.images.place(index)}: {error}"


def open_others(config: Any, classes: Sequence[str], *, testing: bool) -> tuple[list[Member], list[Member]]:
    """Return the further networks of an ensemble, in a test, and the RPNs whose boxes R-CNN scores."""
    kind, test = config.MODEL.KIND, config.TEST
    others = [open_trained(path, config, classes, kind) for path in (test.ENSEMBLE if testing else ())]
    return others, [open_trained(path, config, classes, RPN) for path in (test.PROPOSERS if kind == RCNN else ())]
