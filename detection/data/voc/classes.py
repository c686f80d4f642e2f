"""The twenty classes of PASCAL VOC 2007 to 2012."""

from __future__ import annotations

# In the order of the alphabet, as the development kit numbers them from 1.
VOC_CLASSES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)
