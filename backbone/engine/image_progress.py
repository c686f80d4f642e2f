"""How far a pass over images is, over all processes."""

from __future__ import annotations

from ..common.waiting import Pass
from .distributed import is_main, world_size


class ImageProgress(Pass):
    """A Pass over images that all processes share; the main one shows it."""

    def __init__(self, total: int, name: str, visible: bool) -> None:
        super().__init__(total, name, visible=visible and is_main())

    def add(self, images: int) -> None:
        """Count images of this process; the others are taken to be as far."""
        super().add(images * world_size())
