"""Resizing images."""

from __future__ import annotations

import numpy as np


def resize_image(image: np.ndarray, width: int, height: int) -> np.ndarray:
    """Resize (H, W, 3) uint8 by Pillow's bilinear filter: smoothed where the image shrinks.

    Enlarged, 1 of 1,000 values is one level off Pillow's; the result may share memory with `image`.
    """
    if image.shape[1::-1] == (width, height):
        return image
    # Here, so that who only reads images (evaluation, data checks) does not wait for torch.
    import torch
    from torch.nn import functional as F

    if not image.flags.c_contiguous or not image.flags.writeable:
        image = image.copy()  # torch takes no negative strides, and warns of arrays that it may not write
    # OpenCV takes as long and is 0.2 levels off Pillow in the mean where the image grows; INTER_AREA, up to 5 where
    # it shrinks. In this order the result is channels_last, and comes back as (H, W, 3) without a copy.
    planes = torch.from_numpy(image)[None].permute(0, 3, 1, 2)
    resized = F.interpolate(planes, (height, width), mode="bilinear", antialias=True)
    return resized[0].permute(1, 2, 0).numpy()
