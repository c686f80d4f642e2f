"""Speed against the peers, in one process, alternating."""

from .report import Section, write_section
from .timing import Timing, alternate

__all__ = ["Section", "Timing", "alternate", "write_section"]
