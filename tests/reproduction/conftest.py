"""Helpers of these tests, for those of the command line and of the error analysis too."""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path += [str(HERE), str(HERE.parent / "detection" / "analysis")]
