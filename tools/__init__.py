"""The commands. A wheel installs this folder as the package `resnet_detection`, with configs/ in it."""

from backbone import __version__

__all__ = ["__version__"]
