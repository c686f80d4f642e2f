"""The table of docs/weights.md that says which test proves which way in and out: read from the tests' own marks.

A test carries `@pytest.mark.proves("timm", "backbones", "in, out", "logits equal timm's own")`. Run this file to write
the table anew.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

from backbone.common.files import write_text
from backbone.common.text import table

TESTS = Path(__file__).parent
PAGE = TESTS.parent / "docs" / "weights.md"
BEFORE, AFTER = "<!-- proofs: written by tests/proof_table.py -->", "<!-- end of proofs -->"


def rows() -> list[tuple[str, str, str, str, str]]:
    """Return layout, what, direction, truth and test of every mark, in alphabetical order."""
    found = []
    for path in sorted(TESTS.rglob("test_*.py")):
        text = path.read_text(encoding="utf-8")
        if "mark.proves" not in text:
            continue
        for node in ast.walk(ast.parse(text)):
            for mark in getattr(node, "decorator_list", ()):
                if isinstance(mark, ast.Call) and ast.unparse(mark.func) == "pytest.mark.proves":
                    words = [ast.literal_eval(word) for word in mark.args]
                    found.append((*words, f"{path.name}::{node.name}"))
    return sorted(found)


def text() -> str:
    return f"{BEFORE}\n\n{table(rows(), ['layout', 'of', 'direction', 'proof', 'test'], limit=None)}\n\n{AFTER}"


def main() -> None:
    page = PAGE.read_text(encoding="utf-8")
    write_text(PAGE, re.sub(f"{BEFORE}.*{AFTER}", lambda _: text(), page, flags=re.DOTALL))


if __name__ == "__main__":
    main()
