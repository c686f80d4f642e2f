"""Tables 7 to 11 of the paper as rows of `backbone.reproduction`."""

from .tables import detection_table

__all__ = ["detection_table"]
