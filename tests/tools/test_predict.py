"""tools/predict.py: files, folders and patterns in; pictures and COCO results out; what cannot be read is named."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hostile import write_hostile
from own_data import HEIGHT, WIDTH, picture

SCALE = 2


@pytest.fixture
def photos(tmp_path) -> Path:
    """Three images, one in a folder of its own, and a text file."""
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    for number, name in enumerate(("a.jpg", "b.PNG", "more/a.jpg")):
        cv2.imwrite(str(folder / name), np.kron(picture(number), np.ones((SCALE, SCALE, 1), np.uint8)))
    (folder / "notes.txt").write_text("no image")
    return folder


@pytest.fixture
def predict(tool, trained, tmp_path):
    """Call tools/predict.py with the trained detector, into the folder found."""

    def call(source: object, *arguments: object, weights: object = None):
        weights = weights or trained / "model_final.pth"
        given = ("--weights", weights, "--input", source, "--output", tmp_path / "found", "--device", "cpu")
        return tool("predict.py", *given, *arguments)

    return call


def written(tmp_path: Path) -> list[str]:
    folder = tmp_path / "found"
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def read(tmp_path: Path) -> tuple[list[dict], dict]:
    folder = tmp_path / "found"
    return json.loads((folder / "predictions.json").read_text()), json.loads((folder / "images.json").read_text())


# -- what comes in


def test_a_file(predict, photos, tmp_path):
    text = predict(photos / "a.jpg").fine("1 image, ", f"pictures and predictions.json in {tmp_path / 'found'}")
    assert written(tmp_path) == ["a_detections.jpg", "detections.jsonl", "images.json", "predictions.json"]
    scores = [record["score"] for record in read(tmp_path)[0]]
    assert f"{len(scores)} boxes, {sum(score >= 0.5 for score in scores)} of them above 0.5" in text


def test_a_folder_is_searched_through(predict, photos, tmp_path):
    predict(photos).fine("3 images, ")
    pictures = ["a_detections.jpg", "b_detections.jpg", "more/a_detections.jpg"]
    assert written(tmp_path) == sorted([*pictures, "detections.jsonl", "images.json", "predictions.json"])
    assert [image["file_name"] for image in read(tmp_path)[1]["images"]] == ["a.jpg", "b.PNG", "more/a.jpg"]


@pytest.mark.parametrize(("pattern", "number"), [("*.jpg", 1), ("**/*.jpg", 2), ("[ab].*", 2)])
def test_a_pattern(predict, photos, tmp_path, pattern, number):
    predict(photos / pattern).fine(f"{number} image")
    records, images = read(tmp_path)
    assert len(images["images"]) == number
    # Files of the same name in different folders each have their picture.
    assert len([name for name in written(tmp_path) if name.endswith("_detections.jpg")]) == number


def test_the_output_inside_the_input_is_not_taken_for_input(predict, photos, tmp_path):
    (tmp_path / "found").mkdir()
    cv2.imwrite(str(tmp_path / "found" / "c.jpg"), picture(5))
    predict(tmp_path / "found").fine("1 image")
    predict("found").fine("1 image")
    assert written(tmp_path) == ["c.jpg", "c_detections.jpg", "detections.jsonl", "images.json", "predictions.json"]


def test_two_images_whose_pictures_would_have_one_name(predict, tmp_path):
    (tmp_path / "photos").mkdir()
    for name in ("a.jpg", "a.png"):
        cv2.imwrite(str(tmp_path / "photos" / name), picture(3))
    predict(tmp_path / "photos").fine("2 images")
    assert [name for name in written(tmp_path) if "_detections" in name] == [
        "a.jpg_detections.jpg",
        "a.png_detections.jpg",
    ]


# -- what comes out


def test_predictions_are_in_coco_form(predict, photos, tmp_path, trained):
    """pycocotools takes predictions.json with images.json, and what it loads lies inside the images."""
    coco = pytest.importorskip("pycocotools.coco")
    predict(photos).fine()
    records, images = read(tmp_path)
    assert records
    ground_truth = coco.COCO()
    ground_truth.dataset = {**images, "annotations": [], "info": {}}
    ground_truth.createIndex()
    loaded = ground_truth.loadRes(str(tmp_path / "found" / "predictions.json"))
    assert len(loaded.anns) == len(records)
    metadata = torch.load(trained / "model_final.pth", weights_only=True)["metadata"]
    assert images["categories"] == [
        {"id": id_, "name": name} for id_, name in zip(metadata["category_ids"], metadata["classes"])
    ]
    assert {image["id"] for image in images["images"]} == {1, 2, 3}
    for record in records:
        x, y, w, h = record["bbox"]
        assert x >= -0.01 and x + w <= SCALE * WIDTH + 0.01 and w >= 0
        assert y >= -0.01 and y + h <= SCALE * HEIGHT + 0.01 and h >= 0
        assert 0 < record["score"] <= 1
        assert record["category_id"] in metadata["category_ids"]
        assert record["segmentation"]["size"] == [SCALE * HEIGHT, SCALE * WIDTH]
    assert all((image["width"], image["height"]) == (SCALE * WIDTH, SCALE * HEIGHT) for image in images["images"])


def test_image_ids_are_the_numbers_of_the_names(predict, tmp_path):
    (tmp_path / "coco").mkdir()
    for name in ("000000000139.jpg", "000000000285.jpg"):
        cv2.imwrite(str(tmp_path / "coco" / name), picture(4))
    predict(tmp_path / "coco").fine()
    assert {record["image_id"] for record in read(tmp_path)[0]} == {139, 285}
    assert [image["id"] for image in read(tmp_path)[1]["images"]] == [139, 285]


def test_ids_of_the_others_do_not_move_when_one_cannot_be_read(predict, photos, tmp_path):
    predict(photos).fine()
    before = {image["file_name"]: image["id"] for image in read(tmp_path)[1]["images"]}
    (photos / "a.jpg").write_bytes(b"")
    predict(photos)
    after = {image["file_name"]: image["id"] for image in read(tmp_path)[1]["images"]}
    assert after == {name: number for name, number in before.items() if name != "a.jpg"}


def test_the_score_decides_what_is_drawn_not_what_is_written(predict, photos, tmp_path):
    """With --score 0 boxes and masks are drawn on the picture; with 1 it is the image as it was."""
    original = cv2.imread(str(photos / "a.jpg")).astype(int)
    changed, records = {}, {}
    for score in ("0", "1"):
        predict(photos / "a.jpg", "--score", score).fine()
        drawn = cv2.imread(str(tmp_path / "found" / "a_detections.jpg")).astype(int)
        assert drawn.shape == original.shape
        changed[score] = (np.abs(drawn - original).max(axis=2) > 60).mean()
        records[score] = read(tmp_path)[0]
    assert records["0"] == records["1"]
    assert changed["1"] < 0.01
    assert changed["0"] > 0.05


def test_masks_are_drawn(trained, photos):
    """The inside of a mask is tinted, not its frame alone."""
    from detection.inference.detector import load_trained_detector
    from detection.inference.predict import draw

    detector = load_trained_detector(trained / "model_final.pth", "cpu")
    image = cv2.imread(str(photos / "a.jpg"))
    instances = detector.detect(image)[:1]
    assert instances.pred_masks.shape == (1, *image.shape[:2])
    instances.pred_boxes = type(instances.pred_boxes)(torch.tensor([[20.0, 20.0, 120.0, 100.0]]))
    instances.pred_masks = torch.zeros((1, *image.shape[:2]), dtype=torch.bool)
    outside = draw(image, instances, detector.classes)
    instances.pred_masks[:, 40:80, 40:100] = True
    inside = draw(image, instances, detector.classes)
    differs = (inside.astype(int) != outside).any(axis=2)
    assert differs[45:75, 45:95].mean() > 0.9
    assert not differs[:40].any()


# -- what cannot be read


def test_unreadable_files_are_named_and_skipped(predict, photos, tmp_path):
    (photos / "b.PNG").write_bytes(b"")
    data = (photos / "more" / "a.jpg").read_bytes()
    (photos / "more" / "a.jpg").write_bytes(data[: len(data) // 2])
    text = predict(photos).fine("1 image, ", "2 unreadable skipped")
    assert "skipped: " in text
    assert f"{photos / 'b.PNG'}: the image file is empty" in text
    assert f"{photos / 'more' / 'a.jpg'}: the image file is cut off" in text
    assert [image["file_name"] for image in read(tmp_path)[1]["images"]] == ["a.jpg"]


def test_nothing_to_read(predict, photos, tmp_path):
    predict(photos / "notes.txt").mistake("none of", "notes.txt")
    predict(photos / "nowhere.jpg").mistake("nowhere.jpg", "no such image")
    predict(photos / "*.gif").mistake("*.gif")
    (tmp_path / "empty").mkdir()
    predict(tmp_path / "empty").mistake("no such image, folder with images, or pattern that finds any")
    assert not (tmp_path / "found").exists()


def test_weights_without_a_config(predict, photos, tmp_path, trained):
    content = torch.load(trained / "model_final.pth", weights_only=True)
    for missing in ("config", "metadata"):
        torch.save({key: value for key, value in content.items() if key != missing}, tmp_path / "part.pth")
        predict(photos, weights=tmp_path / "part.pth").mistake("part.pth: holds weights alone", "tools/train_net.py")
    torch.save(content["model"], tmp_path / "bare.pth")
    predict(photos, weights=tmp_path / "bare.pth").mistake("bare.pth: holds weights alone")
    predict(photos, weights="nowhere.pth").mistake("nowhere.pth: no such weights file")
    assert not (tmp_path / "found").exists()


def test_weights_that_run_code(predict, photos, tmp_path, trained):
    marker = tmp_path / "marker"
    path = write_hostile(tmp_path / "hostile", "os.system", "beside weights", "torch zip", marker)
    predict(photos, weights=path).mistake("refused")
    content = torch.load(trained / "model_final.pth", weights_only=True)
    content["config"] = f"NAME: !!python/object/apply:os.system ['touch {marker}']"
    torch.save(content, tmp_path / "yaml.pth")
    predict(photos, weights=tmp_path / "yaml.pth").mistake("yaml.pth, its config:1: refused")
    assert not marker.exists()


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("config", "NO_SUCH_KEY: 1", "unknown key NO_SUCH_KEY"),
        ("config", "[", "not valid YAML"),
        ("config", 3, "holds weights alone"),
        ("config", None, "holds weights alone"),
        ("metadata", [1], "not a checkpoint of this project"),
        ("metadata", {}, "holds weights alone"),
        ("metadata", {"classes": list("abcdefgh")}, "its config has 8"),
        ("metadata", {"classes": ["one"], "category_ids": [1]}, "names 1 classes, its config has 8"),
        ("model", {"weight": torch.ones(1)}, "not a trained detector"),
    ],
)
def test_a_checkpoint_that_was_tampered_with(predict, photos, tmp_path, trained, key, value, said):
    content = torch.load(trained / "model_final.pth", weights_only=True)
    torch.save({**content, key: value}, tmp_path / "odd.pth")
    predict(photos, weights=tmp_path / "odd.pth").mistake("odd.pth", said)


def test_wrong_flags(tool, predict, photos, tmp_path):
    tool("predict.py").mistake("the following arguments are required: --weights, --input, --output")
    tool("predict.py", "--help").fine("example:", "tools/predict.py --weights")
    predict(photos, "--scores", "1").mistake("did you mean '--score'?")
    predict(photos, "--score", "high").mistake("invalid float value")
    predict(photos / "a.jpg", photos / "b.PNG").mistake("--input takes one path, and", "b.PNG", "quote the pattern")
    predict(photos, "--overlap", "0.2").mistake("--overlap is a share of the tiles", "--tile 640")
    (tmp_path / "found").write_text("a file")
    predict(photos).mistake(str(tmp_path / "found"), "cannot be written")


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_a_gpu_that_is_not_there(predict, photos):
    predict(photos, "--device", "cuda").mistake("torch sees no GPU; use --device cpu")


@pytest.mark.parametrize(
    ("pairs", "said"),
    [
        (("INPUT.FORMAT", "XYZ"), "INPUT.FORMAT is 'XYZ'"),
        (("INPUT.FORMAT", "BGR"), "INPUT.FORMAT is BGR on the command line, but the weights"),
        (("INPUT.MIN_SIZE_TEST", "-5"), "INPUT.MIN_SIZE_TEST must be 0 or more"),
        (("TEST.SOFT_NMS.METHOD", "gauss"), "TEST.SOFT_NMS.METHOD is 'gauss'"),
        (("TEST.EXPECTED_RESULTS", "[[1]]"), "TEST.EXPECTED_RESULTS has no effect here"),
        (("MODEL.META_ARCHITECTURE", "PanopticFPN"), "one of GeneralizedRCNN, RetinaNet"),
        (("TEST.ENSEMBLE", "no.pth"), "TEST.ENSEMBLE: no.pth does not exist"),
        (("MODEL.DEVICE", "gpu"), "MODEL.DEVICE is 'gpu'; it may be cpu, cuda"),
        (("MODEL.DEVICE", "cuda:9"), "GPU"),
    ],
)
def test_overrides_are_checked_as_for_a_training(tool, photos, trained, tmp_path, pairs, said):
    given = ("--weights", trained / "model_final.pth", "--input", photos, "--output", tmp_path / "found")
    tool("predict.py", *given, *pairs).mistake(said)
    assert not (tmp_path / "found").exists()


def test_the_device_of_the_command_line_is_taken(trained, monkeypatch):
    """On a machine with GPUs too."""
    from detection.inference import detector

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    taken = []
    monkeypatch.setattr(detector, "build", lambda config: taken.append(config.MODEL.DEVICE) or torch.nn.Identity())
    monkeypatch.setattr(detector, "load_detector", lambda *_: None)
    for device, pairs in ((None, ("MODEL.DEVICE", "cpu")), (None, ("MODEL.DEVICE", "cuda:1")), ("cpu", ()), (None, ())):
        detector.load_trained_detector(trained / "model_final.pth", device, pairs)
    assert taken == ["cpu", "cuda:1", "cpu", "cuda"]


def test_ids_come_from_annotations(tool, predict, photos, tmp_path, trained):
    """What `predict --ids` writes is evaluated as it is; ids of images and of categories are the annotations' own."""
    metadata = torch.load(trained / "model_final.pth", weights_only=True)["metadata"]
    size = {"width": SCALE * WIDTH, "height": SCALE * HEIGHT}
    data = {
        "images": [{"id": 70, "file_name": "more/a.jpg", **size}, {"id": 71, "file_name": "x\\b.PNG", **size}],
        "categories": [{"id": 90 - place, "name": name} for place, name in enumerate(metadata["classes"])],
        "annotations": [],
    }
    data["annotations"].append({"id": 1, "image_id": 70, "category_id": 90, "bbox": [1, 2, 30, 40], "area": 1200})
    path = tmp_path / "instances.json"
    path.write_text(json.dumps(data))
    predict(photos, "--ids", path).fine("2 images found, 1 of --input are not in it", "2 images, ")
    records, images = read(tmp_path)
    assert {image["id"]: image["file_name"] for image in images["images"]} == {70: "more/a.jpg", 71: "b.PNG"}
    assert {record["image_id"] for record in records} == {70, 71}
    assert {record["category_id"] for record in records} <= {90 - place for place in range(len(metadata["classes"]))}
    tool("evaluate.py", "--gt", path, "--predictions", tmp_path / "found" / "predictions.json").fine("AP50")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda data: data.pop("images"), "needs 'images'"),
        (
            lambda data: data["images"][0].update(file_name="z.jpg"),
            "lists none of the 3 files of --input, such as a.jpg",
        ),
        (lambda data: data.update(categories=[{"id": 1, "name": "x"}]), "has no category of the detector's 8 classes"),
        (lambda data: data["images"][0].update(id="one"), "needs 'images'"),
    ],
)
def test_ids_that_cannot_be_taken(predict, photos, tmp_path, change, said):
    data = {"images": [{"id": 70, "file_name": "b.PNG"}], "categories": []}
    change(data)
    (tmp_path / "ids.json").write_text(json.dumps(data))
    predict(photos, "--ids", tmp_path / "ids.json").mistake("ids.json", said)
    assert not (tmp_path / "found").exists()
