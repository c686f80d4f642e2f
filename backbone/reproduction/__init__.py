"""The paper's tables as lists of rows: run them, gather their records, report paper against measured."""

from .request import Request, reproduce
from .rows import Figure, Kind, Panel, Row, Step, Table

__all__ = ["Figure", "Kind", "Panel", "Request", "Row", "Step", "Table", "reproduce"]
