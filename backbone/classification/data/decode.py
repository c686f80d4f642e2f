"""From the bytes of an image file to a training crop or an evaluation image. Runs in the loader's processes.

The crop is drawn from the header's size before anything is decoded; then only what it needs is decoded and resized.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

from ...common.errors import ConfigError, DataError
from ...common.images.headers import read_header, with_end
from ...common.images.resize import resize_image
from ...common.text import nearest
from .jpeg import Box, Frame, decode, decode_region, read_frame

KINDS = ("shorter_side", "area")
INTERPOLATIONS = ("antialiased", "linear")
RATIOS = (3 / 4, 4 / 3)
TRIES = 10
# EXIF orientation -> (exchange rows and columns, then mirror columns, then mirror rows) that turns the image upright.
TURNS = {
    1: (False, False, False),
    2: (False, True, False),
    3: (False, True, True),
    4: (False, False, True),
    5: (True, False, False),
    6: (True, True, False),
    7: (True, True, True),
    8: (True, False, True),
}


@dataclass(frozen=True)
class CropSpec:
    """How a training crop is drawn.

    Attributes:
        kind: "shorter_side": the image is resized so that its shorter side has a length drawn from `shorter_side`, and
            a random square is cut (He et al., 2015, Sec. 3.4); "area": a part of a random share of the area and a
            random aspect ratio is resized to a square (Szegedy et al., 2014; torchvision's RandomResizedCrop).
        size: side of the crop, in pixels.
        shorter_side: lowest and highest length, both included.
        area: lowest and highest share of the image's area.
        flip: mirror every second crop, by chance.
        interpolation: where the image shrinks, "antialiased" bilinear as Pillow's, or "linear", which looks at the four
            nearest pixels alone: some 12 % less time in all, 1.4 levels apart in the mean.
    """

    kind: str = "shorter_side"
    size: int = 224
    shorter_side: tuple[int, int] = (256, 480)
    area: tuple[float, float] = (0.08, 1.0)
    flip: bool = True
    interpolation: str = "antialiased"

    def __post_init__(self) -> None:
        for name, known in (("kind", KINDS), ("interpolation", INTERPOLATIONS)):
            value = getattr(self, name)
            if value not in known:
                raise ConfigError(f"the {name} of a crop cannot be {value!r}{nearest(str(value), known)}")
        if self.kind == "shorter_side" and not 0 < self.size <= self.shorter_side[0] <= self.shorter_side[1]:
            raise ConfigError(
                f"a crop of {self.size} pixels does not fit shorter sides of {self.shorter_side}; raise the lower one"
            )


def training_crop(content: np.ndarray, random: np.random.Generator, spec: CropSpec) -> np.ndarray:
    """Draw a crop of an image.

    Args:
        content: the bytes of an image file, (length,) uint8, of which a colour image is made, or an upright image
            (H, W, C), uint8 or float32.

    Returns:
        (size, size, 3) uint8 RGB, or as the image given.

    Raises:
        DataError: empty, cut off or no image. The message does not name the file; the caller knows it.
    """
    if content.ndim == 3:
        crop = _crop_decoded(content, random, spec)
    else:
        data = content.tobytes()
        frame = read_frame(data)
        if frame is None:
            crop = _crop_decoded(decode_upright(content), random, spec)
        else:
            orientation = read_header(data).orientation if frame.exif else 1
            crop = _crop_jpeg(content, frame, orientation, random, spec)
    if spec.flip and random.random() < 0.5:
        crop = crop[:, ::-1]
    return np.ascontiguousarray(crop)


def _crop_decoded(image: np.ndarray, random: np.random.Generator, spec: CropSpec) -> np.ndarray:
    x, y, width, height = draw_box(image.shape[1], image.shape[0], random, spec)
    return _to_crop(image[y : y + height, x : x + width], spec)


def _to_crop(region: np.ndarray, spec: CropSpec) -> np.ndarray:
    return resize(region, spec.size, spec.size, antialias=spec.interpolation == "antialiased")


def _crop_jpeg(
    content: np.ndarray, frame: Frame, orientation: int, random: np.random.Generator, spec: CropSpec
) -> np.ndarray:
    width, height = frame.width, frame.height
    if TURNS[orientation][0]:
        width, height = height, width
    box = stored_box(draw_box(width, height, random, spec), width, height, orientation)
    reduction = choose_reduction(box, spec.size)
    region = decode_region(content, frame, align(box, reduction), reduction=reduction)
    return _upright(_to_crop(region, spec), orientation)


def draw_box(width: int, height: int, random: np.random.Generator, spec: CropSpec) -> Box:
    """Draw the part of an image that becomes the crop.

    Corner and size are whole pixels of the image, so that nothing outside the part is needed; of "shorter_side" this
    puts the crop at most half a pixel beside a position of the resized image.
    """
    if spec.kind == "area":
        return _draw_area(width, height, random, spec)
    low, high = spec.shorter_side
    length, shorter = int(random.integers(low, high + 1)), min(width, height)
    # The longer side is rounded down, as torchvision does.
    sizes = [min(side, round(spec.size * side / (length * side // shorter))) for side in (width, height)]
    return _place(width, height, max(1, sizes[0]), max(1, sizes[1]), random)


def _draw_area(width: int, height: int, random: np.random.Generator, spec: CropSpec) -> Box:
    low, high = (math.log(ratio) for ratio in RATIOS)
    for _ in range(TRIES):
        area = width * height * random.uniform(*spec.area)
        ratio = math.exp(random.uniform(low, high))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            return _place(width, height, w, h, random)
    w = min(width, round(height * RATIOS[1]))
    h = min(height, round(width / RATIOS[0]))
    return Box((width - w) // 2, (height - h) // 2, w, h)


def _place(width: int, height: int, w: int, h: int, random: np.random.Generator) -> Box:
    return Box(int(random.integers(width - w + 1)), int(random.integers(height - h + 1)), w, h)


def stored_box(box: Box, width: int, height: int, orientation: int) -> Box:
    """Return where a box of the upright image (of `width` and `height`) lies in the image as stored."""
    exchange, mirror_columns, mirror_rows = TURNS[orientation]
    x = width - box.x - box.width if mirror_columns else box.x
    y = height - box.y - box.height if mirror_rows else box.y
    return Box(y, x, box.height, box.width) if exchange else Box(x, y, box.width, box.height)


def _upright(image: np.ndarray, orientation: int) -> np.ndarray:
    exchange, mirror_columns, mirror_rows = TURNS[orientation]
    image = image.swapaxes(0, 1) if exchange else image
    image = image[:, ::-1] if mirror_columns else image
    return np.ascontiguousarray(image[::-1] if mirror_rows else image)


def choose_reduction(box: Box, size: int) -> int:
    """Return the strongest reduction of the decoder that leaves the crop at least its final size."""
    return next((factor for factor in (8, 4, 2) if min(box.width, box.height) // factor >= size), 1)


def align(box: Box, factor: int) -> Box:
    """Return the box with corner and size rounded down to multiples of `factor`."""
    return Box(*(value - value % factor for value in box))


def resize(image: np.ndarray, width: int, height: int, *, antialias: bool = True) -> np.ndarray:
    """Resize (H, W, C), bilinear; smoothed where it shrinks, as Pillow and torchvision do, if `antialias`."""
    if image.shape[1::-1] == (width, height):
        return image
    if antialias and (width < image.shape[1] or height < image.shape[0]):
        return resize_image(image, width, height)
    # OpenCV leaves out the axis of a single channel.
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR).reshape(height, width, image.shape[2])


def decode_upright(content: np.ndarray) -> np.ndarray:
    """Decode a file of any common kind: (H, W, 3) uint8 RGB, EXIF's orientation applied."""
    if not content.size:
        raise DataError("the image file is empty (0 bytes); replace or remove it")
    header = read_header(content.tobytes())
    if header.fault is not None:
        raise DataError(f"the image file is broken or cut off ({header.detail}); replace or remove it")
    if header.unended:
        content = np.frombuffer(with_end(content.tobytes()), dtype=np.uint8)
    return cv2.cvtColor(decode(content, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
