"""Values that hold one another: pickles and YAML may refer to a value many times, and from inside itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def check_nesting(content: Any, *, most: int) -> None:
    """Check that whoever walks through dicts, lists and tuples comes to an end.

    Each is looked at once, however often it is referred to, so the check itself takes no longer than reading did.

    Args:
        most: values that a walk may meet, those behind every reference counted anew.

    Raises:
        ValueError: `content` holds itself, or a walk would meet more than `most` values.
    """
    sizes: dict[int, int] = {}  # of what has been left; 0 for what is being looked at
    stack = _inner([content])
    while stack:
        value = stack[-1]
        inner = _inner(value)
        if id(value) not in sizes:
            sizes[id(value)] = 0
            for child in inner:
                if sizes.get(id(child)) == 0:
                    raise ValueError("it holds itself")
                if id(child) not in sizes:
                    stack.append(child)
            continue
        stack.pop()
        if sizes[id(value)] == 0:
            sizes[id(value)] = 1 + len(value) + sum(sizes[id(child)] for child in inner)
            if sizes[id(value)] > most:
                raise ValueError(f"its references make it more than {most:,} values")


def _inner(value: Any) -> list[Any]:
    held = value.values() if isinstance(value, Mapping) else value
    return [child for child in held if isinstance(child, (Mapping, list, tuple))]
