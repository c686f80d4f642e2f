"""One image of the mini set: its size, its background, and the objects on it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .background import draw_background, finish
from .canvas import Canvas
from .masks import without_specks
from .shapes import CLASSES
from .sprite import draw_sprite

SIZES = ((208, 160), (160, 208), (176, 176))  # width, height
SIZE_SHARES = (0.5, 0.25, 0.25)
# Every 16th image is empty and every 20th has a crowd; the offsets are of unlike parity, so none is asked for both.
EMPTY_EVERY, EMPTY_OFFSET = 16, 7
CROWD_EVERY, CROWD_OFFSET = 20, 4

MAX_OBJECTS = 7
OBJECT_SHARES = (0.10, 0.17, 0.20, 0.19, 0.15, 0.11, 0.08)  # of 1, 2, ... MAX_OBJECTS objects
REPEAT_SHARE = 0.3  # of images with two objects of one class
SIDES = (15.0, 100.0)  # pixels, before an object is stretched by up to an eighth
SIDE_POWER = 0.8  # 1: uniform in the logarithm; less: more of the larger ones
MAX_SHARE_OF_IMAGE = 0.5  # an object's squared side may be this share of the image, divided by a root of their number
MAX_HIDDEN = 0.68
SLIGHTLY_HIDDEN = 0.15
OVERLAP_SHARE = 0.5  # of objects that may hide, or lose, up to MAX_HIDDEN; the others SLIGHTLY_HIDDEN
TRIES = 12

CROWD_SIDES = (9.0, 13.0)
CROWD_COUNTS = (4, 6)  # per row and per column


class Instance(NamedTuple):
    """An object, or a crowd of one class, and its visible pixels, (H, W), bool."""

    name: str
    crowd: bool
    mask: np.ndarray


class Scene(NamedTuple):
    """An image, (H, W, 3), uint8, BGR, and what is on it."""

    image: np.ndarray
    instances: list[Instance]


def draw_scene(seed: int, split: int, index: int) -> Scene:
    """Draw one image of a split (0: train, 1: val). It is the same whatever other images are drawn."""
    rng = _generator(seed, split, index)
    width, height = SIZES[rng.choice(len(SIZES), p=SIZE_SHARES)]
    canvas = Canvas(draw_background(rng, height, width))
    crowds, objects = [], []
    if index % CROWD_EVERY == CROWD_OFFSET:
        crowds = [_paste_crowd(rng, canvas)]
    if index % EMPTY_EVERY != EMPTY_OFFSET:
        objects = _paste_objects(rng, canvas, _choose_classes(rng, seed, split, index, MAX_OBJECTS - len(crowds)))
    instances = [
        Instance(name, number < len(crowds), without_specks(canvas.owner == number))
        for number, name in enumerate(crowds + objects)
    ]
    return Scene(finish(rng, canvas.image), instances)


def _generator(seed: int, *key: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))


def _choose_classes(rng: np.random.Generator, seed: int, split: int, index: int, most: int) -> list[str]:
    """Choose the classes of 1 to `most` objects.

    Eight neighbours in a split take turns in one order of the classes, which keeps the frequencies of classes balanced.
    """
    group, turn = divmod(index, len(CLASSES))
    order = np.roll(_generator(seed, split, group, len(CLASSES)).permutation(len(CLASSES)), turn)
    count = min(int(rng.choice(MAX_OBJECTS, p=OBJECT_SHARES)) + 1, most)
    names = [CLASSES[number] for number in order[:count]]
    if rng.random() < REPEAT_SHARE:
        names[-1] = names[0]
    return names


def _paste_objects(rng: np.random.Generator, canvas: Canvas, names: list[str]) -> list[str]:
    """Paste objects at random places; return the classes of those that found room, the rearmost first."""
    count = len(names)
    height, width = canvas.owner.shape
    largest = min(SIDES[1], np.sqrt(MAX_SHARE_OF_IMAGE * height * width / np.sqrt(count)))
    sides = SIDES[0] * (largest / SIDES[0]) ** rng.random(count) ** SIDE_POWER
    return [name for name, side in zip(names, sides) if _paste_somewhere(rng, canvas, name, side)]


def _paste_somewhere(rng: np.random.Generator, canvas: Canvas, name: str, side: float) -> bool:
    """Paste an object where its place keeps all in sight, smaller if there is no such place; return whether it was."""
    max_hidden = MAX_HIDDEN if rng.random() < OVERLAP_SHARE else SLIGHTLY_HIDDEN
    shadow = rng.uniform(0.0, 0.5)
    for shrink in (1.0, 0.7, 0.5):
        sprite = draw_sprite(name, max(side * shrink, SIDES[0]), rng)
        height, width = sprite.alpha.shape
        for _ in range(TRIES):
            left = int(rng.integers(-width // 4, canvas.owner.shape[1] - 3 * width // 4 + 1))
            top = int(rng.integers(-height // 4, canvas.owner.shape[0] - 3 * height // 4 + 1))
            if canvas.try_paste(sprite, left, top, max_hidden=max_hidden, shadow=shadow):
                return True
    return False


def _paste_crowd(rng: np.random.Generator, canvas: Canvas) -> str:
    """Paste a cluster of tiny objects of one class as a single object; return the class."""
    name = str(rng.choice(CLASSES))
    step = rng.uniform(*CROWD_SIDES)
    columns, rows = rng.integers(CROWD_COUNTS[0], CROWD_COUNTS[1] + 1, 2)
    height, width = canvas.owner.shape
    corner = rng.uniform((2, 2), (width - columns * step - 4, height - rows * step - 4))
    sprites = []
    for row in range(rows):
        for column in range(columns):
            sprite = draw_sprite(name, step * rng.uniform(0.9, 1.15), rng)
            left, top = corner + np.array((column, row)) * step + rng.uniform(-0.3, 0.3, 2) * step
            sprites.append((sprite, int(left), int(top)))
    canvas.paste_group(sprites, gap=int(step))
    return name
