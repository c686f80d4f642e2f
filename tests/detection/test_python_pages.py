"""README.md and the pages on detection from Python: the Python blocks of a page run one after the other."""

from __future__ import annotations

import re
from pathlib import Path

import cv2
import pytest

import detection

detection.register()

from small_detectors import photo, save_detector  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)
# How many blocks a page has; of README.md, those on detectors.
PAGES = {"README.md": 1, "docs/python.md": 2}


def blocks_of(page: str) -> list[str]:
    """Return the blocks, each behind as many empty lines as stand before it: a traceback shows the page's lines."""
    text = (ROOT / page).read_text(encoding="utf-8")
    found = [("\n" * text.count("\n", 0, match.start(1)) + match[1]) for match in BLOCK.finditer(text)]
    return [block for block in found if page != "README.md" or "import detection" in block]


@pytest.mark.parametrize("page", PAGES)
def test_blocks_run(page, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "output" / "quickstart").mkdir(parents=True)
    file = save_detector(tmp_path / "model_best.pth", ["cat", "dog", "owl"], [17, 18, 90])
    (tmp_path / "output" / "quickstart" / "model_best.pth").symlink_to(file)
    cv2.imwrite("street.jpg", photo(90, 120, 0))
    names: dict[str, object] = {"__name__": "page"}
    blocks = blocks_of(page)
    assert len(blocks) == PAGES[page]
    for block in blocks:
        exec(compile(block, str(ROOT / page), "exec"), names)
    assert (tmp_path / "found.jpg").is_file()
