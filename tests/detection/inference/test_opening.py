"""`detection.load`: one detector for images of every kind, and what it returns."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.v2 import functional

import detection
from backbone import ConfigError, DataError, WeightsError
from backbone.common.images.save import encode_jpeg
from backbone.engine.record import start_logging

detection.register()

from small_detectors import detector, photo, save_detector, settings_of  # noqa: E402

from detection.inference.predict import predict  # noqa: E402

CLASSES, IDS = ["cat", "dog", "owl"], [17, 18, 90]


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> SimpleNamespace:
    """A small Mask R-CNN's checkpoint, and four images of three sizes in a folder."""
    folder = tmp_path_factory.mktemp("saved")
    file = save_detector(folder / "model_best.pth", CLASSES, IDS)
    (folder / "photos").mkdir()
    sizes = {"a": (90, 120), "b": (120, 90), "c": (90, 120), "d": (80, 80)}
    images = [photo(*size, seed) for seed, size in enumerate(sizes.values())]
    paths = [folder / "photos" / f"{name}.png" for name in sizes]
    for path, image in zip(paths, images):
        cv2.imwrite(str(path), image)
    return SimpleNamespace(folder=folder, file=file, images=images, paths=paths)


@pytest.fixture(scope="module")
def loaded(saved):
    return detection.load(saved.file, device="cpu")


def same(found, expected, scores: float = 0.0) -> bool:
    return (
        len(found) == len(expected) > 0
        and np.array_equal(found.labels, expected.labels)
        and np.abs(found.scores - expected.scores).max() <= scores
        and np.abs(found.boxes - expected.boxes).max() <= 100 * scores
        and np.array_equal(found.masks, expected.masks)
    )


def test_finds_what_the_command_finds(saved, loaded, tmp_path):
    """On each file, alone and in a list of images of different sizes."""
    outcome = predict(loaded, str(saved.folder / "photos"), tmp_path / "found", least_score=0.5)
    records = json.loads((tmp_path / "found" / "predictions.json").read_text())
    assert outcome.detections == len(records) > 10
    alone = [loaded(path) for path in saved.paths]
    assert [record for number, result in enumerate(alone, 1) for record in result.to_coco(number)] == records
    assert outcome.drawn == sum((result.scores >= 0.5).sum() for result in alone)
    together = loaded(saved.paths, batch_size=3)
    assert all(same(a, b, scores=1e-5) for a, b in zip(together, alone, strict=True))
    jpeg = encode_jpeg(np.asarray(alone[0].draw()))
    assert (tmp_path / "found" / "a_detections.jpg").read_bytes() == jpeg


def test_every_kind_of_image_is_the_same_image(saved, loaded):
    path, bgr = saved.paths[0], saved.images[0]
    rgb = np.ascontiguousarray(bgr[:, :, ::-1])
    expected = loaded(str(path))
    opaque = np.full((*rgb.shape[:2], 1), 255, np.uint8)
    tensor = functional.pil_to_tensor(Image.open(path))
    kinds = {
        "path": path,
        "PIL": Image.open(path),
        "RGBA": Image.open(path).convert("RGBA"),
        "array": rgb,
        "array with alpha": np.concatenate([rgb, opaque], axis=2),
        "floats": rgb / 255,
        "tensor": tensor,
        "float tensor": functional.to_dtype(tensor, torch.float32, scale=True),
    }
    for kind, image in kinds.items():
        found = loaded(image)
        assert same(found, expected), kind
        assert np.array_equal(np.asarray(found.draw(1.1)), rgb), kind
    assert same(loaded(bgr, bgr=True), expected)
    assert not same(loaded(bgr), expected)
    for several in (torch.stack([tensor, tensor]), np.stack([rgb, rgb]), (rgb, tensor)):
        assert len(found := loaded(several)) == 2
        assert same(found[1], expected, scores=1e-5)
    assert loaded([]) == []


def test_gray_and_turned_images(saved, loaded):
    gray = cv2.cvtColor(saved.images[0], cv2.COLOR_BGR2GRAY)
    expected = loaded(cv2.cvtColor(gray, cv2.COLOR_GRAY2RGB))
    for image in (gray, gray[:, :, None], Image.fromarray(gray), torch.from_numpy(gray)[None], torch.from_numpy(gray)):
        assert same(loaded(image), expected)
    assert same(loaded(Image.fromarray(gray.astype(np.uint16) * 256 + 7)), expected)
    buffer, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = 6  # shown a quarter turn clockwise
    rgb = np.ascontiguousarray(saved.images[0][:, :, ::-1])
    Image.fromarray(rgb).save(buffer, "PNG", exif=exif)
    assert same(loaded(Image.open(buffer)), loaded(np.rot90(rgb, -1)))


def test_what_a_result_holds(loaded, saved):
    result = loaded(saved.paths[0])
    number = len(result)
    assert result.boxes.shape == (number, 4) and result.masks.shape == (number, 90, 120) and result.size == (90, 120)
    assert result.class_names == [CLASSES[label] for label in result.labels]
    assert (np.diff(result.scores) <= 0).all()
    first = result[0]
    assert (first.score, first.label) == (result.scores.max(), result.labels[0])
    assert first.class_name == result.class_names[0] and np.array_equal(first.mask, result.masks[0])
    assert [single.score for single in result] == result.scores.tolist()
    with pytest.raises(IndexError):
        result[number]
    middle = float(np.median(result.scores))
    for part in (result[result.scores > middle], result[torch.from_numpy(result.scores > middle)]):
        assert len(part) == (result.scores > middle).sum() == len(part.masks) == len(part.class_names)
    assert same(result[[1, 0]][::-1], result[:2])
    nothing = result[[]]
    assert len(nothing) == 0 and nothing.boxes.shape == (0, 4) and nothing.to_coco() == []
    assert repr(nothing) == "<Detections: 0 boxes, 0 of them above 0.5>"
    above = (result.scores > 0.5).sum()
    assert re.fullmatch(rf"<Detections: {number} boxes, {above} of them above 0.5: \d+ \w+.*>", repr(result))
    assert len(repr(result)) < 120
    (record,) = result[:1].to_coco(image_id=7)
    x0, y0, x1, y1 = result.boxes[0]
    assert record["image_id"] == 7 and record["category_id"] == IDS[result.labels[0]]
    assert record["bbox"] == pytest.approx([x0, y0, x1 - x0, y1 - y0]) and record["segmentation"]["size"] == [90, 120]


def test_pictures_of_a_result(loaded, saved, tmp_path):
    result = loaded(saved.paths[0])
    for name in ("out.jpg", "out.png", "new/out.webp"):
        result.save(tmp_path / name, score=0.2)
        assert Image.open(tmp_path / name).size == (120, 90)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "out.png")), np.asarray(result.draw(0.2)))
    assert Image.open(io.BytesIO(result._repr_jpeg_())).format == "JPEG"
    with pytest.raises(DataError, match=r"out\.xyz: no kind of image has the suffix '\.xyz'"):
        result.save(tmp_path / "out.xyz")
    assert not (tmp_path / "out.xyz").exists()


@pytest.mark.parametrize(
    ("image", "said"),
    [
        (None, "not NoneType"),
        (np.zeros((3, 20, 30), np.uint8), r"array \(height, width, 3\).*shape \(3, 20, 30\)"),
        (torch.zeros(20, 30, 3), r"tensor \(3, height, width\)"),
        (np.zeros((0, 30, 3), np.uint8), "shape"),
        (np.full((20, 30, 3), 200.0), "floats in 0..1, not float64 in 200..200"),
        (np.full((20, 30, 3), np.nan), "floats in 0..1"),
        (np.zeros((20, 30, 3), np.int64), "not int64"),
        ("nowhere.jpg", "nowhere.jpg does not exist"),
        (Path(__file__).parent, "is a folder"),
        (__file__, "not an image"),
    ],
)
def test_what_is_no_image(loaded, image, said):
    with pytest.raises(DataError, match=said):
        loaded(image)


def test_how_a_detector_is_asked_for(saved, loaded, capfd):
    expected = loaded(saved.paths[0])
    start_logging(None)
    assert same(detection.load(saved.folder, "cpu")(saved.paths[0]), expected)
    low = detection.load(str(saved.file), device="cpu", precision="bfloat16", overrides=["TEST.FLIP", True])
    assert (low.config.TEST.PRECISION, low.config.TEST.FLIP) == ("bfloat16", True)
    assert len(low(saved.paths[0])) > 0
    assert capfd.readouterr() == ("", "")
    with pytest.raises(
        ConfigError, match="engine is 'torsh'; it may be torch, onnxruntime, openvino; did you mean 'torch'"
    ):
        detection.load(saved.file, engine="torsh")
    with pytest.raises(ConfigError, match="TEST.PRECISION is 'float8'"):
        detection.load(saved.file, "cpu", precision="float8")
    with pytest.raises(WeightsError, match="detector.onnx: no such file"):
        detection.load("detector.onnx")
    with pytest.raises(WeightsError, match=r"photos: a folder without model_best\.pth"):
        detection.load(saved.folder / "photos")
    with pytest.raises(WeightsError, match="no such weights file"):
        detection.load("nowhere.pth")


def test_bands_come_as_they_are(saved):
    config = settings_of("fpn", INPUT__FORMAT="bands", MODEL__PIXEL_MEAN=[0.0, 0, 0, 0], MODEL__PIXEL_STD=[1.0] * 4)
    config.defrost()
    config.INPUT.MIN_SIZE_TEST = 64
    config.freeze()
    found = detection.inference.detector.Detector(detector(config), config, CLASSES, IDS)
    image = np.random.default_rng(0).normal(size=(64, 80, 4))
    result = found(image)
    assert np.array_equal(result.scores, found.detect(image.astype(np.float32)).scores.numpy())
    assert same_scores(found(torch.from_numpy(image).permute(2, 0, 1)), result)
    assert result.draw().size == (80, 64)
    with pytest.raises(DataError, match="takes images of 4 bands"):
        found(image[:, :, :3])


def same_scores(found, expected) -> bool:
    return np.array_equal(found.scores, expected.scores)
