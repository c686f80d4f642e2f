"""The localisation error of ImageNet's development kit: a guess is right if its class is, and its box overlaps one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from .boxes import ious
from .data import BoxedImages

RIGHT_IOU = 0.5
KIND = "loc"
# {index of an image: its guesses}, classes and a box of each, likeliest first.
Guesses = Mapping[int, tuple[Sequence[int], np.ndarray]]


def is_right(guess: int, box: np.ndarray, label: int, objects: np.ndarray) -> bool:
    """Whether a guess has the image's class, and IoU 0.5 or more with one of its objects.

    Boxes are edges, so that the last pixel of the development kit's boxes, which it includes, is inside.
    """
    return guess == label and bool((ious(box[None], objects) >= RIGHT_IOU).any())


def localization_errors(found: Guesses, images: BoxedImages, *, true_classes: bool) -> dict[str, float | int]:
    """Return the errors as shares of the images in `found`.

    Returns:
        "images", and with `true_classes`, where the class is given, "true_class_error"; else "top1_error" and
        "top5_error", with "class_top5_error", that of the classes alone.
    """
    first, any_right, class_right = 0, 0, 0
    for index, (classes, boxes) in found.items():
        label, objects = int(images.labels[index]), images.boxes_of(index)
        right = [is_right(int(guess), box, label, objects) for guess, box in zip(classes, boxes)]
        first += right[0]
        any_right += any(right)
        class_right += label in [int(guess) for guess in classes]
    number = len(found)
    errors = [(number - rights) / number for rights in (first, any_right, class_right)]
    if true_classes:
        return {"true_class_error": errors[0], "images": number}
    return {"top1_error": errors[0], "top5_error": errors[1], "class_top5_error": errors[2], "images": number}


def submission(found: Guesses, names: Sequence[str]) -> str:
    """Return the file for the evaluation server: ImageId, and class number (from 1) with first and last pixel a guess.

    Class numbers are the lines of LOC_synset_mapping.txt; pixels count from 0.
    """
    lines = ["ImageId,PredictionString"]
    for index, (classes, boxes) in sorted(found.items()):
        corners = np.concatenate([boxes[:, :2], boxes[:, 2:] - 1], axis=1).round().astype(int)
        parts = [" ".join(map(str, (int(guess) + 1, *corner))) for guess, corner in zip(classes, corners.tolist())]
        lines.append(f"{names[index]},{' '.join(parts)}")
    return "\n".join(lines) + "\n"
