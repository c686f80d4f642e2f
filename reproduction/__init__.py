"""The paper's tables as lists of rows: run their commands, gather their records, report paper against measured.

Only Tables 7 to 12 (`reproduction.tables`) need detectron2.
"""

from .request import Request, reproduce
from .rows import Figure, Kind, Panel, Row, Step, Table

__all__ = ["Figure", "Kind", "Panel", "Request", "Row", "Step", "Table", "reproduce"]
