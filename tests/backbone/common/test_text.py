"""Texts for people: what a terminal or a page would obey in them is shown instead."""

from __future__ import annotations

import logging
import sys

import pytest

from backbone.common.cli import run
from backbone.common.errors import DataError
from backbone.common.text import printable, table
from backbone.engine.record import LOG, start_logging


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\x1b[31mred\x1b[0m", r"a\x1b[31mred\x1b[0m"),
        ("\x1b]0;title\x07", r"\x1b]0;title\x07"),
        ("over\rwritten\x08\x7f\x9b2J", r"over\rwritten\x08\x7f\x9b2J"),
        ("cat\u202egpj.exe", r"cat\u202egpj.exe"),
        ("half \ud800", r"half \ud800"),
        ("Käse 猫 \U0001f408\u200d\ttab\nline", "Käse 猫 \U0001f408\u200d\ttab\nline"),
    ],
)
def test_printable(text, shown):
    assert printable(text) == shown
    shown.encode()


def test_long_lines_lose_their_middle():
    text = "begin " + "x" * 5000 + " end\nshort"
    long, short = printable(text, 100).split("\n")
    assert long.startswith("begin ") and long.endswith(" end") and " ... " in long and len(long) <= 100
    assert short == "short" and printable(text, 6000) == text


def test_a_cell_is_one_cell():
    text = table([["a|b\n`c` <script> [d](e)\x1b[2J", 1], ["x" * 500, 2]], ("cl|ass", "AP"))
    lines = text.split("\n")
    assert len(lines) == 4 and max(map(len, lines)) < 130
    assert r"a\|b \`c\` \<script> \[d](e)\x1b\[2J" in lines[2] and r"cl\|ass" in lines[0]


def test_an_error_is_one_line_without_commands(capfd):
    def main() -> None:
        raise DataError("class 'a\x1b[31m\nb': " + "x" * 10_000 + "; rename it")

    with pytest.raises(SystemExit) as caught:
        run(main)
    line = capfd.readouterr().err
    assert caught.value.code == 2 and line.count("\n") == 1 and line.endswith("; rename it\n")
    assert r"class 'a\x1b[31m b'" in line and len(line) < 2100


def test_an_error_of_the_disk_is_one_line(capfd, tmp_path):
    with pytest.raises(SystemExit) as caught:
        run(lambda: (tmp_path / ("a" * 300)).stat())
    assert caught.value.code == 2 and capfd.readouterr().err.endswith(": File name too long\n")


def test_what_is_printed_and_logged_has_no_commands(capfd, tmp_path):
    def main() -> None:
        start_logging(tmp_path).info("classes: %s", "a\x1b[31mb")
        sys.stdout.write("printed \x1b[31m")

    try:
        with pytest.raises(SystemExit):
            run(main)
        assert capfd.readouterr().out == "classes: a\\x1b[31mb\nprinted \\x1b[31m"
        assert r"classes: a\x1b[31mb" in (tmp_path / LOG).read_text()
    finally:
        start_logging(None)
        logging.getLogger("backbone").handlers.clear()
