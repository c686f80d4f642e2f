"""Predictions in the forms of label tools, beside COCO's: YOLO's text files, a CSV table, Label Studio's tasks."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Collection, Sequence
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote

from backbone.common.files import write_json, write_text

Images, Found = Sequence[dict[str, Any]], dict[int, list[dict[str, Any]]]


def save_as(
    forms: Collection[str],
    output: Path,
    images: Images,
    records: Sequence[dict[str, Any]],
    names: dict[int, str],
    least_score: float,
) -> None:
    """Write predictions in each of the forms (keys of FORMS) into a folder.

    Args:
        images: records with id, file_name, width and height.
        records: in COCO's results form.
        names: of the classes, by category id, in the order of the class indices.
        least_score: of the boxes that are written.
    """
    found: Found = {image["id"]: [] for image in images}
    for record in records:
        if record["score"] >= least_score:
            found[record["image_id"]].append(record)
    for form in forms:
        FORMS[form](output, images, found, names)


def _save_yolo(output: Path, images: Images, found: Found, names: dict[int, str]) -> None:
    """labels/<image>.txt: class index, centre and sides in shares of the image, score."""
    index = {id_: place for place, id_ in enumerate(names)}
    for image in images:
        width, height, lines = image["width"], image["height"], []
        for record in found[image["id"]]:
            x, y, w, h = record["bbox"]
            values = ((x + w / 2) / width, (y + h / 2) / height, w / width, h / height, record["score"])
            lines.append(" ".join([str(index[record["category_id"]]), *(f"{value:.6f}" for value in values)]))
        name = PurePosixPath(image["file_name"]).with_suffix(".txt")
        write_text(output / "labels" / name, "".join(f"{line}\n" for line in lines))
    write_text(output / "classes.txt", "".join(f"{name}\n" for name in names.values()))


def _save_csv(output: Path, images: Images, found: Found, names: dict[int, str]) -> None:
    """predictions.csv: a line a box, corners in pixels."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["image", "x1", "y1", "x2", "y2", "class", "score"])
    for image in images:
        for record in found[image["id"]]:
            x, y, w, h = record["bbox"]
            corners = (f"{value:.2f}" for value in (x, y, x + w, y + h))
            writer.writerow([image["file_name"], *corners, names[record["category_id"]], f"{record['score']:.4f}"])
    write_text(output / "predictions.csv", text.getvalue())


def _save_label_studio(output: Path, images: Images, found: Found, names: dict[int, str]) -> None:
    """label_studio.json: tasks whose pre-annotations fit <RectangleLabels name="label" toName="image">."""
    tasks = []
    for image in images:
        width, height, results = image["width"], image["height"], []
        for record in found[image["id"]]:
            x, y, w, h = record["bbox"]
            percent = {"x": x / width, "y": y / height, "width": w / width, "height": h / height}
            value: dict[str, Any] = {key: 100 * share for key, share in percent.items()}
            value |= {"rotation": 0, "rectanglelabels": [names[record["category_id"]]]}
            form = {"type": "rectanglelabels", "from_name": "label", "to_name": "image", "image_rotation": 0}
            size = {"original_width": width, "original_height": height}
            results.append({**form, **size, "value": value, "score": record["score"]})
        mean = sum(result["score"] for result in results) / len(results) if results else 0.0
        # As Label Studio's local storage names a file below its root.
        url = f"/data/local-files/?d={quote(image['file_name'])}"
        prediction = {"model_version": "resnet-detection", "score": mean, "result": results}
        tasks.append({"data": {"image": url}, "predictions": [prediction]})
    write_json(output / "label_studio.json", tasks)


FORMS: dict[str, Callable[..., None]] = {"yolo": _save_yolo, "csv": _save_csv, "label-studio": _save_label_studio}
