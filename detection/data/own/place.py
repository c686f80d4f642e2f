"""The forms of data sets, and where one of them lies."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

# form -> how it is called, and what is looked for in a folder.
FORMS = {
    "coco": ("COCO JSON", "COCO or LVIS JSON (*.json, annotations/*.json)"),
    "voc": ("PASCAL VOC XML", "PASCAL VOC (*.xml, Annotations/*.xml)"),
    "yolo": ("YOLO txt", "YOLO (data.yaml, labels/*.txt beside images/, a .txt beside each image)"),
    "csv": ("CSV", "CSV (*.csv)"),
}
YAML = (".yaml", ".yml")


@dataclass(frozen=True)
class Place:
    """Where a data set lies.

    Attributes:
        form: a key of FORMS.
        source: the file or folder that holds the annotations.
        images: the folder of the images; None where the annotations lead to it.
        part: "train", "val" or "test"; of a file that describes several (data.yaml), the one that is meant.
    """

    form: str
    source: Path
    images: Path | None = None
    part: str = "train"

    @property
    def title(self) -> str:
        return FORMS[self.form][0]

    @property
    def flags(self) -> str:
        """Flags of tools/check_data.py that name this set."""
        part = "val" if self.part == "val" else "train"
        return f"--{part} {self.source}" + (f" --{part}-images {self.images}" if self.images else "")
