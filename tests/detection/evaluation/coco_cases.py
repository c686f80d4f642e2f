"""Random ground truth and predictions in COCO form, and pycocotools's own way through them."""

from __future__ import annotations

import contextlib
import copy
import io
from typing import Any, NamedTuple

import numpy as np
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

KEYPOINTS = 17
Case = tuple[dict[str, Any], list[dict[str, Any]]]


class Reference(NamedTuple):
    precision: np.ndarray
    recall: np.ndarray
    scores: np.ndarray
    stats: list[float]


def reference(truth: dict[str, Any], predictions: list[dict[str, Any]], iou_type: str) -> Reference:
    """Run pycocotools alone, `loadRes` included; it writes into what it is given, so it gets copies."""
    with contextlib.redirect_stdout(io.StringIO()):
        ground_truth = COCO()
        ground_truth.dataset = copy.deepcopy(truth)
        ground_truth.createIndex()
        evaluator = COCOeval(ground_truth, ground_truth.loadRes(copy.deepcopy(predictions)), iou_type)
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
    return Reference(*(evaluator.eval[key] for key in ("precision", "recall", "scores")), list(evaluator.stats))


def random_case(iou_type: str, seed: int, *, crowded: bool = False) -> Case:
    """Return ground truth and predictions; `crowded` has more than 100 predictions of a class in an image.

    Images without annotations, without predictions and without both, a category without annotations, category ids with
    gaps, crowds, equal scores, boxes without area, areas on the borders of the ranges.
    """
    rng = np.random.default_rng(seed)
    height, width = rng.integers(60, 200, 2).tolist()
    images, classes, objects, found = (3, 2, 40, 450) if crowded else (10, 5, 12, 30)
    categories = sorted(rng.choice(np.arange(1, 90), classes, replace=False).tolist())
    truth: dict[str, Any] = {
        "info": {},
        "images": [
            {"id": number, "height": height, "width": width, "file_name": f"{number}.jpg"}
            for number in rng.choice(np.arange(1, 10**6), images, replace=False).tolist()
        ],
        "categories": [{"id": number, "name": f"class {number}"} for number in categories],
        "annotations": [],
    }
    predictions: list[dict[str, Any]] = []
    for image in truth["images"]:
        annotations = [_annotation(rng, image, categories[:-1]) for _ in range(rng.integers(0, objects))]
        truth["annotations"] += annotations
        predictions += [_prediction(rng, image, categories, annotations) for _ in range(rng.integers(0, found))]
    for number, annotation in enumerate(truth["annotations"], 1):
        annotation["id"] = number
    _spread_scores(rng, predictions)
    with_boxes = iou_type == "bbox" or bool(rng.random() < 0.3)
    _add_shapes(rng, iou_type, truth, predictions, (height, width))
    for prediction in predictions:
        del prediction["of"]
        if not with_boxes:
            del prediction["bbox"]
    rng.shuffle(predictions)
    return truth, predictions


def jittered(truth: dict[str, Any], iou_type: str, seed: int = 0) -> list[dict[str, Any]]:
    """Return predictions near the annotations of a real file: moved, doubled, missing, of a wrong class."""
    rng = np.random.default_rng(seed)
    sizes = {image["id"]: (image["height"], image["width"]) for image in truth["images"]}
    categories = [category["id"] for category in truth["categories"]]
    predictions = []
    for annotation in truth["annotations"]:
        for _ in range(rng.integers(0, 4)):
            kind = annotation["category_id"] if rng.random() < 0.9 else int(rng.choice(categories))
            prediction = {"image_id": annotation["image_id"], "category_id": kind, "score": round(rng.random(), 2)}
            if iou_type == "bbox":
                box = np.array(annotation["bbox"]) * (1 + 0.1 * rng.standard_normal(4))
                prediction["bbox"] = box.tolist()
            elif iou_type == "segm":
                mask = _moved(rng, annotation["segmentation"], sizes[annotation["image_id"]])
                prediction["segmentation"] = mask
            else:
                points = np.array(annotation["keypoints"], dtype=float).reshape(KEYPOINTS, 3)
                points[:, :2] += rng.choice([0, 2, 8]) * rng.standard_normal((KEYPOINTS, 2))
                prediction["keypoints"] = points.ravel().tolist()
            predictions.append(prediction)
    return predictions


def _box(rng: np.random.Generator, image: dict[str, Any]) -> list[float]:
    sides = [
        lambda: rng.random(2) * 3,
        lambda: rng.integers(0, 60, 2).astype(float),
        lambda: rng.choice([0.0, 16.0, 32.0, 64.0, 96.0], 2),
        lambda: rng.random(2) * 300,
    ][rng.integers(4)]()
    corner = rng.random(2) * [image["width"], image["height"]]
    return [*(np.floor(corner) if rng.random() < 0.5 else corner).tolist(), *sides.tolist()]


def _annotation(rng: np.random.Generator, image: dict[str, Any], categories: list[int]) -> dict[str, Any]:
    box = _box(rng, image)
    return {
        "image_id": image["id"],
        "category_id": int(rng.choice(categories)),
        "bbox": box,
        "area": float(rng.choice([box[2] * box[3], 32.0**2, 96.0**2, rng.random() * 20000])),
        "iscrowd": int(rng.random() < 0.15),
    }


def _prediction(
    rng: np.random.Generator, image: dict[str, Any], categories: list[int], annotations: list[dict[str, Any]]
) -> dict[str, Any]:
    prediction = {"image_id": image["id"], "category_id": int(rng.choice(categories)), "bbox": _box(rng, image)}
    prediction["of"] = None
    if annotations and rng.random() < 0.7:
        annotation = annotations[rng.integers(len(annotations))]
        box = np.array(annotation["bbox"]) + rng.choice([0, 0.5, 3, 10]) * rng.standard_normal(4)
        box[2:] = np.maximum(box[2:], 0)
        prediction.update(category_id=annotation["category_id"], bbox=box.tolist(), of=annotation)
    return prediction


def _spread_scores(rng: np.random.Generator, predictions: list[dict[str, Any]]) -> None:
    digits = [None, 1, 0, 2][rng.integers(4)]
    for prediction in predictions:
        score = float(rng.random())
        prediction["score"] = score if digits is None else round(score, digits)


def _add_shapes(
    rng: np.random.Generator,
    iou_type: str,
    truth: dict[str, Any],
    predictions: list[dict[str, Any]],
    size: tuple[int, int],
) -> None:
    if iou_type == "segm":
        for annotation in truth["annotations"]:
            annotation["segmentation"] = _segmentation(rng, size, crowd=bool(annotation["iscrowd"]))
        for prediction in predictions:
            of = prediction["of"]
            mask = _segmentation(rng, size, crowd=False) if of is None else of["segmentation"]
            prediction["segmentation"] = _moved(rng, mask, size)
    if iou_type == "keypoints":
        for annotation in truth["annotations"]:
            annotation["keypoints"] = _keypoints(rng, annotation["bbox"])
            visible = sum(value > 0 for value in annotation["keypoints"][2::3])
            annotation["num_keypoints"] = 0 if rng.random() < 0.05 else visible
        for prediction in predictions:
            of = prediction["of"]
            points = np.array(_keypoints(rng, prediction["bbox"]) if of is None else of["keypoints"], dtype=float)
            points.reshape(-1, 3)[:, :2] += rng.choice([0, 1, 3, 10]) * rng.standard_normal((KEYPOINTS, 2))
            prediction["keypoints"] = points.tolist()


def _keypoints(rng: np.random.Generator, box: list[float]) -> list[float]:
    points = np.zeros((KEYPOINTS, 3))
    points[:, :2] = box[:2] + rng.random((KEYPOINTS, 2)) * box[2:]
    points[:, 2] = rng.choice([0, 1, 2], KEYPOINTS, p=[0.4, 0.2, 0.4])
    points[points[:, 2] == 0] = 0
    return (points * (rng.random() > 0.2)).round(int(rng.integers(3))).ravel().tolist()


def _segmentation(rng: np.random.Generator, size: tuple[int, int], *, crowd: bool) -> Any:
    """Polygons, compressed or uncompressed run lengths."""
    polygons = [_polygon(rng, size) for _ in range(rng.integers(1, 4))]
    if not crowd and rng.random() < 0.5:
        return polygons
    compressed = coco_mask.merge(coco_mask.frPyObjects(polygons, *size))
    if rng.random() < 0.5:
        return {"size": list(size), "counts": compressed["counts"].decode("ascii")}
    pixels = np.concatenate([[0], coco_mask.decode(compressed).ravel(order="F")])
    changes = np.flatnonzero(np.diff(pixels))
    return {"size": list(size), "counts": np.diff([0, *changes.tolist(), size[0] * size[1]]).tolist()}


def _polygon(rng: np.random.Generator, size: tuple[int, int]) -> list[float]:
    height, width = size
    points = rng.random((int(rng.integers(3, 12)), 2))
    kind = rng.integers(3)
    if kind == 0:
        # Reaches out of the image.
        points = (points * 1.4 - 0.2) * [width, height]
    elif kind == 1:
        points = points * 4 + rng.random(2) * [width, height]
    else:
        (x, y), (w, h) = rng.integers(0, 50, 2), rng.integers(1, 60, 2)
        points = np.array([[x, y], [x + w, y], [x + w, y + h], [x, y + h]])
    return points.round(2).ravel().tolist()


def _moved(rng: np.random.Generator, segmentation: Any, size: tuple[int, int]) -> dict[str, Any]:
    if isinstance(segmentation, list):
        compressed = coco_mask.merge(coco_mask.frPyObjects(segmentation, *size))
    elif isinstance(segmentation["counts"], list):
        compressed = coco_mask.frPyObjects(segmentation, *size)
    else:
        compressed = segmentation
    mask = np.roll(coco_mask.decode(compressed), int(rng.integers(-3, 4)), axis=int(rng.integers(2)))
    return {"size": list(size), "counts": coco_mask.encode(np.asfortranarray(mask))["counts"].decode("ascii")}


def small_truth() -> dict[str, Any]:
    """Two images of 40 x 60; a cat and a dog in the first, a dog in the second; nothing optional."""
    return {
        "images": [{"id": 7, "height": 40, "width": 60}, {"id": 8, "height": 40, "width": 60}],
        "categories": [{"id": 3, "name": "cat"}, {"id": 9, "name": "dog"}],
        "annotations": [
            {"image_id": 7, "category_id": 3, "bbox": [2, 2, 10, 10]},
            {"image_id": 7, "category_id": 9, "bbox": [20, 5, 8, 20]},
            {"image_id": 8, "category_id": 9, "bbox": [5, 5, 30, 30]},
        ],
    }


def small_predictions() -> list[dict[str, Any]]:
    """The cat exactly, one of the two dogs."""
    return [
        {"image_id": 7, "category_id": 3, "bbox": [2, 2, 10, 10], "score": 0.9},
        {"image_id": 8, "category_id": 9, "bbox": [5, 5, 30, 30], "score": 0.8},
    ]
