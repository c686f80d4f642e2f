"""A small config, and how its tests write files and see them refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from yacs.config import CfgNode

from backbone.common.errors import ConfigError


def defaults() -> CfgNode:
    return CfgNode(
        {
            "NAME": "resnet50",
            "SEED": 0,
            "SOLVER": {
                "BASE_LR": 0.02,
                "MAX_ITER": 90000,
                "STEPS": (60000, 80000),
                "NESTEROV": False,
                "BIAS_LR": None,
                "AMP": {"ENABLED": False, "DTYPE": "bfloat16"},
            },
            "DATA": {"TRAIN": (), "FEATURES": ["res4"], "SIZES": [[32, 64]], "RATIOS": [0.5, 1.0]},
        }
    )


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def refused(call, *arguments) -> str:
    with pytest.raises(ConfigError) as caught:
        call(*arguments)
    message = str(caught.value)
    assert "\n" not in message
    return message
