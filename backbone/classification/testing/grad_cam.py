"""Where a classifier looks: Grad-CAM (Selvaraju et al., arXiv 1610.02391)."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ...common.errors import ArchitectureError
from ...networks import Backbone


def grad_cam(network: Backbone, images: Tensor, labels: Tensor | None = None) -> Tensor:
    """Return what speaks for a class, cell by cell of the last stage.

    The map is the positive part of the stage's channels summed up, each weighted by the mean gradient of the class's
    score, before the softmax.

    Args:
        network: with a classifier, in eval mode; no gradient stays in it.
        images: (N, C, H, W), as the network takes them.
        labels: (N,) the classes in question; by default the likeliest ones.

    Returns:
        (N, h, w) float32, 0 or more, without a common scale.

    Raises:
        ArchitectureError: the network has no classifier.
    """
    if "logits" not in network.feature_info:
        raise ArchitectureError(f"{network.architecture}: gives no logits; create it with num_classes")
    last, x = network.stage_names[-1], images
    with torch.enable_grad():
        for stage, compute in network.stages():
            x = compute(x)
            if stage == last:
                # The gradient is wanted from here on alone.
                features = x = x.detach().requires_grad_()
        wanted = x.argmax(1) if labels is None else labels.to(x.device)
        (gradient,) = torch.autograd.grad(x.gather(1, wanted[:, None]).sum(), features)
    weights = gradient.float().mean((2, 3), keepdim=True)
    return (weights * features.detach().float()).sum(1).relu()


def enlarged(cells: Tensor, height: int, width: int) -> np.ndarray:
    """Return maps (N, h, w) as (N, height, width) float32 in 0..1, each over its own maximum; 0 where it is 0."""
    scaled = cells / cells.amax((1, 2), keepdim=True).clamp(min=1e-12)
    return F.interpolate(scaled[:, None], (height, width), mode="bilinear")[:, 0].clamp(0, 1).cpu().numpy()


def overlay(image: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """Return (H, W, 3) RGB uint8 with a map (H, W) of 0..1 in colours over it, blue for 0 and red for 1."""
    colours = cv2.applyColorMap((255 * heat).astype(np.uint8), cv2.COLORMAP_JET)[:, :, ::-1]
    return cv2.addWeighted(image, 0.55, np.ascontiguousarray(colours), 0.45, 0)
