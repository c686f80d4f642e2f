"""docs/config_keys.md: every key of every task, with the default and the meaning that the code has."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from yacs.config import CfgNode

from backbone.engine.config import get
from detection.config.key_table import TASKS, key_page, key_rows

PAGE = Path(__file__).resolve().parents[3] / "docs" / "config_keys.md"


def leaves(node: CfgNode, prefix: str = "") -> list[str]:
    found = []
    for name, value in node.items():
        found += leaves(value, f"{prefix}{name}.") if isinstance(value, CfgNode) else [f"{prefix}{name}"]
    return found


@pytest.mark.parametrize(("title", "tool", "default_config"), TASKS)
def test_every_key_has_its_default_and_a_meaning(title, tool, default_config):
    config = default_config()
    ours, others = key_rows(default_config)
    rows = {key: default for key, default, _ in ours} | dict(others)
    assert sorted(rows) == sorted(leaves(config))
    assert {key: f"`{get(config, key)!r}`" for key in rows if key != "MODEL.DEVICE"} == {
        key: default for key, default in rows.items() if key != "MODEL.DEVICE"
    }
    assert [key for key, _, meaning in ours if not meaning] == []
    if title == "Detectors":
        assert {"MODEL.BACKBONE.NAME", "TEST.SOFT_NMS.SIGMA", "SEED"} <= {key for key, _, _ in ours}
        assert {"MODEL.RPN.NMS_THRESH", "SOLVER.BASE_LR"} <= {key for key, _ in others}
    else:
        assert others == []


def test_the_page_is_up_to_date(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert PAGE.read_text(encoding="utf-8") == key_page(), "run tools/config_keys.py --write docs/config_keys.md"
