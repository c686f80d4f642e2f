"""Training steps of classifiers: torchvision's reference loop, timm's, and ours, on the same weights."""

from __future__ import annotations

import contextlib
import copy
import importlib.util
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torchvision
from torch import Tensor, nn

from backbone.classification.config import load_config
from backbone.classification.data import ImagesInMemory
from backbone.classification.data.augment import normalise
from backbone.classification.networks import build
from backbone.classification.optimizer import make_optimizer
from backbone.classification.task import ClassificationTask
from backbone.engine.averages import Averages
from backbone.engine.loading import Batch
from backbone.engine.solver import make_schedule, make_settings, quicken
from backbone.engine.trainer import Trainer

from .input import MEAN, STD

CLASSES = 1000
RATE, MOMENTUM, WEIGHT_DECAY = 1e-3, 0.9, 1e-4
# Of pixels 0..255.
PIXEL_MEAN, PIXEL_STD = ([round(255 * value, 3) for value in values] for values in (MEAN, STD))


@dataclass(frozen=True)
class Setting:
    """What all three are given alike.

    Attributes:
        dtype: None for float32, else of autocast.
    """

    dtype: torch.dtype | None = None
    channels_last: bool = False
    compiled: bool = False

    @property
    def precision(self) -> str:
        return str(self.dtype or torch.float32).removeprefix("torch.")

    @property
    def form(self) -> str:
        added = {"channels_last": self.channels_last, "compiled": self.compiled}
        return ", ".join(name for name, there in added.items() if there) or "plain"

    def autocast(self, device: torch.device) -> contextlib.AbstractContextManager:
        return torch.autocast(device.type, self.dtype) if self.dtype else contextlib.nullcontext()


class Loop(ABC):
    """A network in training.

    Attributes:
        network: in train mode, on its device; `run` is the network or its compiled form.
        optimizer: SGD.
    """

    network: nn.Module
    optimizer: torch.optim.Optimizer

    @abstractmethod
    def inputs(self, pixels: Tensor) -> Tensor:
        """Turn (N, 3, H, W) uint8 on the device into what this project's loader leaves there."""

    @abstractmethod
    def loss(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return the loss of what `inputs` returned."""

    @abstractmethod
    def step(self, images: Tensor, labels: Tensor) -> None:
        """Take one training step, with what the project's loop does besides."""


class TorchvisionLoop(Loop):
    """A step as train_one_epoch of torchvision's references/classification: loss and accuracies read in every step."""

    def __init__(self, network: nn.Module, setting: Setting, device: torch.device) -> None:
        self.network = _placed(network, setting, device)
        self.run = torch.compile(self.network) if setting.compiled else self.network
        self.setting, self.device = setting, device
        self.criterion = nn.CrossEntropyLoss()
        self.optimizer = torch.optim.SGD(
            self.network.parameters(), lr=RATE, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY
        )

    def inputs(self, pixels: Tensor) -> Tensor:
        return normalise(pixels, PIXEL_MEAN, PIXEL_STD)

    def _forward(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        if self.setting.channels_last:
            images = images.to(memory_format=torch.channels_last)
        with self.setting.autocast(self.device):
            output = self.run(images)
            return output, self.criterion(output, labels)

    def loss(self, images: Tensor, labels: Tensor) -> Tensor:
        return self._forward(images, labels)[1]

    def step(self, images: Tensor, labels: Tensor) -> None:
        output, loss = self._forward(images, labels)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        best = output.detach().topk(5, dim=1).indices == labels[:, None]
        for reading in (loss, best[:, 0].sum(), best.sum()):
            reading.item()


class TimmLoop(Loop):
    """A step as timm's train.py: its optimizer factory and loss, uint8 normalised on the device."""

    def __init__(self, network: nn.Module, setting: Setting, device: torch.device) -> None:
        from timm.loss import LabelSmoothingCrossEntropy
        from timm.optim import create_optimizer_v2

        self.network = _placed(network, setting, device)
        self.run = torch.compile(self.network) if setting.compiled else self.network
        self.setting, self.device = setting, device
        self.criterion = LabelSmoothingCrossEntropy(smoothing=0.0)
        self.optimizer = create_optimizer_v2(
            self.network, opt="sgd", lr=RATE, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY
        )
        self.mean, self.std = (torch.tensor(v, device=device).view(1, 3, 1, 1) for v in (PIXEL_MEAN, PIXEL_STD))

    def inputs(self, pixels: Tensor) -> Tensor:
        return pixels

    def loss(self, images: Tensor, labels: Tensor) -> Tensor:
        images = images.float().sub_(self.mean).div_(self.std)
        if self.setting.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        with self.setting.autocast(self.device):
            return self.criterion(self.run(images), labels)

    def step(self, images: Tensor, labels: Tensor) -> None:
        loss = self.loss(images, labels)
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()


class OurLoop(Loop):
    """A step of `tools/pretrain.py`: the trainer's, on a ClassificationTask."""

    def __init__(self, config: Any, task: ClassificationTask) -> None:
        self.task = task
        self.network = task.model.train()
        self.optimizer = make_optimizer(self.network, config)
        quicken(task, self.optimizer, config)
        self.trainer = Trainer(task, self.optimizer, make_schedule(config), make_settings(config, best=""))
        self.averages = Averages()

    def inputs(self, pixels: Tensor) -> Tensor:
        # As BatchesFromFiles leaves them: (N, H, W, 3) in memory.
        return pixels.contiguous(memory_format=torch.channels_last)

    def loss(self, images: Tensor, labels: Tensor) -> Tensor:
        with self.trainer.autocast():
            return self.task.losses(self.network, Batch(images, labels), 0)["loss_class"]

    def step(self, images: Tensor, labels: Tensor) -> None:
        self.averages.add(*self.trainer.step(Batch(images, labels)))


def our_config(name: str, setting: Setting, *, batch: int, size: int, device: str) -> Any:
    """Return the config of ImageNet training with the peers' augmentation: random resized crop and flip alone."""
    choices = {
        "DATA.SYNTHETIC": True,
        "DATALOADER.NUM_WORKERS": 0,
        "INPUT.CROP": "area",
        "INPUT.LIGHTING": 0.0,
        "INPUT.TRAIN_SIZE": size,
        "MODEL.NAME": name,
        "MODEL.NUM_CLASSES": CLASSES,
        "MODEL.DEVICE": device,
        # The peers' network and normalisation, not the paper's.
        "MODEL.STRIDE_IN_1X1": False,
        "MODEL.PIXEL_MEAN": PIXEL_MEAN,
        "MODEL.PIXEL_STD": PIXEL_STD,
        "MODEL.CHANNELS_LAST": setting.channels_last,
        "MODEL.COMPILE": setting.compiled,
        "SOLVER.AMP.ENABLED": setting.dtype is not None,
        "SOLVER.AMP.DTYPE": setting.precision if setting.dtype else "bfloat16",
        "SOLVER.BASE_LR": RATE,
        "SOLVER.MOMENTUM_FORM": "torch",
        "SOLVER.IMS_PER_BATCH": batch,
        "SOLVER.LR_SCHEDULER_NAME": "WarmupMultiStepLR",
    }
    return load_config("imagenet_resnet50.yaml", [part for pair in choices.items() for part in pair])


def make_loops(name: str, setting: Setting, *, batch: int, size: int, device: str) -> dict[str, Loop]:
    """Return the loops of torchvision, timm (where it is installed) and ours, with the same random weights."""
    torch.manual_seed(0)
    source = getattr(torchvision.models, name)()
    weights = source.state_dict()
    place = torch.device(device)
    loops: dict[str, Loop] = {"torchvision": TorchvisionLoop(copy.deepcopy(source), setting, place)}
    if importlib.util.find_spec("timm"):
        import timm

        peer = timm.create_model(name)
        peer.load_state_dict(weights)
        loops["timm"] = TimmLoop(peer, setting, place)
    config = our_config(name, setting, batch=batch, size=size, device=device)
    ours = build(config)
    ours.load_state_dict(weights)
    loops["ours"] = OurLoop(config, ClassificationTask(ours, None, no_images(), config))
    return loops


def _placed(network: nn.Module, setting: Setting, device: torch.device) -> nn.Module:
    layout = torch.channels_last if setting.channels_last else torch.contiguous_format
    return network.train().to(device, memory_format=layout)


def no_images() -> ImagesInMemory:
    """Return a set without images that knows its classes."""
    names = [str(label) for label in range(CLASSES)]
    return ImagesInMemory("none", names, np.empty(0, np.int64), np.empty((0, 1, 1, 3), np.uint8))
