"""backbone.load_classifier and predictions on files: from every form of image the classes that the test finds."""

from __future__ import annotations

import csv
import json

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

import backbone
from backbone.classification.config import load_config
from backbone.classification.data import ImageFiles
from backbone.classification.networks import build
from backbone.classification.predicting import predict_images
from backbone.classification.task import ClassificationTask
from backbone.engine import checkpoint
from backbone.engine.config import dump
from backbone.engine.kinds import task_of

NAMES = ["cat", "grüner Vogel", "owl"]
CONFIG = [
    *("MODEL.DEVICE", "cpu", "MODEL.WEIGHTS", "", "MODEL.NUM_CLASSES", 3, "DATALOADER.NUM_WORKERS", 0),
    *("INPUT.TRAIN_SIZE", 32, "INPUT.TEST_SIZE", 32, "INPUT.TEST_SHORTER_SIDE", 40),
]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run folder with the weights of a network and backbone.safetensors; its test set, and what its task finds."""
    folder = tmp_path_factory.mktemp("run")
    random = np.random.default_rng(0)
    (folder / "photos" / "more").mkdir(parents=True)
    files = ["a.png", "b.png", "more/a.png"]
    for name, size in zip(files, ((60, 48), (40, 80), (45, 45))):
        cv2.imwrite(str(folder / "photos" / name), random.integers(0, 256, (*size, 3), dtype=np.uint8))
    images = ImageFiles("photos", NAMES, np.array([0, 1, 2]), folder / "photos", files)
    torch.manual_seed(0)
    config = load_config("finetune_resnet18.yaml", CONFIG)
    task = ClassificationTask(build(config), None, images, config)
    content = {"model": task.weights(), "iteration": 1, "config": dump(config), "metadata": task.metadata()}
    checkpoint.save(folder / checkpoint.FINAL, content)
    sizes = {"TEST.PROTOCOL": "1crop", "INPUT.TEST_SIZE": 32, "INPUT.TEST_SHORTER_SIDE": 40}
    backbone.save_weights(task.network(), folder / "a.safetensors", metadata={"classes": NAMES, "test": sizes})
    task.test_with(["1crop", "10crop"])
    return folder, task.errors


@pytest.fixture(scope="module")
def classifier(run):
    return backbone.load_classifier(run[0], "cpu")


def test_it_finds_what_the_test_of_the_run_finds(run, classifier):
    folder, errors = run
    files = [folder / "photos" / name for name in ("a.png", "b.png", "more/a.png")]
    for found, guesses, scores in zip(classifier(files, batch_size=2), errors["1crop"].guesses, errors["1crop"].scores):
        assert found.labels.tolist() == guesses.tolist()
        np.testing.assert_allclose(found.scores, scores, rtol=1e-5)
    ten = backbone.load_classifier(folder / "a.safetensors", "cpu", overrides=["TEST.PROTOCOL", "10crop"])
    assert ten.classes == NAMES
    np.testing.assert_allclose(ten(files[1]).scores, errors["10crop"].scores[1], rtol=1e-5)
    np.testing.assert_allclose(
        backbone.load_classifier(folder / "a.safetensors", "cpu")(files[0]).scores, classifier(files[0]).scores
    )


def test_every_form_of_an_image_gives_the_same(run, classifier):
    path = run[0] / "photos" / "a.png"
    bgr = cv2.imread(str(path))
    rgb = np.ascontiguousarray(bgr[:, :, ::-1])
    tensor = torch.from_numpy(rgb).permute(2, 0, 1)
    expected = classifier(str(path)).scores
    for image in (path, Image.open(path), rgb, rgb / 255.0, tensor, tensor / 255):
        assert np.array_equal(classifier(image).scores, expected)
    assert np.array_equal(classifier(bgr, bgr=True).scores, expected)
    assert [len(classifier([rgb, path])), len(classifier(tensor[None])), classifier([])] == [2, 1, []]
    with pytest.raises(backbone.DataError, match="an image is a path"):
        classifier(3)
    with pytest.raises(backbone.DataError, match="nowhere.png"):
        classifier("nowhere.png")


def test_a_result(run, classifier, tmp_path):
    found = classifier(run[0] / "photos" / "b.png")
    assert (len(found), found.class_names[0], found.score) == (3, found.class_name, float(found.scores[0]))
    assert found.scores.sum() == pytest.approx(1) and (np.diff(found.scores) <= 0).all()
    assert found[0] == found.top(1)[0] and found[found.scores > 2].class_names == []
    assert repr(found).startswith(f"<Guesses: {found.class_name} {found.score:.3f}, ")
    assert found.to_json(2)[1] == {
        "class": found[1].class_name,
        "score": round(found[1].score, 6),
        "label": found[1].label,
    }
    picture = found.draw()
    # As wide as is well seen; three lines of words below it.
    assert picture.width == 224 and picture.height == 112 + 3 * 22
    heat = found.heat("owl")
    # The network sees a square in the middle, 32 of 40 pixels.
    assert heat.shape == (40, 80) and heat.max() <= 1 and not heat[:, :24].any() and not heat[:4].any()
    assert np.array_equal(heat, found.heat(2))
    for label, said in (("owll", "'owll' is no class; did you mean 'owl'"), (3, "3 is no class; there are 3")):
        with pytest.raises(backbone.ConfigError, match=said):
            found.heat(label)
    found.save(tmp_path / "a.webp", heat=True)
    assert Image.open(tmp_path / "a.webp").size == picture.size and found._repr_png_()[1:4] == b"PNG"
    with pytest.raises(backbone.DataError, match="no kind of image"):
        found.save(tmp_path / "a.xyz")


def test_files_become_json_and_csv(run, classifier, tmp_path):
    (run[0] / "photos" / "broken.jpg").write_bytes(b"no image")
    try:
        outcome = predict_images(classifier, str(run[0] / "photos"), tmp_path, top=2, pictures=True)
    finally:
        (run[0] / "photos" / "broken.jpg").unlink()
    assert list(outcome.guesses) == ["a.png", "b.png", "more/a.png"]
    assert list(outcome.skipped) == [str(run[0] / "photos" / "broken.jpg")]
    record = json.loads((tmp_path / "predictions.json").read_text())
    assert record["classes"] == NAMES and [image["file_name"] for image in record["images"]] == list(outcome.guesses)
    rows = list(csv.DictReader((tmp_path / "predictions.csv").open(encoding="utf-8")))
    expected = [classifier(run[0] / "photos" / name).to_json(2) for name in outcome.guesses]
    assert [image["classes"] for image in record["images"]] == expected
    assert [(row["image"], row["rank"]) for row in rows][:3] == [("a.png", "1"), ("a.png", "2"), ("b.png", "1")]
    assert [row["class"] for row in rows] == [guess["class"] for found in expected for guess in found]
    assert sorted(path.name for path in tmp_path.rglob("*_grad_cam.jpg")) == [
        "a_grad_cam.jpg",
        "a_grad_cam.jpg",
        "b_grad_cam.jpg",
    ]
    with pytest.raises(backbone.ConfigError, match="--top 0"):
        predict_images(classifier, str(run[0] / "photos"), tmp_path, top=0)
    with pytest.raises(backbone.DataError, match="nowhere"):
        predict_images(classifier, "nowhere", tmp_path)


def test_weights_of_other_projects(tmp_path):
    torchvision = pytest.importorskip("torchvision")
    torch.manual_seed(0)
    other = torchvision.models.resnet18().eval()
    torch.save(other.state_dict(), tmp_path / "resnet18.pth")
    classifier = backbone.load_classifier(tmp_path / "resnet18.pth", "cpu")
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (300, 260, 3), dtype=np.uint8))
    transform = torchvision.models.ResNet18_Weights.IMAGENET1K_V1.transforms()
    with torch.no_grad():
        expected = other(transform(image)[None]).softmax(1)[0]
    found = classifier(image)
    assert classifier.classes[:2] == ["tench", "goldfish"]
    np.testing.assert_allclose(found.scores, expected.sort(descending=True).values, atol=2e-5)
    with pytest.raises(backbone.WeightsError, match="2 class names .*a classifier of 1000"):
        backbone.load_classifier(tmp_path / "resnet18.pth", classes=["a", "b"])
    assert task_of(tmp_path) == "classification"
    np.testing.assert_array_equal(backbone.load_classifier(tmp_path, "cpu")(image).scores, found.scores)


def test_mistakes_are_one_line(run, tmp_path):
    content = torch.load(run[0] / checkpoint.FINAL, weights_only=True)
    for mark, task, tool in (("category_ids", "detection", "net"), ("head", "segmentation", "segmentation")):
        changed = {key: value for key, value in content["metadata"].items() if key != "mean_image"}
        checkpoint.save(tmp_path / "other.pth", {**content, "metadata": {**changed, mark: [1]}})
        with pytest.raises(
            backbone.WeightsError, match=f"is a network for {task}, not for classification; tools/train_{tool}.py"
        ):
            backbone.load_classifier(tmp_path / "other.pth", "cpu")
    bare = backbone.create("resnet18")
    backbone.save_weights(bare, tmp_path / "bare.pth")
    with pytest.raises(backbone.WeightsError, match="resnet18 without a classifier"):
        backbone.load_classifier(tmp_path / "bare.pth", "cpu")
    with pytest.raises(backbone.ConfigError, match="did you mean 'float16'"):
        backbone.load_classifier(run[0], "cpu", "float61")
    with pytest.raises(backbone.WeightsError, match="a folder without"):
        backbone.load_classifier(tmp_path)
