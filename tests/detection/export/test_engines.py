"""Exported files stand where a checkpoint would: the same objects from each engine, and clear lines where not."""

from __future__ import annotations

import copy
import json
import re
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import onnx
import pytest
import torch

import detection
from backbone import ConfigError, DataError, ExportError, RunError, WeightsError

detection.register()

from detectron2.layers import paste_masks_in_image  # noqa: E402
from small_detectors import photo, save_detector  # noqa: E402

from detection.evaluation import evaluate_coco  # noqa: E402
from detection.export import detector as module  # noqa: E402
from detection.export import export_detector  # noqa: E402
from detection.export import formats as compared  # noqa: E402
from detection.export import pasting as mask_pasting  # noqa: E402
from detection.export.graph import DetectorGraph  # noqa: E402
from detection.export.int8 import calibration_images  # noqa: E402
from detection.inference.predict import predict  # noqa: E402
from detection.inference.transform import TestTransform  # noqa: E402

SMALL = ["INPUT.MIN_SIZE_TEST", 96, "INPUT.MAX_SIZE_TEST", 160]


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> SimpleNamespace:
    """A small Mask R-CNN as checkpoint and as ONNX, and images of two sizes."""
    folder = tmp_path_factory.mktemp("files")
    checkpoint = save_detector(folder / "model.pth", ["cat", "dog", "owl"], [17, 18, 90])
    loaded = detection.load(checkpoint, "cpu", overrides=SMALL)
    (folder / "photos").mkdir()
    images = []
    for seed, size in enumerate(((90, 120), (120, 90))):
        images.append(folder / "photos" / f"{seed}.png")
        cv2.imwrite(str(images[-1]), photo(*size, seed))
    report = export_detector(loaded, folder / "d.onnx", images)
    return SimpleNamespace(folder=folder, torch=loaded, onnx=folder / "d.onnx", images=images, report=report)


def same(found, expected) -> bool:
    return (
        len(found) == len(expected) > 0
        and np.array_equal(found.labels, expected.labels)
        and np.abs(found.scores - expected.scores).max() < 1e-4
        and np.abs(found.boxes - expected.boxes).max() < 1e-2
        and (found.masks != expected.masks).mean() < 1e-3
    )


@pytest.mark.parametrize("engine", [None, "onnxruntime", "openvino"])
def test_each_engine_finds_the_same(files, engine):
    found = detection.load(files.onnx, engine=engine)
    assert (found.classes, found.category_ids) == (files.torch.classes, files.torch.category_ids)
    for one, expected in zip(found(files.images), files.torch(files.images)):
        assert same(one, expected)
        assert one.class_names == expected.class_names
        assert [r["category_id"] for r in one.to_coco()] == [r["category_id"] for r in expected.to_coco()]


def test_a_float16_file_finds_nearly_the_same(files, tmp_path):
    report = export_detector(
        files.torch, tmp_path / "half.onnx", files.images[:1], precision="float16", uint8=True, paste_masks=True
    )
    assert max(value for one in report.compared.values() for value in one.raw.values()) < 1e-2
    assert report.size < 0.6 * files.report.size and {file.name for file in tmp_path.iterdir()} == {"half.onnx"}
    found, expected = detection.load(tmp_path / "half.onnx")(files.images[0]), files.torch(files.images[0])
    assert abs(len(found) - len(expected)) <= 2 and found.masks.shape[1:] == found.size
    # Convolutions read float16; what gives coordinates reads and returns float32.
    graph = onnx.shape_inference.infer_shapes(onnx.load(str(tmp_path / "half.onnx"))).graph
    types = {value.name: value.type.tensor_type.elem_type for value in (*graph.value_info, *graph.output, *graph.input)}
    half = {weight.name for weight in graph.initializer if weight.data_type == onnx.TensorProto.FLOAT16}
    halves = {node.name for node in graph.node if half & set(node.input[1:2])}
    heavy = [node for node in graph.node if node.op_type in ("Conv", "Gemm", "ConvTranspose")]
    assert {node.name for node in heavy if "predictor" not in node.name} == {n.name for n in heavy if n.name in halves}
    for node in graph.node:
        if node.op_type in ("RoiAlign", "NonMaxSuppression", "TopK", "Exp", "Sigmoid", "Softmax"):
            assert types[node.input[0]] in (onnx.TensorProto.FLOAT, onnx.TensorProto.INT64), node.name
    assert [types[name] for name in ("image", "boxes", "scores", "masks")] == [
        getattr(onnx.TensorProto, name) for name in ("UINT8", "FLOAT", "FLOAT", "BOOL")
    ]


def test_masks_are_pasted_as_detectron2_does_it(files, tmp_path):
    report = export_detector(files.torch, tmp_path / "ir.xml", files.images[:1], paste_masks=True, batches=True)
    assert report.size < 1.2 * files.report.size and {file.name for file in tmp_path.iterdir()} == {"ir.xml", "ir.bin"}
    loaded, runs = detection.load(tmp_path / "ir.xml"), []
    run = loaded.model.run
    loaded.model.run = lambda inputs: runs.append((len(inputs["image"]), inputs["paste_size"].tolist())) or run(inputs)
    # Resized they have one size, as files they have two.
    small = cv2.imread(str(files.images[0]))
    for images in ([small, cv2.resize(small, None, fx=2, fy=2)], [small, small[:, ::-1]]):
        for one, expected, image in zip(loaded(images), files.torch(images), images):
            assert one.masks.dtype == bool and one.masks.shape[1:] == image.shape[:2] and one.masks.any()
            assert same(one, expected)
    assert runs == [(1, [90, 120]), (1, [180, 240]), (2, [90, 120])]
    # By its names alone.
    image = TestTransform(files.torch.config)(small)["image"]
    with torch.no_grad():
        expected = files.torch.model([{"image": image, "height": 75, "width": 50}])[0]["instances"]
    values = run({"image": image[None].float().numpy(), "paste_size": np.array([75, 50])})
    assert np.abs(values["boxes"] - expected.pred_boxes.tensor.numpy()).max() < 1e-2
    assert (values["masks"] != expected.pred_masks.numpy()).mean() < 1e-3


def test_pasting_gives_what_detectron2_does():
    random = torch.Generator().manual_seed(0)
    corners = torch.rand((40, 2, 2), generator=random) * torch.tensor([150.0, 90.0]) - 10
    boxes = torch.cat([corners.min(1).values, corners.max(1).values + 0.5], dim=1)
    masks = torch.randn((40, 1, 28, 28), generator=random).sigmoid()
    found = mask_pasting.pasted(masks, boxes, torch.tensor([80, 140]))
    expected = paste_masks_in_image(masks[:, 0], boxes, (80, 140))
    assert found.dtype == expected.dtype == torch.bool and (found != expected).sum() <= 2
    assert mask_pasting.pasted(masks[:0], boxes[:0], torch.tensor([80, 140])).shape == (0, 80, 140)


def shift_mean(model) -> None:
    model.pixel_mean += 1


def change_a_filter(model) -> None:
    model.backbone.bottom_up.layer2[0].conv1.weight[3] *= 1.5


def swap_two_classes(model) -> None:
    weight = model.roi_heads.box_predictor.cls_score.weight
    weight[[0, 1]] = weight[[1, 0]].clone()


@pytest.mark.parametrize(
    "fault", [shift_mean, *(pytest.param(f, marks=pytest.mark.slow) for f in (change_a_filter, swap_two_classes))]
)
def test_a_file_with_a_fault_is_refused(files, fault, tmp_path, monkeypatch):
    # The file, which has the fault, against the sound detector. Detections are left aside: raw outputs show it.
    faulty = copy.deepcopy(files.torch.model)
    with torch.no_grad():
        fault(faulty)
    monkeypatch.setattr(module, "DetectorGraph", lambda model, *rest: DetectorGraph(faulty, *rest))
    monkeypatch.setattr(module, "check_share", lambda *given: 1.0)
    with pytest.raises(
        ExportError, match=r"differs from the detector in (anchor|region)_scores by .* nothing was kept"
    ):
        export_detector(files.torch, tmp_path / "d.onnx", files.images[:1])
    assert not list(tmp_path.iterdir())


def test_the_code_in_the_docs_runs(files, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = (Path(__file__).resolve().parents[3] / "docs" / "export.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```python\n(.*?)```", text.split("## Whole detectors")[1], flags=re.DOTALL)
    shutil.copy(files.onnx, "detector.onnx")
    shutil.copy(files.images[0], "street.jpg")
    space: dict = {}
    exec(block.replace('detector = detection.load("detector.xml")\n', ""), space)
    assert same(space["result"], files.torch(files.images[0]))


def test_what_a_file_cannot_do_is_said(files, tmp_path):
    with pytest.raises(ConfigError, match=r"engine is 'onxruntime'.*did you mean 'onnxruntime'"):
        detection.load(files.onnx, engine="onxruntime")
    with pytest.raises(ConfigError, match=r"d.onnx: runs in onnxruntime or openvino, not in torch"):
        detection.load(files.onnx, engine="torch")
    with pytest.raises(ConfigError, match=r"model.pth: runs in torch, not in openvino; tools/export_detector.py"):
        detection.load(files.folder / "model.pth", engine="openvino")
    with pytest.raises(ConfigError, match="onnxruntime computes in float32 alone, not in 'bfloat16'"):
        detection.load(files.onnx, precision="bfloat16")
    with pytest.raises(RunError, match="runs on the CPU here, not on cuda"):
        detection.load(files.onnx, "cuda")
    with pytest.raises(ConfigError, match="TEST.FLIP is fixed in an exported file"):
        detection.load(files.onnx, overrides=["TEST.FLIP", True])
    smaller = detection.load(files.onnx, overrides=["INPUT.MIN_SIZE_TEST", 64])
    assert smaller.config.INPUT.MIN_SIZE_TEST == 64
    with pytest.raises(WeightsError, match="nowhere.onnx: no such file"):
        detection.load(tmp_path / "nowhere.onnx")
    with pytest.raises(ExportError, match="stored in float32, float16, int8, not in 'int4'"):
        export_detector(files.torch, tmp_path / "d.onnx", precision="int4")
    for wrong in ({"precision": "int8"}, {"calibration": files.images}):
        with pytest.raises(ExportError, match="precision int8 and --calibrate, .* belong together"):
            export_detector(files.torch, tmp_path / "d.onnx", **wrong)
    with pytest.raises(DataError, match="--calibrate '/nowhere': no such image"):
        calibration_images("/nowhere", tmp_path)
    (tmp_path / "broken.onnx").write_bytes(b"not a graph")
    for engine in ("onnxruntime", "openvino"):
        with pytest.raises(ExportError, match="broken.onnx: .* does not take it"):
            detection.load(tmp_path / "broken.onnx", engine=engine)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (None, "does not say what it detects"),
        ({"config": None}, "does not say what it detects"),
        ({"input": []}, "does not say what it detects"),
        ({"paste_size": []}, "does not say which image its masks are in"),
        ({"classes": [1, 2, 3]}, "names no classes"),
        ({"classes": ["cat"]}, "names 1 classes, its config has 3"),
        ({"config": "MODEL: {WEIGHTS: !!python/object/apply:os.getcwd []}"}, "its config"),
    ],
)
def test_metadata_of_any_kind_is_checked(files, tmp_path, change, said):
    model = onnx.load(str(files.onnx))
    (entry,) = model.metadata_props
    entry.value = "[]" if change is None else json.dumps({**json.loads(entry.value), **change})
    onnx.save(model, str(tmp_path / "d.onnx"))
    with pytest.raises((WeightsError, ConfigError), match=said):
        detection.load(tmp_path / "d.onnx")


def test_the_file_holds_no_path_of_the_machine(files):
    config = json.loads(onnx.load(str(files.onnx)).metadata_props[0].value)["config"]
    assert str(files.folder) not in config and "CUSTOM" in config


def test_predict_takes_a_file(files, tmp_path):
    for name, model in (("file", detection.load(files.onnx)), ("torch", files.torch)):
        predict(model, str(files.folder / "photos"), tmp_path / name, least_score=0.5)
    found, expected = (json.loads((tmp_path / name / "predictions.json").read_text()) for name in ("file", "torch"))
    assert len(found) == len(expected) > 0
    for one, other in zip(found, expected):
        assert (one["image_id"], one["category_id"]) == (other["image_id"], other["category_id"])
        assert np.allclose(one["bbox"], other["bbox"], atol=0.02)


@pytest.fixture(scope="module")
def truth(files) -> Path:
    """What the checkpoint finds, as ground truth with masks: AP 1 for itself."""
    annotations, images = [], []
    for number, path in enumerate(files.images, 1):
        found = files.torch(path)
        records = found[:4].to_coco(number)
        annotations += [
            {**r, "id": len(annotations) + i, "iscrowd": 0, "area": 500.0} for i, r in enumerate(records, 1)
        ]
        images.append({"id": number, "file_name": path.name, "height": found.size[0], "width": found.size[1]})
    categories = [{"id": id_, "name": name} for id_, name in zip((17, 18, 90), ("cat", "dog", "owl"))]
    path = files.folder / "truth.json"
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return path


def call(tool, monkeypatch, *arguments) -> None:
    monkeypatch.setattr(sys, "argv", [tool.__name__, *map(str, arguments)])
    tool.main()


def test_ap_of_a_file_is_one_command(files, truth, tmp_path, monkeypatch, capsys):
    from tools import evaluate

    given = ("--gt", truth, "--images", files.folder / "photos", "--iou-type", "bbox,segm")
    figures = {}
    for name, model, engine in (("torch", "model.pth", "auto"), ("file", "d.onnx", "openvino")):
        out = tmp_path / f"{name}.json"
        model = ("--model", files.folder / model, "--engine", engine)
        call(evaluate, monkeypatch, *given, *model, "--json", out, "TEST.BATCH_SIZE", 2)
        figures[name] = json.loads(out.read_text())
    assert f"bbox: {files.onnx} on {truth}" in capsys.readouterr().out
    predict(files.torch, str(files.folder / "photos"), tmp_path / "p", least_score=0.5, ids=truth)
    for kind in ("bbox", "segm"):
        expected = evaluate_coco(truth, tmp_path / "p" / "predictions.json", kind).to_json()[kind]["AP"]
        assert figures["torch"][kind]["AP"] == pytest.approx(expected, abs=1e-6) and expected > 0.5
        assert figures["file"][kind]["AP"] == pytest.approx(expected, abs=0.01)
    for wrong, said in (
        (("--gt", truth), "either --predictions FILE or --model FILE"),
        (("--gt", truth, "--predictions", "b.json", "TEST.BATCH_SIZE", 2), "TEST.BATCH_SIZE belongs to label images"),
        (("--gt", truth, "--model", "a.onnx", "--predictions", "b.json"), "either --predictions FILE or --model FILE"),
        (("--voc-root", "VOC2012", "--split", "val", "--model", "a.onnx"), "--model belongs to --gt"),
    ):
        with pytest.raises(SystemExit, match="2"):
            call(evaluate, monkeypatch, *wrong)
        assert said in capsys.readouterr().err


def test_formats_are_compared_in_one_table(files, truth, tmp_path, monkeypatch, capsys):
    from tools import formats

    def export(detector, path, **options):
        if path.suffix == ".xml":
            raise ExportError("of no use")
        shutil.copy(files.onnx, path)

    monkeypatch.setattr(compared, "FORMS", [compared.FORMS[index] for index in (0, 2, 5)])
    monkeypatch.setattr(compared, "export_detector", export)
    # Of another detector, from an earlier call.
    (tmp_path / "detector.onnx").write_bytes(b"old")
    arguments = ("--weights", files.folder / "model.pth", "--gt", truth, "--images", files.folder / "photos")
    call(formats, monkeypatch, *arguments, "--output", tmp_path, "--json", tmp_path / "t.json")
    rows = json.loads((tmp_path / "t.json").read_text())
    assert [(row["file"], row["engine"]) for row in rows] == [
        ("model.pth", "torch"),
        ("detector.onnx", "onnxruntime"),
        ("detector.xml", "openvino"),
    ]
    assert rows[0]["to_torch"] == 0 and abs(rows[1]["to_torch"]) < 0.01 and rows[0]["AP"] > 0.5
    assert rows[1]["megabytes"] == (tmp_path / "detector.onnx").stat().st_size / 1e6 and rows[1]["milliseconds"] > 0
    shown = capsys.readouterr().out
    assert "| detector.onnx" in shown and "detector.xml in openvino, float32: of no use" in shown
    # Of another data set: refused before anything is written.
    other = {**json.loads(truth.read_text()), "annotations": [], "categories": [{"id": 1, "name": "cup"}]}
    (tmp_path / "cups.json").write_text(json.dumps(other))
    arguments = ("--weights", files.folder / "model.pth", "--gt", tmp_path / "cups.json", *arguments[4:])
    with pytest.raises(DataError, match="has no category of the detector's 3 classes cat, dog, owl"):
        call(formats, monkeypatch, *arguments, "--output", tmp_path / "new")
    assert not (tmp_path / "new").exists()
