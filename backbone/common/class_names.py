"""Names of classes that several data sets share."""

from __future__ import annotations

# PASCAL VOC's, 2007 to 2012, in the order of the alphabet, as the development kit numbers them from 1.
VOC_CLASSES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)
# PASCAL VOC's names -> MS COCO's, where they differ by more than blanks.
SYNONYMS = {"aeroplane": "airplane", "motorbike": "motorcycle", "sofa": "couch", "tvmonitor": "tv"}


def meaning(name: str) -> str:
    """Return a class name's meaning: "diningtable" is "dining table", "aeroplane" is "airplane"."""
    plain = "".join(letter for letter in name.casefold() if letter.isalnum())
    return SYNONYMS.get(plain, plain)
