"""Keys of INPUT about augmentation that are wrong, or do not fit together."""

from __future__ import annotations

from collections.abc import Callable

from detectron2.config import CfgNode

from backbone import ConfigError
from backbone.engine.config import get
from backbone.engine.defaults import SIDE, check_choices, check_color_jitter

CROPS = ("relative", "relative_range", "absolute", "absolute_range")
LARGEST_FACTOR = 10
SHARES = ("INPUT.MOSAIC.PROB", "INPUT.MOSAIC.LEAST_SHOWN", "INPUT.COPY_PASTE.PROB", "INPUT.COPY_PASTE.SHARE")


def check_augmentation(config: CfgNode, source: str) -> None:
    """Raise ConfigError for the first value that no augmentation can follow."""
    inputs = config.INPUT
    check_color_jitter(config, source)
    check_choices(config, {"INPUT.CROP.TYPE": CROPS}, source)
    for key in SHARES:
        if not 0 <= get(config, key) <= 1:
            raise ConfigError(f"{source}: {key} must be from 0 to 1, not {get(config, key)}")
    for key in ("INPUT.LARGE_SCALE_JITTER.SCALE", "INPUT.MOSAIC.SCALE"):
        _check_pair(config, key, source, _are_factors, f"two factors in order, up to {LARGEST_FACTOR}")
    _check_pair(config, "INPUT.LARGE_SCALE_JITTER.SIZE", source, _are_sides, "height and width in pixels")
    _check_crop(config, source)
    if inputs.COPY_PASTE.ENABLED and not config.MODEL.MASK_ON:
        raise ConfigError(f"{source}: INPUT.COPY_PASTE cuts objects out by their masks; it needs MODEL.MASK_ON True")
    if inputs.MOSAIC.ENABLED and inputs.LARGE_SCALE_JITTER.ENABLED:
        raise ConfigError(
            f"{source}: INPUT.MOSAIC and INPUT.LARGE_SCALE_JITTER both draw the scale of images; take one"
        )


def _check_crop(config: CfgNode, source: str) -> None:
    kind = config.INPUT.CROP.TYPE
    if kind.startswith("relative"):
        fits, wanted = lambda height, width: 0 < height <= 1 and 0 < width <= 1, "shares of height and width up to 1"
    elif kind == "absolute":
        fits, wanted = _are_sides, "height and width in pixels"
    else:
        fits, wanted = lambda least, most: _are_sides(least, most) and least <= most, "the least and the greatest side"
    if config.INPUT.CROP.ENABLED:
        _check_pair(config, "INPUT.CROP.SIZE", source, fits, f"{wanted} (INPUT.CROP.TYPE {kind})")


def _are_factors(low: float, high: float) -> bool:
    return 0 < low <= high <= LARGEST_FACTOR


def _are_sides(one: float, other: float) -> bool:
    return all(type(side) is int and 0 < side <= SIDE for side in (one, other))


def _check_pair(config: CfgNode, key: str, source: str, fits: Callable[..., bool], wanted: str) -> None:
    pair = get(config, key)
    numbers = len(pair) == 2 and all(isinstance(value, (int, float)) for value in pair)
    if not (numbers and fits(*pair)):
        raise ConfigError(f"{source}: {key} must be {wanted}, not {pair}")
