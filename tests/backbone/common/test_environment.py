"""What a record says of the machine that it was made on."""

from __future__ import annotations

import sys

import pytest
import yaml
from yacs.config import CfgNode

from backbone.classification.config import default_config
from backbone.common.environment import provenance, relative_path
from backbone.engine.solver import make_settings


def test_paths_below_the_working_directory_are_relative(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    elsewhere = str(tmp_path.parent / "data")
    assert relative_path(str(tmp_path / "a" / "b.pth")) == "a/b.pth"
    for text in (elsewhere, "a/b.pth", "SOLVER.MAX_ITER", "", str(tmp_path) + "2/a", str(tmp_path)):
        assert relative_path(text) == text
    monkeypatch.setattr(sys, "argv", ["tools/pretrain.py", "--weights", str(tmp_path / "w.pth"), elsewhere])
    assert provenance("cpu")["command"] == f"pretrain.py --weights w.pth {elsewhere}"


@pytest.mark.parametrize("frozen", [True, False])
def test_a_checkpoint_holds_relative_paths(tmp_path, monkeypatch, frozen):
    monkeypatch.chdir(tmp_path)
    config: CfgNode = default_config()
    config.OUTPUT_DIR, config.MODEL.ENSEMBLE = str(tmp_path / "run"), (str(tmp_path / "b.pth"),)
    if frozen:
        config.freeze()
    held = yaml.safe_load(make_settings(config, best="a/b").config)
    assert held["OUTPUT_DIR"] == "run" and held["MODEL"]["ENSEMBLE"] == ["b.pth"]
    assert str(tmp_path / "run") == config.OUTPUT_DIR
