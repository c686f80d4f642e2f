"""Images with label images for segmentation: where they come from, and how they become batches."""

from .sets import CocoImages, LabelledFiles, SegmentationSet
from .sources import open_sets

__all__ = ["CocoImages", "LabelledFiles", "SegmentationSet", "open_sets"]
