"""What the tests of the benchmarks need before their modules are imported."""

from __future__ import annotations

# Closes detectron2's gaps on today's libraries.
import detection  # noqa: F401
