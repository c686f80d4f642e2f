"""Classification as a task of the shared trainer."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..common.images import rgb_picture
from ..common.text import count
from ..engine import distributed
from ..engine.broken import BrokenImages
from ..engine.class_weights import check_class_weights, class_weights
from ..engine.graphs import GraphedNetwork
from ..engine.image_progress import ImageProgress
from ..engine.loading import Batch, resolve_workers
from ..engine.moving_average import MovingAverage
from ..engine.record import LOGGER
from ..engine.share import Share
from ..engine.solver import device_of
from ..engine.task import Task
from ..networks import Backbone
from ..networks.precise_bn import recompute_bn
from ..weights import Preprocessing
from ..weights.weight_metadata import options_of
from .data import LabelledImages
from .data.augment import cutmix, lighting, mixup, normalise, pad_crop_flip, resize_batch
from .data.batches import make_batches, size_at
from .testing import Errors, Protocol, evaluate

log = logging.getLogger(LOGGER)
PICTURED = 16  # training images in a TensorBoard picture
# Streams of random numbers, apart from the loader's (0: order, 1: crops).
AUGMENTATION = 2


@dataclass(frozen=True)
class Augmented:
    """Images (N, 3, H, W) as the network takes them, with their targets.

    Attributes:
        targets: classes (N,), or their shares (N, K) where images are mixed; labels: the classes before.
    """

    images: Tensor
    targets: Tensor
    mixed: bool
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, rows: slice) -> Augmented:
        return Augmented(self.images[rows], self.targets[rows], self.mixed, self.labels[rows])


class ClassificationTask(Task):
    """Trains a network with a classifier on `train` and tests it on `test`.

    Attributes:
        mean_image: (3, H, W) of the training set where MODEL.MEAN_IMAGE is set, else None.
        errors: what the last test by each protocol found.
    """

    compiles_by_size = True

    def __init__(
        self,
        network: Backbone,
        train: LabelledImages | None,
        test: LabelledImages,
        config: Any,
        mean_image: Tensor | None = None,
    ) -> None:
        self.model = network
        self.test = test
        self.config = config
        self.device = device_of(config)
        self.source = make_batches(train, config, self.device) if train is not None else None
        self.broken = self.source.broken if self.source is not None else BrokenImages()
        self.classes = test.classes
        self.mean_image = mean_image
        # Moved once: a copy in every step would make it wait for the device.
        self._mean = config.MODEL.PIXEL_MEAN if mean_image is None else mean_image.to(self.device, torch.float32)
        self.class_weights = self._class_weights(train) if train is not None else None
        self.average = MovingAverage.of(network, config)
        self.errors: dict[str, Errors] = {}
        self._compiled: nn.Module | None = None
        self._graphed: GraphedNetwork | None = None
        self._error: Tensor | None = None
        self._precise: dict[str, Any] = {}

    # -- training

    def batches(self, start: int, end: int) -> Iterable[Batch]:
        return self.source.steps(start, end)

    def parts(self, batch: Batch, iteration: int, number: int) -> list[tuple[Augmented, float | Tensor]]:
        # Cut after the draws, which are made for the whole batch.
        batch = self._augmented(batch, iteration)
        parts = super().parts(batch, iteration, number)
        if self.class_weights is None or batch.mixed:
            return parts
        # The loss is a mean by the weights of all images of the step, whichever process has them.
        weight = distributed.mean(self.class_weights[batch.labels].sum()).clamp(min=1e-12)
        return [(part, self.class_weights[part.labels].sum() / weight) for part, _ in parts]

    def _class_weights(self, train: LabelledImages) -> Tensor | None:
        check_class_weights(self.config, "config", train.classes)
        numbers = np.bincount(train.labels, minlength=len(train.classes))
        weights = class_weights(self.config.SOLVER, numbers, len(train.classes))
        return None if (weights == 1).all() else torch.from_numpy(weights).float().to(self.device)

    def _augmented(self, batch: Batch, iteration: int) -> Augmented:
        return Augmented(*self.augment(batch, iteration, Share.of_this_process()), batch.labels)

    def losses(self, model: nn.Module, batch: Batch | Augmented, iteration: int) -> dict[str, Tensor]:
        is_part = isinstance(batch, Augmented)
        batch = batch if is_part else self._augmented(batch, iteration)
        images, targets, mixed = batch.images, batch.targets, batch.mixed
        logits = self._logits(model, images).float()
        wrong = logits.detach().argmax(1) != batch.labels
        # Of mixed images no class is the right one.
        self._error = None if mixed else wrong.float().mean()
        weights, smoothing = self.class_weights, self.config.SOLVER.LABEL_SMOOTHING
        if weights is None or mixed:
            return {"loss_class": F.cross_entropy(logits, targets, weights, label_smoothing=smoothing)}
        # As with reduction "mean" over the images of all processes, of a part over its own; 0 where none has a weight.
        loss = F.cross_entropy(logits, targets, weights, label_smoothing=smoothing, reduction="sum")
        total = weights[targets].sum()
        return {"loss_class": loss / (total if is_part else distributed.mean(total)).clamp(min=1e-12)}

    def _logits(self, model: nn.Module, images: Tensor) -> Tensor:
        if self.config.MODEL.CUDA_GRAPHS and images.is_cuda:
            self._graphed = self._graphed or GraphedNetwork(model, "logits")
            return self._graphed(images)
        if self.config.MODEL.COMPILE:
            model = self._compile(model)
        return model(images)["logits"]

    def _compile(self, model: nn.Module) -> nn.Module:
        mode = self.config.MODEL.COMPILE_MODE
        if self._compiled is None:
            # A graph for each size of images; for several at once it would be a slower one.
            self._compiled = torch.compile(model, mode=mode, dynamic=False)
        if mode != "default":
            # The last step's results lie in the memory of CUDA graphs, which this step writes anew.
            torch.compiler.cudagraph_mark_step_begin()
        return self._compiled

    def augment(self, batch: Batch, iteration: int, share: Share) -> tuple[Tensor, Tensor, bool]:
        """Return network input, targets (classes, or their shares where images were mixed), and whether they were.

        Args:
            share: what `batch` is of the batch of all processes; a collective call where it is not the whole.
        """
        node = self.config.INPUT
        random = self._random(iteration)
        images = batch.images
        if node.CROP == "pad":
            images = pad_crop_flip(images, random, pad=node.PAD, flip=node.FLIP, share=share)
        size = size_at(self.config, iteration)
        if images.shape[-1] != size:
            images = resize_batch(images, size)
        images = images.float()
        if node.LIGHTING:
            images = lighting(images, random, std=node.LIGHTING, share=share)
        targets, mixed = batch.labels, False
        if node.MIXUP or node.CUTMIX:
            cut = node.CUTMIX and (not node.MIXUP or random.random() < 0.5)
            mix, alpha = (cutmix, node.CUTMIX) if cut else (mixup, node.MIXUP)
            images, targets = mix(images, targets, len(self.classes), alpha, random, share)
            mixed = True
        return self.prepare(images), targets, mixed

    def _random(self, iteration: int) -> np.random.Generator:
        """Return the generator of a step's draws, the same in every process."""
        return np.random.default_rng((self.config.SEED, AUGMENTATION, iteration, 0))

    def prepare(self, images: Tensor) -> Tensor:
        """Return network input from (N, 3, H, W) RGB pixels 0..255, uint8 or float."""
        model = self.config.MODEL
        if self.config.INPUT.FORMAT == "BGR":
            images = images.flip(1)
        return normalise(images, self._mean, model.PIXEL_STD, channels_last=model.CHANNELS_LAST)

    def step_metrics(self) -> dict[str, Tensor]:
        return {} if self._error is None else {"train_error": self._error}

    # -- what is kept

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "precise": self._precise}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self._precise = state.get("precise", {})

    def weights(self) -> dict[str, Tensor]:
        return {**super().weights(), **self._precise}

    def metadata(self) -> dict[str, Any]:
        model = self.config.MODEL
        return {
            "classes": self.classes,
            "architecture": model.NAME,
            **options_of(self.model),
            "preprocessing": self.preprocessing().to_dict(),
            "mean_image": self.mean_image,
            "bn_statistics": "precise" if self._precise else "moving",
        }

    def preprocessing(self) -> Preprocessing:
        """Return what images go through; of a mean image, its mean a channel."""
        model = self.config.MODEL
        mean = model.PIXEL_MEAN if self.mean_image is None else self.mean_image.mean((1, 2)).tolist()
        return Preprocessing(self.config.INPUT.FORMAT, 255, tuple(mean), tuple(model.PIXEL_STD))

    # -- testing

    def network(self) -> Backbone:
        """Return a copy of the network with the weights that are tested and kept, in eval mode."""
        network = copy.deepcopy(self.model)
        network.load_state_dict(self.weights())
        network.preprocessing = self.preprocessing()
        return network.eval()

    def finish(self) -> None:
        """Replace the moving statistics of BN by those of precise BN (Sec. 3.4: "BN statistics ... fixed")."""
        precise = self.config.TEST.PRECISE_BN
        if not precise.ENABLED:
            return
        network = self.network()
        if not any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in network.modules()):
            return
        log.info("precise BN: statistics over %s", count(precise.NUM_IMAGES, "training image"))
        with ImageProgress(precise.NUM_IMAGES, "precise BN", visible=True) as progress:
            recompute_bn(network, self._prepared_batches(progress), num_images=precise.NUM_IMAGES)
        statistics = ("running_mean", "running_var")
        self._precise = {name: value for name, value in network.state_dict().items() if name.endswith(statistics)}

    def unfinish(self) -> None:
        self._precise = {}

    def _prepared_batches(self, progress: ImageProgress) -> Iterator[Tensor]:
        images = self.config.TEST.PRECISE_BN.NUM_IMAGES
        steps = -(-images // self.config.SOLVER.IMS_PER_BATCH)
        # The size of the end of the run, crops and flips of training, no mixing.
        last = self.config.SOLVER.MAX_ITER
        for step, batch in enumerate(self.batches(last, last + steps)):
            pixels = batch.images
            if self.config.INPUT.CROP == "pad":
                node, random, share = self.config.INPUT, self._random(last + step), Share.of_this_process()
                pixels = pad_crop_flip(pixels, random, pad=node.PAD, flip=node.FLIP, share=share)
            yield self.prepare(pixels.float())
            progress.add(len(batch))

    def evaluate(self, *, final: bool = True) -> dict[str, dict[str, float]]:
        if self.average is not None:
            self.average.share()
        return self.test_with((self.config.TEST.PROTOCOL,))

    def test_with(self, protocols: Iterable[str]) -> dict[str, dict[str, Any]]:
        """Return {protocol: `Errors.figures`}; `errors` keeps what was found."""
        found = test_networks([self.network()], [self.prepare], self.test, self.config, protocols)
        self.errors |= found
        return {name: errors.figures() for name, errors in found.items()}

    def pictures(self, batch: Batch) -> dict[str, np.ndarray]:
        shown = Batch(batch.images[:PICTURED], batch.labels[:PICTURED])
        # As a batch of its own: the main process alone draws it.
        images, _, _ = self.augment(shown, 0, Share())
        low, high = images.amin(), images.amax()
        pixels = ((images - low) / (high - low).clamp(min=1e-6) * 255).byte().permute(0, 2, 3, 1).cpu().numpy()
        if self.config.INPUT.FORMAT == "BGR":
            pixels = pixels[..., ::-1]
        side = max(64, min(224, pixels.shape[1]))
        tiles = [cv2.resize(rgb_picture(tile), (side, side), interpolation=cv2.INTER_NEAREST) for tile in pixels]
        tiles += [np.full_like(tiles[0], 255)] * (-len(tiles) % 4)
        rows = [np.concatenate(tiles[start : start + 4], axis=1) for start in range(0, len(tiles), 4)]
        return {"training batch": np.concatenate(rows)}


def protocol_of(name: str, config: Any) -> Protocol:
    """Return a protocol with the sizes of INPUT and TEST."""
    node = config.INPUT
    return Protocol(
        name, crop=node.TEST_SIZE, shorter_side=node.TEST_SHORTER_SIDE, sides=tuple(config.TEST.DENSE_SIDES)
    )


def one_view(config: Any) -> Protocol:
    """Return the protocol that shows one view of an image: the image itself, or its centre."""
    return protocol_of("single" if config.TEST.PROTOCOL == "single" else "1crop", config)


def test_networks(
    networks: list[nn.Module],
    prepare: list[Any],
    images: LabelledImages,
    config: Any,
    protocols: Iterable[str],
) -> dict[str, Errors]:
    """Test one network, or several as an ensemble, by each protocol."""
    device = device_of(config)
    results = {}
    for name in protocols:
        protocol = protocol_of(name, config)
        amp = config.SOLVER.AMP
        results[name] = evaluate(
            networks,
            images,
            protocol,
            prepare=prepare,
            device=device,
            workers=resolve_workers(config.DATALOADER.NUM_WORKERS, distributed.world_size()),
            batch_size=config.TEST.BATCH_SIZE,
            amp=getattr(torch, amp.DTYPE) if amp.ENABLED else None,
            channels_last=config.MODEL.CHANNELS_LAST,
            progress=distributed.is_main(),
        )
    return results
