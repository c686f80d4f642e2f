"""tools/train_net.py on data that it cannot use (status 2, one line), and on odd data that it must take."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from own_data import HEIGHT, WIDTH, flags, picture, write_set
from train_calls import in_two_processes, left, untouched

# -- annotations


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "empty-file"),
        ('{"images": [{"id": 1, "file', "truncated-json"),
        ("<html><body>404</body></html>", "HTML"),
        ("[]", "not-a-dict"),
        ('[{"image_id": 1, "category_id": 1, "bbox": [0, 0, 1, 1], "score": 1}]', "detection results"),
        ('{"a.jpg": {"regions": []}}', "missing-list"),
        ('{"images": {}, "annotations": [], "categories": []}', "not-a-list"),
        ('{"images": [], "annotations": [], "categories": []}', "no-images"),
        ("\x00\x01\x02", "not-json"),
    ],
)
def test_a_json_of_another_form(train, tmp_path, text, said):
    path = write_set(tmp_path / "data")
    path.write_text(text)
    train(*flags(path)).mistake(str(path), said, "tools/check_data.py")
    train(*flags(write_set(tmp_path / "sound")), "--val-json", path, "--val-images", path.parent).mistake(said)
    assert untouched(tmp_path)


def test_a_json_or_a_folder_that_is_not_there(train, tmp_path):
    path = write_set(tmp_path / "data")
    train("--train-json", "no.json", "--train-images", path.parent).mistake("no.json does not exist")
    train("--train-json", path, "--train-images", "no").mistake("the image folder no does not exist")
    train("--train-json", path.parent, "--train-images", path.parent).mistake("is a folder; give a file")
    assert untouched(tmp_path)


def set_box(box: list[float]):
    return lambda data: data["annotations"][3].update(bbox=box)


def rewrite_boxes(data: dict, form) -> None:
    for record in data["annotations"]:
        record["bbox"] = form(*record["bbox"])


BAD_BOXES = {
    "zero area": [10, 10, 0, 20],
    "no height": [10, 10, 20, 0],
    "negative": [30, 30, -10, -10],
    "NaN": [float("nan"), 10, 20, 20],
    "infinite": [10, 10, float("inf"), 20],
    "outside": [WIDTH + 10, 10, 20, 20],
}


@pytest.mark.parametrize("kind", BAD_BOXES)
def test_boxes_that_are_none_are_refused_or_skipped(train, tmp_path, kind):
    path = write_set(tmp_path / "data", change=set_box(BAD_BOXES[kind]))
    line = train(*flags(path)).mistake("annotation 5 of image 2")
    assert "-box" in line or "box-outside" in line
    assert untouched(tmp_path)
    train(*flags(path), "DATASETS.BAD_BOXES", "skip").fine("7 objects", "1 unusable box left out")


@pytest.mark.parametrize("kind", BAD_BOXES)
def test_boxes_that_are_none_in_the_test_set(train, tmp_path, kind):
    path = write_set(tmp_path / "data", change=set_box(BAD_BOXES[kind]))
    sound = flags(write_set(tmp_path / "sound"))
    train(*sound, *flags(path, "val")).mistake("annotation 5 of image 2")
    train(*sound, *flags(path, "val"), "DATASETS.BAD_BOXES", "skip").fine("custom_val, bbox")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda data: data["annotations"][0].update(category_id=9), "unknown-category"),
        (lambda data: data["annotations"][0].update(image_id=99), "unknown-image"),
        (lambda data: data["images"][1].update(id=1), "duplicate-image-id"),
        (lambda data: data["images"][0].update(width=0), "bad-size"),
        (lambda data: data["annotations"][0].pop("bbox"), "bbox"),
        (lambda data: data.update(annotations=[]), "no image has an object to learn from"),
        (lambda data: data.update(categories=[]), "no-categories"),
        (lambda data: rewrite_boxes(data, lambda x, y, w, h: [x, y, x + w, y + h]), "xyxy-boxes"),
        (lambda data: rewrite_boxes(data, lambda x, y, w, h: [x / 96, y / 72, w / 96, h / 72]), "normalised-boxes"),
    ],
)
def test_records_that_do_not_fit(train, tmp_path, change, said):
    train(*flags(write_set(tmp_path / "data", change=change))).mistake(said)
    assert untouched(tmp_path)


def drop_class(data: dict) -> None:
    data["categories"].pop()
    data["annotations"] = [record for record in data["annotations"] if record["category_id"] == 1]


def test_sets_of_different_categories(train, tmp_path):
    train_flags = flags(write_set(tmp_path / "train"))
    other = write_set(tmp_path / "val", change=lambda data: data["categories"][0].update(name="horse"))
    train(*train_flags, *flags(other, "val")).mistake("different categories", "horse")
    fewer = write_set(tmp_path / "fewer", change=drop_class)
    train(*flags(fewer), *flags(tmp_path / "train" / "a.json", "val")).mistake("'dog' is in one only")
    train(*train_flags, *flags(fewer, "val")).mistake("'dog' is in one only")
    assert untouched(tmp_path)


# -- images


def break_image(path: Path, how: str) -> None:
    data = path.read_bytes()
    if how == "missing":
        path.unlink()
    else:
        broken = {"zero bytes": b"", "truncated": data[: len(data) // 2], "text": b"no image", "HTML": b"<html></html>"}
        path.write_bytes(broken[how])


@pytest.mark.parametrize(("how", "workers"), [("zero bytes", 0), ("truncated", 1), ("text", 0)])
def test_a_broken_image_in_training_is_replaced(train, tmp_path, how, workers):
    path = write_set(tmp_path / "data")
    break_image(path.parent / "003.jpg", how)
    changes = {"SOLVER.MAX_ITER": 4, "DATALOADER.NUM_WORKERS": workers, "MODEL.RESNETS.NORM": "FrozenBN"}
    done = train(*flags(path), *flags(write_set(tmp_path / "val"), "val"), changes=changes)
    done.fine("broken image replaced by another (1 so far): ", "003.jpg")
    assert json.loads((tmp_path / "run" / "results.json").read_text())["broken_images"] == 1


def test_a_missing_image_in_training(train, tmp_path):
    path = write_set(tmp_path / "data")
    break_image(path.parent / "003.jpg", "missing")
    train(*flags(path)).mistake("003.jpg")
    assert untouched(tmp_path)


def test_more_broken_images_than_allowed(train, tmp_path):
    path = write_set(tmp_path / "data")
    for number in (2, 3):
        break_image(path.parent / f"{number:03d}.jpg", "truncated")
    changes = {"SOLVER.MAX_ITER": 4, "DATASETS.MAX_BAD_IMAGES": 1}
    train(*flags(path), changes=changes).mistake("2 training images broken, DATASETS.MAX_BAD_IMAGES allows 1")
    assert not any("model" in name or name.endswith(".tmp") for name in left(tmp_path))


def test_ground_truth_that_cannot_be_evaluated_is_refused_before_training(train, tmp_path):
    path = write_set(tmp_path / "val", change=lambda data: data["annotations"][0].update(area="large"))
    train(*flags(write_set(tmp_path / "train")), *flags(path, "val")).mistake(str(path), "area")
    assert untouched(tmp_path)


def test_a_mistake_is_told_once_by_two_processes(tmp_path):
    path = write_set(tmp_path / "data")
    path.write_text("{")
    done = in_two_processes(tmp_path, *flags(path))
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1, done.stderr
    assert "truncated-json" in done.stderr


@pytest.mark.parametrize("how", ["missing", "zero bytes", "truncated", "HTML"])
def test_a_broken_image_in_the_test_set(train, tmp_path, how):
    path = write_set(tmp_path / "val")
    break_image(path.parent / "002.jpg", how)
    train(*flags(write_set(tmp_path / "train")), *flags(path, "val")).mistake("002.jpg")
    assert not (tmp_path / "run" / "results.json").exists()


def test_an_image_of_another_size_than_its_record(train, tmp_path):
    path = write_set(tmp_path / "data")
    cv2.imwrite(str(path.parent / "002.jpg"), picture(2)[:40])
    train(*flags(path), changes={"SOLVER.MAX_ITER": 4}).mistake(
        "002.jpg", f"96x40 pixels, its JSON record says {WIDTH}x{HEIGHT}"
    )


def test_a_broken_test_image_stops_the_last_evaluation_alone(train, tmp_path):
    path = write_set(tmp_path / "val")
    break_image(path.parent / "002.jpg", "truncated")
    changes = {"SOLVER.MAX_ITER": 2, "TEST.EVAL_PERIOD": 1}
    done = train(*flags(write_set(tmp_path / "train")), *flags(path, "val"), changes=changes)
    done.mistake("002.jpg")
    assert done.out.count("left out of evaluating custom_val: ") == 1
    write_set(tmp_path / "val")
    done = train(*flags(tmp_path / "train" / "a.json"), *flags(path, "val"), "--resume", changes=changes)
    done.fine("custom_val, bbox")


def test_what_a_set_lacks_and_the_check_warns_of_stands_in_the_plan(train, tmp_path):
    def change(data: dict) -> None:
        data["categories"] += [{"id": 5, "name": "owl"}, {"id": 6, "name": "elk"}]
        data["annotations"][0] |= {"category_id": 6, "iscrowd": 1, "segmentation": {"size": [72, 96], "counts": [6912]}}
        del data["annotations"][1]["area"], data["annotations"][2]["area"]

    path = write_set(tmp_path / "data", change=change)
    said = train(*flags(path)).fine("of 1 class no object: owl", "of 1 class crowd regions alone: elk")
    line = next(line for line in said.splitlines() if "of the data check" in line)
    assert "custom_train: 2 warnings of the data check, missing-area first (annotation 3 of image 1" in line
    assert f"tools/check_data.py --json {path} --images {path.parent}" in line


# -- unusual, and fine


def test_the_root_category_of_an_export_is_no_class(train, tmp_path):
    def change(data: dict) -> None:
        for category in data["categories"]:
            category["supercategory"] = "pets-9xk2"
        data["categories"].insert(0, {"id": 0, "name": "pets-9xk2", "supercategory": "none"})

    path = write_set(tmp_path / "data", change=change)
    train(*flags(path), *flags(path, "val")).fine("2 classes", "'pets-9xk2', the root of the other categories, is no")
    results = json.loads((tmp_path / "run" / "results.json").read_text())["bbox"]
    assert set(results["per_class"]) == {"cat", "dog"}


def cmyk(path: Path) -> None:
    image = pytest.importorskip("PIL.Image", reason="Pillow writes the CMYK file")
    image.fromarray(picture(1)[:, :, ::-1]).convert("CMYK").save(path)


def rotated(path: Path) -> None:
    """Stored on its side, with the EXIF orientation that turns it upright."""
    image = pytest.importorskip("PIL.Image", reason="Pillow writes the EXIF orientation")
    exif = image.Exif()
    exif[0x0112] = 6
    image.fromarray(np.rot90(picture(1)[:, :, ::-1])).save(path, exif=exif)


UNUSUAL = {
    "CMYK": ("jpg", cmyk),
    "EXIF-rotated": ("jpg", rotated),
    "grayscale": ("jpg", lambda path: cv2.imwrite(str(path), picture(1)[:, :, 0])),
    "16 bit": ("png", lambda path: cv2.imwrite(str(path), picture(1).astype(np.uint16) * 257)),
    "16 bit gray": ("png", lambda path: cv2.imwrite(str(path), picture(1)[:, :, 0].astype(np.uint16) * 257)),
    "with alpha": ("png", lambda path: cv2.imwrite(str(path), np.dstack([picture(1), picture(2)[:, :, 0]]))),
}


def test_unusual_images_train_and_evaluate(train, tmp_path):
    def change(data: dict) -> None:
        for record, (suffix, write) in zip(data["images"], UNUSUAL.values()):
            record["file_name"] = f"unusual{record['id']}.{suffix}"
            write(tmp_path / "data" / record["file_name"])

    path = write_set(tmp_path / "data", images=len(UNUSUAL), change=change)
    changes = {"SOLVER.MAX_ITER": len(UNUSUAL) // 2, "TEST.PICTURES": 10}
    train(*flags(path), *flags(path, "val"), changes=changes).fine(f"{len(UNUSUAL)} images")
    assert len(list((tmp_path / "run" / "pictures").glob("*.jpg"))) == len(UNUSUAL)


class Oracle:
    """Stands in for a perfect detector: the classes by name, in the order of their ids; the boxes of the JSON."""

    def __init__(self, data: dict) -> None:
        self.data = data
        self.label = {c["id"]: i for i, c in enumerate(sorted(data["categories"], key=lambda c: c["id"]))}

    def __call__(self, _model, samples: list[dict]) -> list:
        from detectron2.structures import Boxes, Instances

        found = []
        for sample in samples:
            own = [a for a in self.data["annotations"] if a["image_id"] == sample["image_id"]]
            instances = Instances((sample["height"], sample["width"]))
            corners = [[x, y, x + w, y + h] for x, y, w, h in (a["bbox"] for a in own)]
            instances.pred_boxes = Boxes(torch.tensor(corners, dtype=torch.float32))
            instances.pred_classes = torch.tensor([self.label[a["category_id"]] for a in own])
            instances.scores = torch.ones(len(own))
            found.append(instances)
        return found


@pytest.mark.parametrize("ids", [(1, 2), (0, 1), (7, 90), (90, 7), (0, 1000000)])
def test_category_ids_with_gaps_or_from_zero(train, tmp_path, monkeypatch, ids):
    """A detector that is right in its own class indices must get full marks by the JSON's ids."""
    from detection.inference import pipeline

    path = write_set(tmp_path / "data", ids=ids)
    data = json.loads(path.read_text())
    monkeypatch.setattr(pipeline, "run_model", Oracle(data))
    train(*flags(path), *flags(path, "val")).fine("2 classes")
    results = json.loads((tmp_path / "run" / "results.json").read_text())["bbox"]
    assert results["AP"] == pytest.approx(1)
    assert set(results["per_class"]) == {"cat", "dog"}
    records = json.loads((tmp_path / "run" / "predictions_custom_val.json").read_text())
    assert sorted((r["image_id"], r["category_id"]) for r in records) == sorted(
        (a["image_id"], a["category_id"]) for a in data["annotations"]
    )
    saved = torch.load(tmp_path / "run" / "model_final.pth", weights_only=True)["metadata"]
    assert saved == {"classes": ["cat", "dog"] if ids[0] < ids[1] else ["dog", "cat"], "category_ids": sorted(ids)}
