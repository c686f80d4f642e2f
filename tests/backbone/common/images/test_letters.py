"""Words in any script, drawn for pictures."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from backbone.common.images import lettering

letters = sys.modules["backbone.common.images.letters"]
NAMES = (
    "person 0.93",
    "größe",
    "Человек",
    "άνθρωπος",
    "איש",
    "شخص",
    "人",
    "猫",
    "고양이",
    "व्यक्ति",
    "แมว",
    "\U0001f408",
)


def test_names_of_all_scripts_are_drawn_and_differ():
    drawn = [lettering(name, 16, otherwise=f"#{place}") for place, name in enumerate(NAMES)]
    unknown = lettering("?" * 3, 16)
    assert len({part.shape[0] for part in drawn}) == 1
    for place, part in enumerate(drawn):
        assert part.dtype == np.uint8
        assert part.max() > 200
        assert not np.array_equal(part, unknown)
        assert all(not np.array_equal(part, other) for other in drawn[:place])


def test_letters_are_those_of_the_font():
    path = next(iter(letters._fonts()))
    font = ImageFont.truetype(path, 20)
    canvas = Image.new("L", (300, sum(font.getmetrics())))
    ImageDraw.Draw(canvas).text((0, 0), "Człowiek", 255, font)
    found = lettering("Człowiek", 20)
    assert np.array_equal(found, np.asarray(canvas)[:, : found.shape[1]])
    assert not np.asarray(canvas)[:, found.shape[1] :].any()


@pytest.mark.parametrize("words", ["व्यक्ति", "แมว"])
def test_what_no_font_has_is_replaced(words, monkeypatch):
    monkeypatch.setattr(letters, "_machine_fonts", tuple)
    assert np.array_equal(lettering(words, 17, otherwise="#7"), lettering("#7", 17))


def test_without_matplotlib_and_opencv_5(monkeypatch):
    """The fonts of Pillow are left: no script but Latin and its like, and no error."""
    for cached in (letters._drawn, letters._machine_fonts):
        cached.cache_clear()
    monkeypatch.setattr(letters.importlib.util, "find_spec", lambda _: None)
    monkeypatch.setattr(letters, "_machine_fonts", tuple)
    monkeypatch.setattr(letters, "_with_opencv", lambda *_: None)
    assert lettering("person", 16).max() > 200
    assert np.array_equal(lettering("猫", 16, otherwise="#1"), lettering("#1", 16))
    letters._drawn.cache_clear()


def test_little_and_strange_words():
    assert lettering("", 16).shape[0] == lettering("a\nb\tc", 16).shape[0]
    assert np.array_equal(lettering("a\nb", 16), lettering("a b", 16))
    assert np.array_equal(lettering("a\x1b\u202eb", 16), lettering("a\ufffd\ufffdb", 16))
