"""Whole networks as ONNX and OpenVINO files: run there, compared, tested and predicted with like checkpoints."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from test_segmentation_networks import config_of, randomised

from backbone.common.errors import ConfigError, ExportError, WeightsError
from backbone.engine.defaults import preprocessing_of
from backbone.engine.kinds import task_of
from backbone.exporting import load_exported
from backbone.segmentation.export import export_segmenter
from backbone.segmentation.exported import fit_exported, open_exported
from backbone.segmentation.inference import inference_of, predict, prepared
from backbone.segmentation.networks import build
from backbone.segmentation.segmenter import Segmenter, load_segmenter

CLASSES = ["background", "a", "b"]
BANDS = {"INPUT__FORMAT": "bands", "MODEL__PIXEL_MEAN": [50.0] * 4, "MODEL__PIXEL_STD": [60.0] * 4}
THEIRS = {"MODEL__HEAD__STYLE": "mmsegmentation", "MODEL__STEM": "deep", "MODEL__HEAD__ALIGN_CORNERS": True}


def segmenter_of(**keys) -> Segmenter:
    config = config_of(MODEL__NAME="resnet18", MODEL__HEAD__AUX_WEIGHT=0.0, **keys)
    torch.manual_seed(0)
    network = randomised(build(config, len(CLASSES)))
    prepare = partial(prepared, preprocessing=preprocessing_of(config), config=config)
    noise = torch.randint(256, (1, len(config.MODEL.PIXEL_MEAN), 64, 64)).float()
    with torch.no_grad():
        # No class has the largest score everywhere.
        last = getattr(network.classifier, "conv_seg", None) or network.classifier[-1]
        last.bias -= network(prepare(noise))["out"].mean((0, 2, 3))
    return Segmenter(network, config, CLASSES, inference_of(config, prepare), [])


@pytest.mark.parametrize(
    ("suffix", "dynamic", "keys"),
    [
        (".onnx", True, {"INPUT__FORMAT": "BGR"}),
        pytest.param(".xml", True, {"MODEL__HEAD__NAME": "pspnet", **THEIRS}, marks=pytest.mark.slow),
        pytest.param(".onnx", False, {"MODEL__HEAD__NAME": "deeplabv3", **BANDS}, marks=pytest.mark.slow),
    ],
)
def test_a_file_gives_what_the_network_gives(suffix, dynamic, keys, tmp_path):
    pytest.importorskip("onnxruntime" if suffix == ".onnx" else "openvino")
    path = tmp_path / f"net{suffix}"
    segmenter, report = exported_to(path, dynamic=dynamic, **keys)
    assert len(report.differences) == 1 + dynamic and max(report.differences.values()) < 1e-4
    assert list(report.files)[0] == path and {file.parent for file in report.files} == {tmp_path}
    exported = open_exported(path)
    config = fit_exported(config_of(), exported)
    for key in ("NAME", "HEAD", "PIXEL_MEAN", "OUTPUT_STRIDE"):
        assert key == "HEAD" or config.MODEL[key] == segmenter.config.MODEL[key]
    assert (exported.classes, config.INPUT.FORMAT) == (CLASSES, segmenter.config.INPUT.FORMAT)
    channels = len(config.MODEL.PIXEL_MEAN)
    size = (70, 61) if dynamic else (48, 64)
    image = np.random.default_rng(0).integers(0, 256, (*size, channels), dtype=np.uint8)
    image = image.astype(np.float32) if channels == 4 else image
    expected = predict(segmenter.network, image, segmenter.how)
    found = predict(exported.network, image, inference_of(config, lambda pixels: pixels))
    assert len(expected.unique()) > 1 and (found == expected).float().mean() > 0.999
    # As everybody runs it, without this project.
    scores = load_exported(path)(torch.from_numpy(image).permute(2, 0, 1)[None].contiguous())["scores"]
    assert scores.shape == (1, 3, *size) and torch.equal(scores[0].argmax(0), found)
    assert task_of(path) == "segmentation"

    if dynamic and suffix == ".onnx":
        takes_the_place_of_a_checkpoint(segmenter, path)


def exported_to(path, *, dynamic: bool, **keys):
    segmenter = segmenter_of(**keys)
    return segmenter, export_segmenter(segmenter, path, input_size=(48, 64), dynamic=dynamic)


def takes_the_place_of_a_checkpoint(segmenter, path):
    loaded = load_segmenter(path, overrides=["TEST.FLIP", "True", "TEST.WINDOW", 40])
    image = np.random.default_rng(1).integers(0, 256, (60, 50, 3), dtype=np.uint8)
    own = segmenter.config.clone()
    own.TEST.FLIP, own.TEST.WINDOW = True, 40
    expected = predict(segmenter.network, image, inference_of(own, segmenter.how.prepare))
    assert (loaded(image) == expected.numpy()).mean() > 0.999
    with pytest.raises(ExportError, match="an exported file is no source"):
        export_segmenter(loaded, path.with_name("again.onnx"))
    with pytest.raises(WeightsError, match="net.onnx: takes images of None.*x3x"):
        loaded.network.shape = [None, 3, 32, 32]
        loaded(image)
    loaded.network.shape = [None] * 4
    with pytest.raises(WeightsError, match="net.onnx: cannot be run on images of 1x5x9x9, torch.float32: "):
        loaded.network(torch.zeros(1, 5, 9, 9))
    with pytest.raises(ConfigError, match="TEST.WINDOW"):
        load_segmenter(path, overrides=["TEST.WINDOW", -1])


def test_what_cannot_be_written_leaves_nothing(tmp_path):
    segmenter = segmenter_of()
    with pytest.raises(ExportError, match="net.pt2: a segmentation network is written as .onnx or .xml"):
        export_segmenter(segmenter, tmp_path / "net.pt2")
    with pytest.raises(ExportError, match="input_size must be"):
        export_segmenter(segmenter, tmp_path / "b.onnx", input_size=(0, 5))
    assert not list(tmp_path.iterdir())


def test_a_file_of_something_else_is_named(tmp_path):
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    value = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Identity", ["x"], ["y"])],
        "g",
        [value],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1])],
    )
    opset = [onnx.helper.make_opsetid("", 17)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opset, ir_version=8), str(tmp_path / "other.onnx"))
    with pytest.raises(WeightsError, match="other.onnx: no segmentation network that tools/"):
        open_exported(tmp_path / "other.onnx")
    assert task_of(tmp_path / "other.onnx") == "detection"
