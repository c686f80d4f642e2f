"""The keys of every task: what a fresh config gets, what stands of a task's own, and which values are refused."""

from __future__ import annotations

import pytest
from yacs.config import CfgNode

from backbone.common.errors import ConfigError
from backbone.engine.config import get, put
from backbone.engine.defaults import (
    SHARED_AT_MOST,
    SHARED_CHOICES,
    SHARED_NOT_NEGATIVE,
    SHARED_POSITIVE,
    add_shared_defaults,
    check_choices,
    check_numbers,
    check_pixels,
    check_steps,
)


def a_task() -> CfgNode:
    """Return the config of a task: the shared keys, and those of which each task has its own default."""
    config = CfgNode()
    add_shared_defaults(config)
    config.SOLVER.update({"IMS_PER_BATCH": 2, "REFERENCE_BATCH_SIZE": 2, "BASE_LR": 0.1, "MAX_ITER": 10})
    config.SOLVER.update({"STEPS": (), "WARMUP_ITERS": 0, "WARMUP_FACTOR": 0.1})
    config.TEST.EVAL_PERIOD = 0
    return config


def check(config: CfgNode) -> None:
    check_choices(config, SHARED_CHOICES, "a.yaml")
    check_steps(config, "a.yaml")
    check_pixels(config, "a.yaml")
    numbers = {"positive": SHARED_POSITIVE, "not_negative": SHARED_NOT_NEGATIVE, "at_most": SHARED_AT_MOST}
    check_numbers(config, "a.yaml", **numbers)


def test_a_fresh_config_gets_keys_of_its_own_that_pass() -> None:
    one, other = a_task(), a_task()
    check(one)
    one.SOLVER.AMP.DTYPE = "float16"
    one.MODEL.PIXEL_MEAN[0] = 0.0
    assert (other.SOLVER.AMP.DTYPE, other.MODEL.PIXEL_MEAN[0]) == ("bfloat16", 123.675)


def test_what_a_section_holds_beside_them_stays() -> None:
    config = CfgNode({"MODEL": {"DEVICE": "tpu", "HEAD": "fcn"}, "SOLVER": {"AMP": {"ENABLED": True, "SCALE": 8}}})
    add_shared_defaults(config)
    assert config.MODEL.HEAD == "fcn" and config.MODEL.DEVICE in ("cpu", "cuda")
    assert dict(config.SOLVER.AMP) == {"ENABLED": False, "SCALE": 8, "DTYPE": "bfloat16"}


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("SOLVER.AMP.DTYPE", "float8", "a.yaml: SOLVER.AMP.DTYPE is 'float8'; one of bfloat16, float16"),
        ("INPUT.FORMAT", "", "a.yaml: INPUT.FORMAT is ''; one of RGB, BGR, L, bands"),
        ("SOLVER.BASE_LR", 0.0, "a.yaml: SOLVER.BASE_LR must be above 0, not 0.0"),
        ("SOLVER.BASE_LR", float("nan"), "a.yaml: SOLVER.BASE_LR must be above 0, not nan"),
        ("SEED", -1, "a.yaml: SEED must be 0 or more, not -1"),
        ("SEED", float("nan"), "a.yaml: SEED must be 0 or more, not nan"),
        ("SOLVER.BASE_LR", float("inf"), "a.yaml: SOLVER.BASE_LR must be above 0, not inf"),
        ("SOLVER.BASE_LR", 1e308, "a.yaml: SOLVER.BASE_LR must be at most 1,000, not 1e+308"),
        ("SOLVER.BASE_LR", 1e-308, "a.yaml: SOLVER.BASE_LR 1e-308 is too small to change any weight"),
        ("SOLVER.STEPS", ("a", "b"), "a.yaml: SOLVER.STEPS must hold whole numbers, not ('a', 'b')"),
        ("SOLVER.STEPS", (1.5,), "a.yaml: SOLVER.STEPS must hold whole numbers, not (1.5,)"),
        (
            *("MODEL.PIXEL_STD", [1.0, 0.0, 1.0]),
            "a.yaml: MODEL.PIXEL_STD divides the pixels, each must be above 0, not [1.0, 0.0, 1.0]",
        ),
        (
            *("MODEL.PIXEL_MEAN", [float("inf"), 0.0, 0.0]),
            "a.yaml: MODEL.PIXEL_MEAN must hold finite numbers, not [inf, 0.0, 0.0]",
        ),
        ("DATALOADER.NUM_WORKERS", 10**18, f"a.yaml: DATALOADER.NUM_WORKERS must be at most 1,024, not {10**18}"),
        ("SOLVER.IMS_PER_BATCH", 10**9, f"a.yaml: SOLVER.IMS_PER_BATCH must be at most 1,048,576, not {10**9}"),
    ],
)
def test_a_value_that_cannot_be_is_named(key: str, value: object, message: str) -> None:
    config = a_task()
    put(config, key, value)
    with pytest.raises(ConfigError) as caught:
        check(config)
    assert str(caught.value) == message


def test_of_many_choices_the_nearest_is_named_and_of_few_all() -> None:
    config = CfgNode({"NAME": "b2", "KIND": "C"})
    with pytest.raises(ConfigError, match="NAME is 'b2'; did you mean 'b1'"):
        check_choices(config, {"NAME": ("b1", "cc", "dd", "ee", "ff")}, "x")
    with pytest.raises(ConfigError, match="KIND is 'C'; one of '', A$"):
        check_choices(config, {"KIND": ("", "A")}, "x")


def test_a_share_is_below_one() -> None:
    check_numbers(CfgNode({"A": 0.0}), "x", shares=("A",))
    with pytest.raises(ConfigError, match="A must be from 0 to below 1, not 1.0"):
        check_numbers(CfgNode({"A": 1.0}), "x", shares=("A",))


def test_detection_and_pretraining_share_them() -> None:
    detectron2 = pytest.importorskip("detectron2.config")
    from backbone.classification.config import default_config as classification
    from detection.config import default_config as detection

    shared = CfgNode()
    add_shared_defaults(shared)
    assert isinstance(detection().SOLVER.AMP, detectron2.CfgNode)
    for key in ("SEED", "INPUT.FORMAT", "MODEL.PIXEL_STD", "SOLVER.AMP.DTYPE", "SOLVER.LOG_PERIOD"):
        assert get(shared, key) == get(classification(), key) == get(detection(), key), key
