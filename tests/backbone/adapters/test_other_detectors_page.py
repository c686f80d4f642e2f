"""docs/other_detectors.md: every Python block runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

PAGE = Path(__file__).resolve().parents[3] / "docs" / "other_detectors.md"
TEXT = PAGE.read_text(encoding="utf-8")
# Behind as many empty lines as stand before it in the page, so that a traceback shows the page's own lines.
BLOCKS = [
    "\n" * TEXT.count("\n", 0, match.start(1)) + match[1]
    for match in re.finditer(r"^```python\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE)
]
PEERS = (
    "FasterRCNN",
    "RetinaNet",
    "FCOS",
    "DetrForObjectDetection",
    "RTDetrForObjectDetection",
    "timm_features",
    "mmdet",
)


def test_the_page_shows_every_peer():
    assert len(BLOCKS) == 8
    for peer in (*PEERS, "detectron2", "mmdet"):
        assert any(peer in block for block in BLOCKS), peer


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: f"line{len(block) - len(block.lstrip())}")
def test_block_runs(block, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    names: dict[str, object] = {"__name__": "page"}
    exec(compile(block, str(PAGE), "exec"), names)
    network = names.get("detector") or names.get("model") or names.get("features")
    if network is not None:
        grads = [parameter.grad for parameter in network.parameters() if parameter.requires_grad]
        assert any(grad is not None and grad.abs().sum() > 0 for grad in grads)
