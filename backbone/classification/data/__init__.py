"""Labelled images for pretraining: where they come from, and how they become batches."""

from .sets import ImageFiles, ImagesInMemory, LabelledImages
from .sources import open_sets

__all__ = ["ImageFiles", "ImagesInMemory", "LabelledImages", "open_sets"]
