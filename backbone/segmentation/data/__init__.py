"""Images with label images for segmentation: where they come from, and how they become batches."""

from .sets import CocoImages, ImageFiles, SegmentationSet
from .sources import open_sets

__all__ = ["CocoImages", "ImageFiles", "SegmentationSet", "open_sets"]
