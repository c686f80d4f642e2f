"""Keys of augmentation: one line where they are wrong or do not fit together, and what the plan says of them."""

from __future__ import annotations

import pytest

import detection
from backbone import ConfigError
from detection.config.keys import idle_keys
from detection.engine.plan import _augmentation

MINI = "mini_faster_rcnn_r18.yaml"


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        (["INPUT.CROP.TYPE", "relativ"], r"INPUT\.CROP\.TYPE is 'relativ'; one of relative, relative_range, absolute"),
        (["INPUT.CROP.ENABLED", True, "INPUT.CROP.SIZE", (300, 300)], r"INPUT\.CROP\.SIZE must be shares of height"),
        (["INPUT.CROP.ENABLED", True, "INPUT.CROP.SIZE", (0.5,)], r"must be shares of height and width up to 1"),
        (
            ["INPUT.CROP.ENABLED", True, "INPUT.CROP.TYPE", "absolute"],
            r"INPUT\.CROP\.SIZE must be height and width in pixels \(INPUT\.CROP\.TYPE absolute\), not .0\.9, 0\.9.",
        ),
        (
            ["INPUT.CROP.ENABLED", True, "INPUT.CROP.TYPE", "absolute_range", "INPUT.CROP.SIZE", (400, 300)],
            "must be the least and the greatest side",
        ),
        (["INPUT.LARGE_SCALE_JITTER.SCALE", (2.0, 0.5)], "must be two factors in order, up to 10, not"),
        (["INPUT.LARGE_SCALE_JITTER.SIZE", (0, 512)], "must be height and width in pixels, not"),
        (["INPUT.MOSAIC.PROB", 1.5], r"INPUT\.MOSAIC\.PROB must be from 0 to 1, not 1\.5"),
        (["INPUT.MOSAIC.SCALE", (float("nan"), 1.0)], "must be two factors in order"),
        (["INPUT.COLOR_JITTER.HUE", 0.7], r"INPUT\.COLOR_JITTER\.HUE must be at most 0\.5"),
        (["INPUT.COLOR_JITTER.CONTRAST", -0.1], r"INPUT\.COLOR_JITTER\.CONTRAST must be 0 or more"),
        (["INPUT.COPY_PASTE.ENABLED", True], r"INPUT\.COPY_PASTE .* needs MODEL\.MASK_ON True"),
        (
            ["INPUT.MOSAIC.ENABLED", True, "INPUT.LARGE_SCALE_JITTER.ENABLED", True],
            "both draw the scale of images; take one",
        ),
        (["INPUT.MOSIAC.ENABLED", True], r"did you mean 'INPUT\.MOSAIC'"),
    ],
)
def test_mistakes_are_one_line(keys, said):
    with pytest.raises(ConfigError, match=said) as caught:
        detection.get_config(MINI, keys)
    assert "\n" not in str(caught.value)


def test_keys_without_effect_are_named():
    keys = ["INPUT.MOSAIC.PROB", 0.3, "INPUT.MIN_SIZE_TRAIN", (64,), "INPUT.LARGE_SCALE_JITTER.ENABLED", True]
    assert idle_keys(detection.get_config(MINI, keys), keys[::2]) == [
        "INPUT.MIN_SIZE_TRAIN has no effect with INPUT.LARGE_SCALE_JITTER.ENABLED True",
        "INPUT.MOSAIC.PROB has no effect with INPUT.MOSAIC.ENABLED False",
    ]


def test_the_plan_says_what_is_done_to_images():
    keys = ["INPUT.MOSAIC.ENABLED", True, "INPUT.CROP.ENABLED", True, "INPUT.RANDOM_FLIP", "horizontal"]
    config = detection.get_config(MINI, keys)
    assert _augmentation(config) == [("", "crops (relative_range 0.9, 0.9); mosaics of four images (50%)")]
    assert _augmentation(detection.get_config(MINI)) == []
