"""Speed and memory against the peers, in one process, alternating."""

from .report import Section, write_section
from .suite import run_all
from .timing import Timing, alternate

__all__ = ["Section", "Timing", "alternate", "run_all", "write_section"]
