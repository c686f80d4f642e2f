"""Methods of testing through the real evaluation: views from the loader, an ensemble of checkpoints, the costs."""

from __future__ import annotations

import json
import re
from pathlib import Path

import cv2
import pytest
import runs
import torch

import detection
from backbone import DataError, WeightsError
from backbone.common.images import read_image
from backbone.common.mini_set import mini_set_root
from backbone.engine.config import dump
from backbone.engine.session import Request

detection.register()

from detection.engine import datasets  # noqa: E402
from detection.engine.session import DetectionRun  # noqa: E402
from detection.inference import methods as testing  # noqa: E402
from detection.inference import transform  # noqa: E402
from detection.inference.detector import load_trained_detector  # noqa: E402
from detection.inference.transform import TestMapper, TestTransform  # noqa: E402
from detection.modeling.build import build  # noqa: E402

IMAGES = 4
ALL = {
    "TEST.BOX_REFINEMENT.ENABLED": True,
    "TEST.BOX_VOTING.ENABLED": True,
    "TEST.FLIP": True,
    "TEST.MULTI_SCALE.ENABLED": True,
    "TEST.MULTI_SCALE.SIDES": (48, 64, 96),
}


@pytest.fixture(scope="module")
def few_images(tmp_path_factory) -> dict[str, object]:
    """Keys of a set of some of the mini set's images."""
    root = mini_set_root()
    data = json.loads((root / "annotations" / "instances_val.json").read_text())
    data["images"] = data["images"][:IMAGES]
    ids = {image["id"] for image in data["images"]}
    data["annotations"] = [record for record in data["annotations"] if record["image_id"] in ids]
    path = tmp_path_factory.mktemp("few") / "few.json"
    path.write_text(json.dumps(data))
    return {
        "DATASETS.TEST": ("custom_val",),
        "DATASETS.CUSTOM.VAL_JSON": str(path),
        "DATASETS.CUSTOM.VAL_IMAGES": str(root / "val"),
    }


def settings(**changes: object):
    values = {**runs.TINY, "MODEL.DEVICE": "cpu", "TEST.PICTURES": 0, "MODEL.ROI_HEADS.SCORE_THRESH_TEST": 0.01}
    values |= {key.replace("__", "."): value for key, value in changes.items()}
    return detection.get_config("mini_faster_rcnn_r18.yaml", [item for pair in values.items() for item in pair])


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory, few_images) -> list[str]:
    """Two detectors of different width, as a training leaves them."""
    folder = tmp_path_factory.mktemp("checkpoints")
    classes = datasets.load_sets(settings(**few_images), training=False).any
    paths = []
    for seed, width in enumerate((32, 24)):
        config = settings(**few_images, MODEL__ROI_BOX_HEAD__FC_DIM=width, OUTPUT_DIR=str(folder))
        torch.manual_seed(seed)
        model = build(config)
        metadata = {"classes": list(classes.classes), "category_ids": list(classes.category_ids)}
        paths.append(str(folder / f"{seed}.pth"))
        torch.save({"model": model.state_dict(), "config": dump(config), "metadata": metadata}, paths[-1])
    return paths


def evaluate(folder: Path, changes: dict[str, object]) -> list[dict]:
    config = settings(**changes, OUTPUT_DIR=str(folder))
    DetectionRun(Request(config=config, eval_only=True)).run()
    assert "AP" in json.loads((folder / "results.json").read_text())["bbox"]
    return json.loads((folder / "predictions_custom_val.json").read_text())


def test_all_methods_from_the_command_to_the_results(tmp_path, few_images, checkpoints, capsys):
    first = {**few_images, "MODEL.WEIGHTS": checkpoints[0]}
    plain = evaluate(tmp_path / "plain", first)
    assert "cost " not in capsys.readouterr().out
    found = evaluate(tmp_path / "all", {**first, **ALL, "TEST.ENSEMBLE": (checkpoints[1],)})
    printed = capsys.readouterr().out
    assert len({record["image_id"] for record in found}) == IMAGES
    assert found != plain
    (line,) = re.findall(r"cost +.*", printed)
    for name in ("box refinement", "box voting at IoU 0.5", "maxout over shorter sides 48, 64, 96", "ensemble of 2"):
        assert name in line
    spent, without = (float(value) for value in re.findall(r"([\d.e-]+) s ", line)[:2])
    assert spent > without > 0


def test_without_methods_the_model_runs_as_it_is(few_images):
    config = settings(**few_images)
    model = build(config)
    assert isinstance(testing.as_tested(model, config, []), type(model))
    images = datasets.load_sets(config, training=False).any
    sample = TestMapper(images, TestTransform(config))(0)
    assert "views" not in sample
    # A picture that a caller has decoded, in the other channel order, comes out the same.
    again = TestTransform(config)(read_image(images.path(0)))
    assert torch.equal(sample["image"], again["image"])
    assert (sample["height"], sample["width"]) == (again["height"], again["width"]) == images.size(0)[::-1]


def test_views_have_their_sizes_and_are_made_of_the_file(few_images, monkeypatch):
    config = settings(**few_images, **ALL)
    images = datasets.load_sets(config, training=False).any
    decoded = []
    monkeypatch.setattr(transform, "read_image", lambda *args, **kw: decoded.append(1) or read_image(*args, **kw))
    sample = TestMapper(images, TestTransform(config))(0)
    assert len(decoded) == 1
    width, height = images.size(0)
    assert list(sample["views"]) == [48, 64, 96]
    for side, view in sample["views"].items():
        assert min(view.shape[1:]) == side
        assert max(view.shape[1:]) == pytest.approx(side * max(width, height) / min(width, height), abs=1)
    # The plain test's size is its image itself: its features are computed once.
    assert sample["views"][64] is sample["image"]
    target = sample["views"][96].shape[:0:-1]
    expected = cv2.resize(read_image(images.path(0)), target, interpolation=cv2.INTER_LINEAR)
    difference = sample["views"][96].permute(1, 2, 0).numpy()[:, :, ::-1].astype(int) - expected
    assert abs(difference).mean() < 3


def test_the_longer_side_keeps_its_limit_in_proportion():
    sizes = TestTransform(detection.get_config("coco_paper_r101_multiscale.yaml", ["MODEL.DEVICE", "cpu"])).views
    assert {side: size.longest for side, size in sizes.items()} == {
        200: 333,
        400: 667,
        600: 1000,
        800: 1333,
        1000: 1667,
    }
    union = detection.get_config("coco_paper_r101.yaml", ["TEST.AUG.ENABLED", True, "TEST.AUG.MIN_SIZES", (500, 700)])
    assert {side: size.longest for side, size in TestTransform(union).views.items()} == {500: 4000, 700: 4000}


def test_a_network_of_the_ensemble_is_built_from_its_own_config(few_images, checkpoints):
    config = settings(**few_images, INPUT__FORMAT="BGR")
    classes = datasets.load_sets(config, training=False).classes
    network = testing.load_network(checkpoints[1], config, classes)
    assert network.model.roi_heads.box_head.output_shape.channels == 24
    assert network.reverse_channels
    assert not network.model.training


def test_mistakes_in_an_ensemble_are_named(few_images, checkpoints, tmp_path):
    with pytest.raises(WeightsError, match=r"TEST.ENSEMBLE: nowhere\.pth does not exist"):
        evaluate(tmp_path, {**few_images, "MODEL.WEIGHTS": checkpoints[0], "TEST.ENSEMBLE": ("nowhere.pth",)})
    with pytest.raises(DataError, match="other classes"):
        testing.load_network(checkpoints[1], settings(**few_images), ["cat"])


def test_prediction_on_single_images_takes_the_keys_too(checkpoints):
    image = read_image(next((mini_set_root() / "val").iterdir()))
    plain = load_trained_detector(checkpoints[0], "cpu")
    assert isinstance(plain.tested, type(plain.model))
    changes = [item for pair in {**ALL, "TEST.ENSEMBLE": (checkpoints[1],)}.items() for item in pair]
    detector = load_trained_detector(checkpoints[0], "cpu", changes)
    assert detector.tested.methods.networks == 2
    found = detector.detect(image)
    assert len(found) > 0
    assert found.image_size == image.shape[:2]
    assert not torch.equal(found.scores, plain.detect(image).scores)
