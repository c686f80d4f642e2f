"""Predictions in the forms of label tools, beside COCO's: YOLO's text files, a CSV table, Label Studio's tasks."""

from __future__ import annotations

import csv
from collections.abc import Callable, Collection, Iterator
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote

from backbone.common.files import write_text, write_whole

from .lines import write_list

# Yields, from the start each time, an image (a record with file_name, width and height) and its COCO results.
Found = Callable[[], Iterator[tuple[dict[str, Any], list[dict[str, Any]]]]]


def save_as(forms: Collection[str], output: Path, found: Found, names: dict[int, str], least_score: float) -> None:
    """Write predictions in each of the forms (keys of FORMS) into a folder, image by image.

    Args:
        names: of the classes, by category id, in the order of the class indices.
        least_score: of the boxes that are written.
    """

    def above() -> Iterator[tuple[dict[str, Any], list[dict[str, Any]]]]:
        for image, records in found():
            yield image, [record for record in records if record["score"] >= least_score]

    for form in forms:
        FORMS[form](output, above, names)


def _save_yolo(output: Path, found: Found, names: dict[int, str]) -> None:
    """labels/<image>.txt: class index, centre and sides in shares of the image, score."""
    index = {id_: place for place, id_ in enumerate(names)}
    for image, records in found():
        width, height, lines = image["width"], image["height"], []
        for record in records:
            x, y, w, h = record["bbox"]
            values = ((x + w / 2) / width, (y + h / 2) / height, w / width, h / height, record["score"])
            lines.append(" ".join([str(index[record["category_id"]]), *(f"{value:.6f}" for value in values)]))
        name = PurePosixPath(image["file_name"]).with_suffix(".txt")
        write_text(output / "labels" / name, "".join(f"{line}\n" for line in lines))
    write_text(output / "classes.txt", "".join(f"{name}\n" for name in names.values()))


def _save_csv(output: Path, found: Found, names: dict[int, str]) -> None:
    """predictions.csv: a line a box, corners in pixels."""

    def write(temporary: Path) -> None:
        with temporary.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["image", "x1", "y1", "x2", "y2", "class", "score"])
            for image, records in found():
                for record in records:
                    x, y, w, h = record["bbox"]
                    corners = (f"{value:.2f}" for value in (x, y, x + w, y + h))
                    name = names[record["category_id"]]
                    writer.writerow([image["file_name"], *corners, name, f"{record['score']:.4f}"])

    write_whole(output / "predictions.csv", write)


def _save_label_studio(output: Path, found: Found, names: dict[int, str]) -> None:
    """label_studio.json: tasks whose pre-annotations fit <RectangleLabels name="label" toName="image">."""
    write_list(output / "label_studio.json", (_task(image, records, names) for image, records in found()))


def _task(image: dict[str, Any], records: list[dict[str, Any]], names: dict[int, str]) -> dict[str, Any]:
    width, height, results = image["width"], image["height"], []
    for record in records:
        x, y, w, h = record["bbox"]
        percent = {"x": x / width, "y": y / height, "width": w / width, "height": h / height}
        value: dict[str, Any] = {key: 100 * share for key, share in percent.items()}
        value |= {"rotation": 0, "rectanglelabels": [names[record["category_id"]]]}
        form = {"type": "rectanglelabels", "from_name": "label", "to_name": "image", "image_rotation": 0}
        size = {"original_width": width, "original_height": height}
        results.append({**form, **size, "value": value, "score": record["score"]})
    mean = sum(result["score"] for result in results) / len(results) if results else 0.0
    # As Label Studio's local storage names a file below its root.
    url = f"/data/local-files/?d={quote(image['file_name'], errors='surrogateescape')}"
    return {
        "data": {"image": url},
        "predictions": [{"model_version": "resnet-detection", "score": mean, "result": results}],
    }


FORMS: dict[str, Callable[..., None]] = {"yolo": _save_yolo, "csv": _save_csv, "label-studio": _save_label_studio}
