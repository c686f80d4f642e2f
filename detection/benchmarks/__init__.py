"""Speed and memory against the peers, in one process, alternating."""

from backbone.benchmarks.report import Section, write_section
from backbone.benchmarks.timing import Timing, alternate

from .suite import run_all

__all__ = ["Section", "Timing", "alternate", "run_all", "write_section"]
