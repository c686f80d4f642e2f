"""Videos by OpenCV: their frames by number, and a copy with the detections drawn."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np

from backbone import DataError, RunError
from backbone.common.files import write_whole

# Frames a second of a copy whose original does not say.
USUAL_RATE = 25.0
# A container's number of frames may be a guess from its length: fewer by one of so many are no fault.
GUESS = 50


class Video:
    """A video file.

    Attributes:
        frames: how many the file says that it has; some say too few, or 0.
        rate: frames a second; 0 where the file does not say.

    Raises:
        DataError: it is not there, or OpenCV cannot read it.
    """

    def __init__(self, path: Path) -> None:
        if not os.path.isfile(path):
            raise DataError(f"{path} does not exist")
        self.path = path
        # What is wrong is said here, in one line.
        os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
        level = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_ERROR)
        self._reader = cv2.VideoCapture(os.path.abspath(path), cv2.CAP_FFMPEG)
        cv2.utils.logging.setLogLevel(level)
        if not self._reader.isOpened():
            raise DataError(f"{path}: not a video that OpenCV can read; is it cut off, or empty?")
        self.frames = max(0, int(self._reader.get(cv2.CAP_PROP_FRAME_COUNT)))
        rate = self._reader.get(cv2.CAP_PROP_FPS)
        self.rate = rate if 0 < rate < 1000 else 0.0

    def read(self, wanted: Callable[[int], bool]) -> Iterator[tuple[int, np.ndarray]]:
        """Yield number, from 0, and (H, W, 3) BGR uint8 of each wanted frame, once.

        Raises:
            DataError: behind the last frame, where the file says that it has more.
        """
        number = 0
        try:
            while self._reader.grab():
                if wanted(number):
                    found, frame = self._reader.retrieve()
                    if not found:
                        break
                    yield number, frame
                number += 1
        finally:
            self._reader.release()
        if number < self.frames - max(1, self.frames // GUESS):
            raise DataError(
                f"{self.path}: ends after {number:,} of {self.frames:,} frames; the rest is cut off or damaged"
            )


def write_video(source: Path, target: Path, draw: Callable[[int, np.ndarray], np.ndarray]) -> None:
    """Write a copy of a video as MP4, at its rate, each frame as `draw` returns it for its number and pixels.

    Raises:
        DataError: the source cannot be read.
        RunError: the copy cannot be written.
    """
    video = Video(source)

    def write(temporary: Path) -> None:
        # OpenCV knows the form by the suffix alone.
        movie, writer, written = temporary.with_suffix(".mp4"), None, 0
        try:
            with contextlib.suppress(DataError):  # cut off: what there is
                for number, frame in video.read(lambda number: True):
                    drawn = draw(number, frame)
                    if writer is None:
                        code, rate = cv2.VideoWriter_fourcc(*"mp4v"), video.rate or USUAL_RATE
                        writer = cv2.VideoWriter(str(movie), code, rate, drawn.shape[1::-1])
                    writer.write(drawn)
                    written += 1
            if writer is not None:
                writer.release()
            # It says nothing of a full disk.
            if not written or _number_of_frames(movie) != written:
                raise RunError(f"{target}: OpenCV cannot write this video; free space or leave it out (--no-pictures)")
            os.replace(movie, temporary)
        finally:
            movie.unlink(missing_ok=True)

    write_whole(target, write)


def _number_of_frames(path: Path) -> int:
    try:
        return Video(path).frames
    except DataError:
        return 0
