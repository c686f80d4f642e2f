"""A set with keypoints: the objects of the mini set, and the corners of their boxes."""

from __future__ import annotations

import json
from pathlib import Path

from backbone.common.mini_set import mini_set_root

CORNERS = ["top_left", "top_right", "bottom_right", "bottom_left"]
SIGMAS = (0.05, 0.05, 0.1, 0.1)


def write_corners(path: Path, images: int) -> Path:
    """Write the annotations of the first images of mini_val with the corners as keypoints; return their folder."""
    root = Path(mini_set_root())
    data = json.loads((root / "annotations" / "instances_val.json").read_text())
    data["images"] = data["images"][:images]
    known = {image["id"] for image in data["images"]}
    data["annotations"] = [record for record in data["annotations"] if record["image_id"] in known]
    for category in data["categories"]:
        category["keypoints"] = CORNERS
    for index, record in enumerate(data["annotations"]):
        x, y, width, height = record["bbox"]
        right, bottom = x + width - 1, y + height - 1
        # The last corner of every third object is not labelled.
        last = [0, 0, 0] if index % 3 == 0 else [x, bottom, 1]
        record["keypoints"] = [x, y, 2, right, y, 2, right, bottom, 1, *last]
        record["num_keypoints"] = 3 + (last[2] > 0)
    path.write_text(json.dumps(data))
    return root / "val"
