"""Images that cannot be read: named once, replaced in training and left out in tests, and limited in number."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from ..common.errors import DataError, RunError
from ..common.text import count
from .record import LOGGER

log = logging.getLogger(LOGGER)
# Other images that are tried in the place of a broken one.
TRIES = 20
# More unreadable images than both stop a test: its figures would no longer be those of the set.
MOST_LEFT_OUT, LARGEST_SHARE_LEFT_OUT = 10, 0.01


def read_or_replace(
    read: Callable[[int], Any], index: int, images: int, random: np.random.Generator
) -> tuple[Any, list[str]]:
    """Return what `read(index)` gives, or what it gives for another index where that one cannot be read.

    Args:
        images: number of images that stand in, from 0.
        random: draws the other index.

    Returns:
        What was read, and what is wrong with the images that were not.

    Raises:
        DataError: TRIES images in a row could not be read.
    """
    bad: list[str] = []
    for _ in range(TRIES):
        try:
            return read(index), bad
        except DataError as error:
            bad.append(str(error))
            index = int(random.integers(images))
    raise DataError(f"{TRIES} images in a row could not be read; the last: {bad[-1]}")


class BrokenImages:
    """Counts the images of a process that were replaced.

    Args:
        allowed: images that may be broken.
        key: the config's key that says so.

    Attributes:
        messages: what is wrong with each; once, however often the image came.
    """

    def __init__(self, allowed: int = 0, key: str = "DATA.MAX_BAD_IMAGES") -> None:
        self.allowed = allowed
        self.key = key
        self.messages: list[str] = []

    def add(self, messages: Iterable[str]) -> None:
        """Count images by what is wrong with them; a warning names each new one.

        Raises:
            RunError: more than `allowed` are broken.
        """
        # An image comes again in each epoch, and in time in each process; so every process counts for itself.
        for message in messages:
            if message in self.messages:
                continue
            self.messages.append(message)
            number = len(self.messages)
            log.warning("broken image replaced by another (%d so far): %s", number, message)
            if number > self.allowed:
                raise RunError(
                    f"{count(number, 'training image')} broken, {self.key} allows {self.allowed}; "
                    f"the last: {message}; mend or remove them (log.txt names all)"
                )


def check_left_out(name: str, images: int, unreadable: Mapping[int, str]) -> None:
    """Check what a test leaves out.

    Args:
        name: of the set.
        images: in the set.
        unreadable: {image: what is wrong with it}.

    Raises:
        DataError: more than MOST_LEFT_OUT and LARGEST_SHARE_LEFT_OUT of the images, or all of them.
    """
    number = len(unreadable)
    if (number > MOST_LEFT_OUT and number > LARGEST_SHARE_LEFT_OUT * images) or (number and number == images):
        first = unreadable[min(unreadable)]
        raise DataError(f"{name}: {number} of {count(images, 'image')} cannot be read; the first: {first}")
