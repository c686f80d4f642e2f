"""Whole detectors in ONNX Runtime find what they find in torch."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
import torch
import warm_commands

import detection
from backbone import ExportError
from backbone.common.images import read_image
from detection.data.mapper import to_tensor
from detection.export import detector as module
from detection.export import export_detector
from detection.export.compare import agreement, check_share, share
from detection.export.int8 import calibration_images
from detection.inference.detector import Detector
from detection.modeling.build import build

ROOT = Path(__file__).resolve().parents[3]
SMALL = [
    *("MODEL.DEVICE", "cpu", "INPUT.MIN_SIZE_TEST", 160, "INPUT.MAX_SIZE_TEST", 240),
    *("MODEL.RPN.POST_NMS_TOPK_TEST", 60),
]
KINDS = {
    "fpn": ("mini_faster_rcnn_r18.yaml", []),
    "cascade": (
        "mini_faster_rcnn_r18.yaml",
        ["MODEL.ROI_HEADS.NAME", "CascadeROIHeads", "MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG", True],
    ),
    "c4": ("coco_faster_rcnn_r50.yaml", ["MODEL.BACKBONE.NAME", "resnet18"]),
    "mask_fpn": ("coco_mask_rcnn_r50_fpn.yaml", ["MODEL.BACKBONE.NAME", "resnet18_fpn"]),
    "context_fpn": ("mini_faster_rcnn_r18.yaml", ["MODEL.ROI_BOX_HEAD.GLOBAL_CONTEXT", True]),
    "context_c4": (
        "coco_faster_rcnn_r50.yaml",
        ["MODEL.BACKBONE.NAME", "resnet18", "MODEL.ROI_BOX_HEAD.GLOBAL_CONTEXT", True],
    ),
    "mask_c4": ("coco_faster_rcnn_r50.yaml", ["MODEL.BACKBONE.NAME", "resnet18", "MODEL.MASK_ON", True]),
}


def untrained(kind: str) -> Detector:
    """A detector whose random head spreads its scores, so that objects have an order."""
    detection.register()
    config, changes = KINDS[kind]
    torch.manual_seed(1)
    config = detection.get_config(config, [*SMALL, *changes])
    model = build(config).eval()
    with torch.no_grad():
        for name, weight in model.roi_heads.box_predictor.named_parameters():
            if name.endswith("cls_score.weight"):
                weight.mul_(3)
    classes = [f"class {index}" for index in range(config.MODEL.ROI_HEADS.NUM_CLASSES)]
    return Detector(model, config, classes, list(range(1, len(classes) + 1)))


@pytest.fixture(scope="module")
def batch_file(tmp_path_factory):
    """A detector, its file for several images, and images: three of one size and one of another."""
    random = np.random.default_rng(0)
    sizes = ((160, 200), (160, 200), (160, 120), (160, 200))
    photos = [cv2.resize(random.integers(0, 256, (6, 8, 3), dtype=np.uint8), size[::-1]) for size in sizes]
    detector, path = untrained("fpn"), tmp_path_factory.mktemp("batch") / "d.onnx"
    export_detector(detector, path, batches=True)
    return detector, path, photos


def operators(graph: onnx.GraphProto) -> set[str]:
    """Names of a graph's operators, those inside its conditions too."""
    inner = [attribute.g for node in graph.node for attribute in node.attribute if attribute.HasField("g")]
    return {node.op_type for node in graph.node}.union(*map(operators, inner))


@pytest.mark.parametrize(
    "kind",
    [pytest.param(kind, marks=pytest.mark.slow) if kind in ("mask_fpn", "mask_c4", "c4") else kind for kind in KINDS],
)
def test_finds_the_same_on_real_images(kind, shared_data, tmp_path):
    images = sorted((shared_data / "coco" / "val2017").glob("*.jpg"))[:2]
    # Both forms have one graph, so each kind goes through one of them.
    batches = kind in ("cascade", "context_fpn", "mask_fpn", "c4")
    report = export_detector(untrained(kind), tmp_path / "d.onnx", images, batches=batches)
    assert len(report.compared) == 2 and sum(found.objects for found in report.compared.values()) > 10
    assert all(found.box <= 1e-3 and found.score <= 1e-4 for found in report.compared.values())
    assert report.share >= 0.99 and all(max(found.raw.values()) < 1e-4 for found in report.compared.values())
    assert all(("masks" in found.raw) == kind.startswith("mask") for found in report.compared.values())
    assert {"anchor_scores", "anchor_deltas", "region_scores", "region_deltas"} <= set(
        report.compared[str(images[0])].raw
    )
    assert any("masks" in note for note in report.notes) == kind.startswith("mask")
    graph = onnx.load(tmp_path / "d.onnx").graph
    assert "NonMaxSuppression" in operators(graph)
    # What was compared before non-maximum suppression is not in the file.
    assert [output.name for output in graph.output] == report.metadata["outputs"]
    assert list(tmp_path.iterdir()) == [tmp_path / "d.onnx"]


def test_metadata_is_enough_to_run_it(tmp_path, shared_data):
    import onnxruntime

    from backbone.exporting.onnx_file import session_metadata

    detector = untrained("fpn")
    export_detector(detector, tmp_path / "d.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "d.onnx"))
    facts = session_metadata(session)
    image = read_image(sorted((shared_data / "coco" / "val2017").glob("*.jpg"))[7])
    shorter = facts["input"]["shorter_side"]
    scale = shorter / min(image.shape[:2])
    resized = cv2.resize(image, None, fx=scale, fy=scale)
    pixels = to_tensor(resized, facts["input"]["channel_order"]).float()
    boxes, scores, classes = session.run(facts["outputs"], {facts["input"]["name"]: pixels.numpy()})
    expected = module.of_detector(detector, pixels)
    assert len(scores) == len(expected["scores"]) > 0
    found = {"boxes": boxes, "scores": scores, "classes": classes}
    assert agreement(found, expected).first == "" and agreement(found, expected).box <= 1e-3
    assert facts["classes"] == detector.classes


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_a_batch_finds_what_its_images_do(batch_file, engine):
    detector, path, photos = batch_file
    loaded = detection.load(path, engine=engine)
    runs = []
    run = loaded.model.run
    loaded.model.run = lambda inputs: runs.append(inputs["image"].shape) or run(inputs)
    found = loaded(photos, batch_size=4)
    assert sorted(runs) == [(1, 3, 213, 160), (3, 3, 160, 200)]
    for one, alone, photo in zip(found, map(loaded, photos), photos):
        expected = detector(photo)
        assert len(one) == len(alone) == len(expected) > 0
        for name, tolerance in (("labels", 0), ("scores", 1e-4), ("boxes", 1e-2)):
            for other in (alone, expected):
                assert np.abs(getattr(one, name) - getattr(other, name)).max() <= tolerance, name


def test_images_of_a_batch_stay_apart(batch_file):
    # The brightest one would push the others' objects out, were they chosen together.
    _, path, photos = batch_file
    loaded = detection.load(path, overrides=["TEST.BATCH_SIZE", 3])
    black = np.zeros_like(photos[0])
    alone, beside = loaded([photos[0]])[0], loaded([black, photos[0], photos[1]])[1]
    assert len(alone) == len(beside) and np.abs(alone.scores - beside.scores).max() < 1e-5


def test_convolutions_of_the_network_alone_are_int8(batch_file, tmp_path):
    detector, path, photos = batch_file
    (tmp_path / "photos").mkdir()
    for number, photo in enumerate(photos):
        cv2.imwrite(str(tmp_path / "photos" / f"{number}.png"), photo)
    images = calibration_images(str(tmp_path / "photos"), tmp_path)
    report = export_detector(
        detector, tmp_path / "d.onnx", precision="int8", calibration=images, batches=True, uint8=True
    )
    assert 0 < max(value for one in report.compared.values() for value in one.raw.values()) < 0.2
    assert report.metadata["quantisation"]["calibrated_on"] == "4 images" and report.metadata["weights"] == "int8"
    assert {file.name for file in tmp_path.iterdir()} == {"d.onnx", "photos"}
    graph, plain = (onnx.load(str(path)).graph for path in (tmp_path / "d.onnx", path))
    made_by = {output: node for node in graph.node for output in node.output}
    values = {weight.name: onnx.numpy_helper.to_array(weight) for weight in graph.initializer}
    original = {weight.name: onnx.numpy_helper.to_array(weight) for weight in plain.initializer}
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    assert len(convolutions) == sum(node.op_type == "Conv" for node in plain.node) > 25
    inputs = {node.name: node.input for node in plain.node}
    for node in graph.node:
        of = [made_by.get(name) for name in node.input[:2]]
        rounded = [bool(maker and maker.op_type == "DequantizeLinear") for maker in of]
        expected = node.op_type == "Conv" and node.name.startswith("/backbone/bottom_up/")
        if node.op_type in ("Conv", "Gemm", "ConvTranspose"):
            assert rounded[1] == expected, node.name
        if expected:
            whole, scale, zero = (values[name] for name in of[1].input)
            steps = scale.reshape(-1, 1, 1, 1)
            assert not zero.any() and abs(whole).max() <= 64
            assert (abs(whole * steps - original[inputs[node.name][1]]) <= 0.51 * steps + 1e-9).all()


def objects(number: int, seed: int = 0) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    scores = np.sort(random.random(number))[::-1].astype(np.float32)
    return {"boxes": random.random((number, 4)) * 100, "scores": scores, "classes": random.integers(0, 3, number)}


@pytest.mark.parametrize(("name", "change"), [("boxes", 0.05), ("scores", 0.01), ("classes", 1), ("scores", np.nan)])
def test_a_difference_is_noticed(name, change):
    expected = objects(10)
    found = {key: value.copy() for key, value in expected.items()}
    assert agreement(found, expected).objects == agreement(found, expected).of == 10
    found[name][3] += change
    one = agreement(found, expected)
    assert (one.objects, one.of, one.missed, one.surplus) == (9, 10, 1, 1) and "is not found" in one.first
    with pytest.raises(ExportError, match="90.0% of 10 objects agree .* on here, class .* nothing was kept"):
        check_share({"here": one}, "x")


@pytest.mark.parametrize(("changed", "passes"), [(0, True), (1, True), (2, True), (3, False)])
def test_one_object_in_a_hundred_may_differ(changed, passes):
    expected = objects(200)
    found = {key: value.copy() for key, value in expected.items()}
    found["boxes"][:changed] += 30
    compared = {"here": agreement(found, expected)}
    if passes:
        assert check_share(compared, "x") == 1 - changed / 200
    else:
        with pytest.raises(ExportError, match="98.5% of 200 objects"):
            check_share(compared, "x")


def test_order_and_the_last_place_do_not_matter():
    expected = objects(10)
    found = {key: value[::-1].copy() for key, value in expected.items()}
    found["boxes"][0] += 50  # the one of the least score
    one = agreement(found, expected)
    assert (one.objects, one.of) == (9, 9)
    found = {key: value[:0] for key, value in expected.items()}
    assert share([agreement(found, expected)]) == 0 and agreement(found, found).objects == 0
    assert share([agreement(found, found)]) == 1


def test_nothing_is_kept_of_a_graph_that_differs(tmp_path, monkeypatch):
    path = tmp_path / "d.onnx"
    path.write_bytes(b"the former file")
    broken = lambda *_: objects(5)  # noqa: E731
    monkeypatch.setattr(module, "of_detector", broken)
    with pytest.raises(ExportError, match="d.onnx in onnxruntime: 0.0% of"):
        export_detector(untrained("fpn"), path)
    assert path.read_bytes() == b"the former file" and list(tmp_path.iterdir()) == [path]


def test_other_formats_are_refused(tmp_path):
    with pytest.raises(ExportError, match="written as .onnx or .xml"):
        export_detector(untrained("fpn"), tmp_path / "d.pt2")
    with pytest.raises(ExportError, match="d.onnx: the detector has no masks; leave --paste-masks out"):
        export_detector(untrained("fpn"), tmp_path / "d.onnx", paste_masks=True)


def test_command_line(tmp_path):
    detector = untrained("fpn")
    from backbone.engine.config import dump

    torch.save(
        {
            "model": detector.model.state_dict(),
            "config": dump(detector.config),
            "metadata": {"classes": detector.classes, "category_ids": detector.category_ids},
        },
        tmp_path / "model.pth",
    )
    command = [sys.executable, ROOT / "tools" / "export_detector.py", "--weights", tmp_path / "model.pth"]
    done = warm_commands.run([*command, "--output", tmp_path / "d.onnx", "--json", tmp_path / "r.json"])
    assert done.returncode == 0, done.stderr
    assert "compared with the detector" in done.stdout and "Warning" not in done.stderr
    assert json.loads((tmp_path / "r.json").read_text())["metadata"]["outputs"] == ["boxes", "scores", "classes"]
    done = warm_commands.run([*command, "--output", tmp_path / "d.pt2"])
    assert done.returncode == 2 and "written as .onnx or .xml" in done.stderr
