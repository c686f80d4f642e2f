"""The paper's tests in their plainest form: float64, one image, one crop and one window at a time."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn

from backbone.common.images import decode_image, resize_image

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def read(path) -> np.ndarray:
    """(H, W, 3) uint8 RGB."""
    return decode_image(np.fromfile(path, dtype=np.uint8), str(path))[:, :, ::-1]


def at_shorter_side(image: np.ndarray, side: int) -> np.ndarray:
    height, width = image.shape[:2]
    if height < width:
        return resize_image(image, int(side * width / height), side)
    return resize_image(image, side, int(side * height / width))


def mirrored(image: np.ndarray) -> np.ndarray:
    out = np.empty_like(image)
    for x in range(image.shape[1]):
        out[:, x] = image[:, image.shape[1] - 1 - x]
    return out


def as_input(image: np.ndarray) -> Tensor:
    """(1, 3, H, W) float64, normalised by ImageNet's mean and standard deviation."""
    planes = [(image[:, :, c].astype(np.float64) / 255 - MEAN[c]) / STD[c] for c in range(3)]
    return torch.from_numpy(np.stack(planes))[None]


def softmax(scores: np.ndarray) -> np.ndarray:
    powers = [math.exp(score - max(scores)) for score in scores]
    return np.array(powers) / sum(powers)


@torch.no_grad()
def classify(network: nn.Module, image: np.ndarray) -> np.ndarray:
    """The softmax of one crop by a float64 network."""
    return softmax(network(as_input(image))["logits"][0].numpy())


def ten_crops(image: np.ndarray, side: int, crop: int) -> list[np.ndarray]:
    image = at_shorter_side(image, side)
    height, width = image.shape[:2]
    centre_y, centre_x = round((height - crop) / 2), round((width - crop) / 2)
    crops = [
        image[:crop, :crop],
        image[:crop, width - crop :],
        image[height - crop :, :crop],
        image[height - crop :, width - crop :],
        image[centre_y : centre_y + crop, centre_x : centre_x + crop],
    ]
    return crops + [mirrored(one) for one in crops]


def by_ten_crops(network: nn.Module, image: np.ndarray, side: int, crop: int) -> np.ndarray:
    return sum(classify(network, one) for one in ten_crops(image, side, crop)) / 10


def window_scores(network: nn.Module, features: Tensor, window: int) -> np.ndarray:
    """The classifier's scores in each window of (1, C, h, w) features, one window at a time, averaged."""
    scores = []
    for y in range(features.shape[2] - window + 1):
        for x in range(features.shape[3] - window + 1):
            cells = features[:, :, y : y + window, x : x + window]
            scores.append(_classify_window(network, cells))
    return sum(scores) / len(scores)


def _classify_window(network: nn.Module, cells: Tensor) -> np.ndarray:
    if hasattr(network, "classifier"):
        return network.classifier(network.avgpool(cells).flatten(1))[0].numpy()
    weight, bias = network.fc.weight.numpy(), network.fc.bias.numpy()
    return weight @ cells[0].numpy().mean((1, 2)) + bias


def last_map(network: nn.Module, image: np.ndarray) -> Tensor:
    """What the classifier sees, of a network that gives its last stage too."""
    outputs = network(as_input(image))
    features = outputs[network.stage_names[-1]]
    return torch.nn.functional.max_pool2d(features, 2, 2) if hasattr(network, "classifier") else features


@torch.no_grad()
def densely(network: nn.Module, image: np.ndarray, sides: tuple[int, ...], window: int, *, flip: bool) -> np.ndarray:
    found = []
    for side in sides:
        shown = at_shorter_side(image, side)
        for one in [shown, mirrored(shown)] if flip else [shown]:
            found.append(softmax(window_scores(network, last_map(network, one), window)))
    return sum(found) / len(found)
