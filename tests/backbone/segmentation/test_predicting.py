"""tools/predict.py with a network for segmentation: label images, overlays, figures and the page of errors."""

from __future__ import annotations

import json
import re
import shutil
import sys

import cv2
import numpy as np
import pytest
import torch
import warm_commands
from PIL import Image
from small_segmentation import CLASSES, ROOT, scene, write_folders
from test_confusion import slow_metrics
from torch.nn import functional as F

from backbone.common.errors import ConfigError, DataError, WeightsError
from backbone.engine import checkpoint
from backbone.engine.kinds import task_of
from backbone.segmentation import load_config
from backbone.segmentation.data import open_sets
from backbone.segmentation.data.labels import voc_palette, write_label
from backbone.segmentation.networks import build
from backbone.segmentation.predicting import predict_images
from backbone.segmentation.segmenter import load_segmenter
from backbone.segmentation.task import SegmentationTask

KEYS = ("DATA.NAME", "folders", "MODEL.DEVICE", "cpu", "DATALOADER.NUM_WORKERS", 0)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A set of three images in set/, and the checkpoint of a network of random weights, net.pth."""
    home = tmp_path_factory.mktemp("home")
    write_folders(home / "set")
    config = load_config("mini_fcn_r18.yaml", ["DATA.ROOT", str(home / "set"), *KEYS])
    torch.manual_seed(0)
    task = SegmentationTask(build(config, len(CLASSES)), *open_sets(config, training=True), config)
    # Scores of about the same size for each class, so that every class is found somewhere.
    last = task.model.classifier[-1]
    last.bias.data.zero_()
    last.weight.data.sub_(last.weight.data.mean(dim=(1, 2, 3), keepdim=True))
    content = {"model": task.model.state_dict(), "metadata": task.metadata(), "config": config.dump()}
    checkpoint.save(home / "net.pth", content)
    return home


@pytest.fixture(scope="module")
def segmenter(home):
    return load_segmenter(home / "net.pth", "cpu")


def labels_by_hand(segmenter, path) -> np.ndarray:
    """The network on one image, step by step, without our preprocessing and inference."""
    image = torch.from_numpy(np.asarray(Image.open(path).convert("RGB")).copy()).permute(2, 0, 1)[None].float()
    mean, std = (
        torch.tensor(values).view(1, 3, 1, 1) for values in ([123.675, 116.28, 103.53], [58.395, 57.12, 57.375])
    )
    with torch.no_grad():
        features = segmenter.network.backbone((image - mean) / std)
        scores = segmenter.network.classifier(list(features.values())[-1])
        return F.interpolate(scores, image.shape[-2:], mode="bilinear", align_corners=False)[0].argmax(0).numpy()


def test_images_with_truth(home, segmenter, tmp_path):
    images, labels = home / "set" / "images" / "val", home / "set" / "labels" / "val"
    outcome = predict_images(segmenter, str(images), tmp_path, truth=labels)
    pairs = []
    for index in range(3):
        with Image.open(tmp_path / "labels" / f"{index}.png") as file:
            found = np.asarray(file)
            assert np.array_equal(np.asarray(file.convert("RGB")), voc_palette()[found])
        assert np.array_equal(found, labels_by_hand(segmenter, images / f"{index}.png"))
        pairs.append((found, scene(100 + index)[1]))
    results = json.loads((tmp_path / "results.json").read_text())
    for name, value in slow_metrics(pairs, CLASSES).items():
        found = results["sem_seg"][name]
        assert (value != value and found is None) or found == pytest.approx(value), name
    known = [(p[t != 255], t[t != 255]) for p, t in pairs]
    counted = [[sum(int(((t == a) & (p == b)).sum()) for p, t in known) for b in range(3)] for a in range(3)]
    assert results["confusion"]["pixels"] == counted and results["images"] == 3
    alone = [slow_metrics([pair], CLASSES)["mIoU"] for pair in pairs]
    listed = json.loads((tmp_path / "predictions.json").read_text())
    assert listed["classes"] == list(CLASSES)
    for index, record in enumerate(listed["images"]):
        assert record["file_name"] == f"{index}.png" and record["mIoU"] == pytest.approx(alone[index])
        predicted, truth = pairs[index]
        assert record["wrong"] == pytest.approx((predicted != truth)[truth != 255].mean())
        shares = {name: (predicted == label).mean() for label, name in enumerate(CLASSES)}
        assert record["shares"] == pytest.approx({name: share for name, share in shares.items() if share})
    # The worst come first: in the table, on the sheet's order and on the page, which asks for nothing outside.
    order = [f"{index}.png" for index in np.argsort(alone, kind="stable")]
    assert re.findall(r"^\| (\d\.png) ", outcome.table, re.MULTILINE) == order
    page = (tmp_path / "errors.html").read_text()
    assert re.findall(r"<strong>\d\. (\d\.png)", page) == order
    assert not re.findall(r"""(?:src|href)=["'](?!data:|#)""", page) and "url(" not in page
    assert sorted(path.name for path in tmp_path.glob("*.jpg")) == [
        *(f"{index}_segmentation.jpg" for index in range(3)),
        "segmentation.jpg",
    ]
    picture = cv2.imread(str(tmp_path / "0_segmentation.jpg"))
    assert picture.shape[1] > 3 * 320  # prediction, truth and errors side by side


def test_what_an_earlier_call_has_written_is_no_image(home, segmenter, tmp_path):
    shutil.copytree(home / "set" / "images" / "val", tmp_path / "photos")
    shutil.copytree(home / "set" / "labels" / "val", tmp_path / "photos" / "labels_of_mine")
    (tmp_path / "photos" / "cut.jpg").write_bytes(b"no image")
    for _ in range(2):
        outcome = predict_images(
            segmenter, str(tmp_path / "photos"), tmp_path / "photos", truth=tmp_path / "photos" / "labels_of_mine"
        )
        assert (outcome.images, outcome.without_truth, len(outcome.skipped)) == (3, 0, 1)
    (tmp_path / "photos" / "labels_of_mine" / "2.png").unlink()
    outcome = predict_images(
        segmenter, str(tmp_path / "photos" / "*.png"), tmp_path / "o", truth=tmp_path / "photos" / "labels_of_mine"
    )
    assert (outcome.images, outcome.without_truth) == (3, 1)
    # Masks beside the images.
    (tmp_path / "both").mkdir()
    for kind, end in (("images", ""), ("labels", "_mask")):
        for file in (home / "set" / kind / "val").iterdir():
            shutil.copy(file, tmp_path / "both" / f"{file.stem}{end}.png")
    outcome = predict_images(segmenter, str(tmp_path / "both"), tmp_path / "p", truth=tmp_path / "both", pictures=False)
    assert (outcome.images, outcome.without_truth) == (3, 0)
    outcome = predict_images(segmenter, str(tmp_path / "photos" / "1.png"), tmp_path / "one", pictures=False)
    assert not outcome.table and sorted(path.name for path in (tmp_path / "one").rglob("*.*")) == [
        "1.png",
        "predictions.json",
    ]


def test_truth_of_other_forms(home, segmenter, tmp_path):
    """Masks with a suffix, numbers by a map from the command line, a list of classes in another order."""
    truth = tmp_path / "truth"
    truth.mkdir()
    order = [2, 0, 1]  # square, background, round
    for index in range(3):
        label = scene(100 + index)[1]
        numbers = np.select([label == value for value in order], [10, 11, 12], 200).astype(np.uint8)
        Image.fromarray(numbers).save(truth / f"{index}_mask.png")
    (truth / "classes.txt").write_text("\n".join(CLASSES[label] for label in order))
    keys = ["DATA.ID_MAP", "10: square, 11: background, 12: round, *: void"]
    images = str(home / "set" / "images" / "val")
    predict_images(load_segmenter(home / "net.pth", "cpu", keys), images, tmp_path / "a", truth=truth)
    predict_images(segmenter, images, tmp_path / "b", truth=home / "set" / "labels" / "val")
    first, second = (json.loads((tmp_path / name / "results.json").read_text()) for name in "ab")
    assert first == second


def test_wrong_truth_is_named_before_anything_is_written(home, segmenter, tmp_path):
    images, truth = str(home / "set" / "images" / "val"), tmp_path / "truth"
    shutil.copytree(home / "set" / "labels" / "val", truth)
    write_label(truth / "1.png", np.full((60, 72), 7, np.uint8))
    with pytest.raises(DataError, match=r"1.png: label 7 at x 0, y 0 is none of the 3 classes"):
        predict_images(segmenter, images, tmp_path / "out", truth=truth)
    write_label(truth / "1.png", np.zeros((5, 6), np.uint8))
    with pytest.raises(DataError, match="the image is 72x60 pixels, .*1.png says 6x5"):
        predict_images(segmenter, images, tmp_path / "out", truth=truth)
    (truth / "classes.txt").write_text("background\nround\ntriangle\n")
    with pytest.raises(DataError, match="has the class 'triangle', which the network does not have"):
        predict_images(segmenter, images, tmp_path / "out", truth=truth)
    with pytest.raises(DataError, match="holds no label image of the name of an image"):
        predict_images(segmenter, f"{home}/set/images/train/3.png", tmp_path / "out", truth=home / "set/labels/val")
    assert not (tmp_path / "out").exists()


def predict(weights, home, output, *flags) -> tuple[int, str, str]:
    """Call tools/predict.py as its user does."""
    given = ("--weights", weights, "--input", home / "set" / "images" / "val", "--output", output, "--device", "cpu")
    done = warm_commands.run([sys.executable, str(ROOT / "tools" / "predict.py"), *map(str, (*given, *flags))])
    return done.returncode, done.stdout, done.stderr


def test_the_command_tells_networks_by_their_files(home, tmp_path):
    found, net, other = tmp_path / "found", home / "net.pth", tmp_path / "detector.pth"
    status, said, _ = predict(net, home, found, "--truth", home / "set" / "labels" / "val")
    assert status == 0 and "| mean IoU" in said and "| worst images" in said
    assert said.endswith(f"3 images\npictures, labels/, predictions.json, results.json, errors.html in {found}\n")
    detector = {"model": {"backbone.conv1.weight": torch.zeros(1)}, "metadata": {"classes": ["a"], "category_ids": [1]}}
    checkpoint.save(other, detector)
    for weights, flags, message in (
        (net, ("--score", "0.3"), f"--score is for detection; {net} is a network for segmentation\n"),
        (other, ("--truth", home), f"--truth is for segmentation; {other} is a network for detection\n"),
    ):
        status, _, said = predict(weights, home, tmp_path / "no", *flags)
        assert status == 2 and said.endswith(message) and said.count("\n") == 1
    with pytest.raises(WeightsError, match=r"is a network for detection, not for segmentation; tools/train_net.py"):
        load_segmenter(other, "cpu")
    tensors = {"backbone.conv1.weight": torch.zeros(1), "classifier.4.weight": torch.zeros(2)}
    torch.save(tensors, tmp_path / "theirs.pth")
    assert task_of(tmp_path / "theirs.pth") == "segmentation" and task_of(tmp_path / "nowhere.pth") == "detection"
    with pytest.raises(ConfigError, match="carries its own config"):
        load_segmenter(net, "cpu", config="mini_fcn_r18.yaml")
