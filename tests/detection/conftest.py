"""What the tests of all rooms of `detection` need before their modules are imported."""

from __future__ import annotations

import sys
from pathlib import Path

# Closes detectron2's gaps on today's libraries, for test modules that import detectron2 themselves.
import detection  # noqa: F401

sys.path.append(str(Path(__file__).resolve().parents[1] / "backbone"))
for room in ("engine", "modeling"):
    sys.path.append(str(Path(__file__).resolve().parent / room))
