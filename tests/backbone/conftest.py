"""Lets the tests of every folder here use the helpers of the others."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent / "weights"))
