"""Training steps on image files: torchvision's reference pipeline on Pillow and its loop, against ours."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from itertools import cycle, islice
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from backbone.classification.data.batches import BatchesFromFiles
from backbone.classification.data.sets import ImageFiles

from .classifiers import CLASSES, Loop, Setting, our_config
from .input import reference_transform


class PillowFiles(Dataset):
    """Files as torchvision's ImageFolder gives them, transformed as in its reference training."""

    def __init__(self, files: list[Path], size: int) -> None:
        self.files = files
        self.transform = reference_transform("area", size)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        with open(self.files[index], "rb") as file:
            return self.transform(Image.open(file).convert("RGB")), index % CLASSES


def file_ways(
    files: list[Path], loops: dict[str, Loop], *, batch: int, size: int, steps: int, workers: int, device: str
) -> dict[str, Callable[[], None]]:
    """Return calls that train `steps` steps from files: torchvision's loop with its pipeline, ours with our loader."""
    place = torch.device(device)
    loader = DataLoader(
        PillowFiles(list(islice(cycle(files), batch * steps)), size),
        batch_size=batch,
        shuffle=True,
        num_workers=workers,
        pin_memory=place.type == "cuda",
    )
    batches = our_batches(files, batch=batch, size=size, workers=workers, device=place)

    def peer() -> None:
        for images, labels in loader:
            loops["torchvision"].step(images.to(place, non_blocking=True), labels.to(place, non_blocking=True))

    def ours() -> None:
        for item in batches(steps):
            loops["ours"].step(item.images, item.labels)

    return {"torchvision": peer, "ours": ours}


def our_batches(
    files: list[Path], *, batch: int, size: int, workers: int, device: torch.device
) -> Callable[[int], Iterator]:
    """Return what yields a number of batches as `tools/pretrain.py` reads them."""
    root = Path(os.path.commonpath([str(path.parent) for path in files]))
    names = [str(path.relative_to(root)) for path in files]
    classes = [str(label) for label in range(CLASSES)]
    images = ImageFiles("files", classes, np.arange(len(files)) % CLASSES, root, names)
    config = our_config("resnet50", Setting(), batch=batch, size=size, device=device.type).clone()
    config.defrost()
    config.DATALOADER.NUM_WORKERS = workers
    source = BatchesFromFiles(images, config, device)
    return lambda steps: source.steps(0, steps)
