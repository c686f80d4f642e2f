"""For test modules that import detectron2 themselves."""

from __future__ import annotations

# Closes detectron2's gaps on today's libraries.
import detection  # noqa: F401
