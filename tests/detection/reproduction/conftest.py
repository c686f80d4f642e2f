"""Helpers of these tests, for those of the error analysis too."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path += [str(Path(__file__).parent), str(Path(__file__).parents[1] / "analysis")]
