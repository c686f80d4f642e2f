"""SVG as text: elements and the steps of axes."""

from __future__ import annotations

import math
from xml.etree import ElementTree as XML


def element(parent: XML.Element | None, tag: str, **attributes: object) -> XML.Element:
    """Return a new element, the last child of `parent` where there is one."""
    values = {name: str(value) for name, value in attributes.items()}
    return XML.Element(tag, values) if parent is None else XML.SubElement(parent, tag, values)


def text(parent: XML.Element, x: float, y: float, words: str, kind: str, *, anchor: str = "start") -> XML.Element:
    """Return a new text element; `kind` is its class, `anchor` start, middle or end."""
    added = element(parent, "text", x=f"{x:g}", y=f"{y:g}", **{"class": kind, "text-anchor": anchor})
    added.text = words
    return added


def write(svg: XML.Element) -> str:
    """Return the element as text."""
    return XML.tostring(svg, encoding="unicode")


def tick_step(length: float, most: int = 6) -> float:
    """Return 1, 2 or 5 times a power of ten, so that `length` has at most `most` steps."""
    power = 10.0 ** math.floor(math.log10(length / most))
    return next(step * power for step in (1, 2, 5, 10) if length / (step * power) <= most * (1 + 1e-9))
