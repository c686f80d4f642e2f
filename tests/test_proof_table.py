"""The table of proofs in docs/weights.md is that of the tests, and no layout is without one."""

from __future__ import annotations

from proof_table import PAGE, rows, text

from backbone.weights import LAYOUTS, WRITABLE


def test_the_page_has_the_table_of_today():
    assert text() in PAGE.read_text(encoding="utf-8"), "run `python tests/proof_table.py`"


def test_each_layout_is_proven_in_and_where_it_is_written_out():
    proven = {(layout, way) for layout, _, ways, *_ in rows() for way in ways.split(", ")}
    for layout in LAYOUTS:
        assert (layout, "in") in proven
    for layout in WRITABLE:
        assert (layout, "out") in proven
