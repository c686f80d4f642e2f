"""The code in docs/export.md runs as it stands there, on smaller images and networks."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

import backbone
from backbone import exporting

DOCS = Path(__file__).resolve().parents[3] / "docs" / "export.md"
SMALLER = {"resnet50": "resnet18", "(800, 1216)": "(64, 96)", "600, 800": "60, 80", '"height": 800': '"height": 60'}
SMALLER |= {'"width": 1216': '"width": 80'}


def test_the_code_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if not hasattr(backbone, "export"):
        monkeypatch.setattr(backbone, "export", exporting.export, raising=False)
    torch.manual_seed(0)
    backbone.save_weights(backbone.create("resnet18"), "resnet18.pth")
    # Those of detectors run in tests/detection/export.
    text = DOCS.read_text(encoding="utf-8").split("## Whole detectors")[0]
    blocks = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    assert len(blocks) >= 7
    space: dict = {}
    for block in blocks:
        for large, small in SMALLER.items():
            block = block.replace(large, small)
        exec(compile(block, str(DOCS), "exec"), space)
    assert list(space["features"]) == ["res2", "res3", "res4", "res5"]
    assert space["res5"].shape == (1, 512, 2, 3)
    assert space["metadata"]["stages"]["res5"] == {"channels": 512, "stride": 32}


def test_every_suffix_and_flag_is_told():
    text = DOCS.read_text(encoding="utf-8")
    for suffix in (*exporting.FORMATS, *exporting.formats.WEIGHTS_SUFFIXES):
        assert f"{suffix}`" in text, suffix


@pytest.mark.parametrize("words", [("--static",), ("--bake-preprocessing",), ("--layout",), ("--opset", "--exporter")])
def test_flags(words):
    text = DOCS.read_text(encoding="utf-8")
    tool = (DOCS.parents[1] / "tools" / "export_backbone.py").read_text(encoding="utf-8")
    assert all(word in text and f'"{word}"' in tool for word in words)
