"""Lets these tests use the helpers of the tests of trainings and models."""

from __future__ import annotations

import sys
from pathlib import Path

for room in ("engine", "modeling"):
    sys.path.append(str(Path(__file__).resolve().parents[1] / room))
