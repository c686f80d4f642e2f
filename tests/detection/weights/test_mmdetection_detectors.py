"""Detectors of MMDetection here, and ours there, against MMDetection's own models; tools/install_mmdetection.py."""

from __future__ import annotations

import copy
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from detectron2.data.datasets.builtin_meta import COCO_CATEGORIES
from randomize import randomize
from torch import nn

import detection
from backbone.common.images import read_image
from detection.config import default_config
from detection.export.mmdetection_file import write_mmdetection
from detection.inference.detector import Detector, load_trained_detector
from detection.inference.transform import TestTransform
from detection.weights.load import open_starting_weights

pytest.importorskip("mmdet")

KINDS = {
    "faster fpn pytorch": "faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py",
    "mask fpn caffe": "mask_rcnn/mask-rcnn_r50-caffe_fpn_1x_coco.py",
    "retinanet": "retinanet/retinanet_r18_fpn_1x_coco.py",
    "faster c4": "faster_rcnn/faster-rcnn_r50-caffe_c4-1x_coco.py",
    "mask c4": "mask_rcnn/mask-rcnn_r50-caffe-c4_1x_coco.py",
}
SIDE = 128
CLASSES = tuple(entry["name"] for entry in COCO_CATEGORIES if entry["isthing"])


@pytest.fixture(scope="module", autouse=True)
def registered():
    detection.register()


def their_config(name: str) -> Any:
    import mmdet
    from mmengine.config import Config
    from mmengine.registry import init_default_scope

    warnings.filterwarnings("ignore", module="mmengine|mmcv|mmdet")
    init_default_scope("mmdet")
    config = Config.fromfile(str(Path(mmdet.__file__).parent / ".mim" / "configs" / name))
    config.model.backbone.init_cfg = None
    if name == KINDS["faster fpn pytorch"]:
        config.model.backbone.depth, config.model.neck.in_channels = 18, [64, 128, 256, 512]
    config.test_pipeline[1].scale = (2 * SIDE, SIDE)
    tests = config.model.test_cfg
    if "rpn" in tests:
        tests.rpn.max_per_img = 20
        tests.rcnn.score_thr = 0.03
        config.model.rpn_head.feat_channels = 32
        config.model.roi_head.bbox_head.fc_out_channels = 64
        if "shared_head" in config.model.roi_head:
            config.model.roi_head.shared_head.init_cfg = None
            del config.model.roi_head.bbox_head.fc_out_channels
    return config


def build_theirs(config: Any) -> nn.Module:
    from mmdet.registry import MODELS

    return MODELS.build(copy.deepcopy(config.model)).eval()


def sample_of(image: torch.Tensor, size: tuple[int, int]) -> Any:
    """MMDetection's record of an image (3, H, W) that was resized from `size`, height and width."""
    from mmdet.structures import DetDataSample

    height, width = image.shape[-2:]
    sample = DetDataSample()
    factor = (width / size[1], height / size[0])
    sample.set_metainfo({"img_shape": (height, width), "ori_shape": size, "scale_factor": factor, "img_id": 0})
    return sample


@torch.no_grad()
def their_detections(model: nn.Module, image: torch.Tensor, size: tuple[int, int]) -> Any:
    """Detections in the original image of a resized BGR image (3, H, W) uint8."""
    data = model.data_preprocessor({"inputs": [image], "data_samples": [sample_of(image, size)]}, False)
    return model.predict(data["inputs"], data["data_samples"], rescale=True)[0].pred_instances


@torch.no_grad()
def spread(model: nn.Module, image: torch.Tensor) -> None:
    """Scale the last layers to what they see, so that boxes move by some pixels, and scores differ."""
    generator = torch.Generator().manual_seed(1)
    if hasattr(model, "rpn_head"):
        head = model.roi_head.bbox_head
        layers = [(model.rpn_head.rpn_cls, 2.0), (model.rpn_head.rpn_reg, 0.1), (head.fc_cls, 3.0), (head.fc_reg, 0.5)]
    else:
        layers = [(model.bbox_head.retina_cls, 1.5), (model.bbox_head.retina_reg, 0.1)]
    for layer, size in layers:
        # Sigmoids of RetinaNet's scores: most are near 0.
        away = 5.0 if size == 1.5 else 0.0
        seen: list[torch.Tensor] = []
        hook = layer.register_forward_pre_hook(lambda _, inputs, seen=seen: seen.append(inputs[0]))
        their_detections(model, image, tuple(image.shape[-2:]))
        hook.remove()
        values = torch.randn(layer.weight.shape, generator=generator)
        columns = torch.cat([value.transpose(0, 1).flatten(1).T for value in seen])
        layer.weight.copy_(values * size / columns.std(0).mean() / layer.weight[0].numel() ** 0.5)
        drawn = torch.randn(layer.bias.shape, generator=generator) * 0.1
        total = layer.weight.flatten(2).sum(2) if layer.weight.ndim > 2 else layer.weight
        layer.bias.copy_(drawn - away - total @ columns.mean(0))


# Those that add the least to what the others prove.
SLOW = ("faster fpn pytorch", "mask c4")


@pytest.fixture(params=[pytest.param(kind, marks=[pytest.mark.slow] * (kind in SLOW)) for kind in KINDS])
def trained(request, tmp_path, shared_data) -> tuple[Any, nn.Module, Path, Any]:
    """Config and model of MMDetection with random weights, its file, and a real image."""
    config = their_config(KINDS[request.param])
    torch.manual_seed(0)
    model = build_theirs(config)
    randomize(model.backbone)
    if getattr(getattr(model, "roi_head", None), "with_shared_head", False):
        randomize(model.roi_head.shared_head)
    image = read_image(sorted((shared_data / "coco" / "val2017").glob("*.jpg"))[0])
    spread(model, torch.from_numpy(image[::4, ::4].copy()).permute(2, 0, 1))
    path = tmp_path / "epoch_12.pth"
    meta = {"cfg": config.pretty_text, "dataset_meta": {"classes": CLASSES}}
    torch.save({"state_dict": model.state_dict(), "meta": meta}, path)
    return config, model, path, image


def check_same(found: Any, expected: Any) -> None:
    assert len(found) == len(expected.bboxes) > 20
    assert torch.equal(found.pred_classes, expected.labels)
    assert (found.pred_boxes.tensor - expected.bboxes).abs().max() < 0.01
    assert (found.scores - expected.scores).abs().max() < 1e-4
    if "masks" in expected:
        assert (found.pred_masks != expected.masks).float().mean() < 1e-5


def our_detections(detector: Detector, image: torch.Tensor, size: tuple[int, int]) -> Any:
    """Detections of a resized BGR image (3, H, W)."""
    planes = image if detector.config.INPUT.FORMAT == "BGR" else image.flip(0)
    with torch.no_grad():
        return detector.tested([{"image": planes.float(), "height": size[0], "width": size[1]}])[0]["instances"]


def resized(image: Any) -> torch.Tensor:
    """The image as MMDetection's own pipeline resizes it, (3, H, W)."""
    from mmcv.transforms import Resize

    done = Resize(scale=(2 * SIDE, SIDE), keep_ratio=True)({"img": image})["img"]
    return torch.from_numpy(done).permute(2, 0, 1).contiguous()


@pytest.mark.proves(
    "mmdet",
    "Faster, Mask R-CNN, RetinaNet",
    "in, out",
    "detections of MMDetection's own models, which load our file strictly",
)
def test_in_and_out_again(trained, tmp_path):
    """Both find the same on a real image; and MMDetection's own model, of the config and the file that are written."""
    from mmengine.config import Config

    _, model, path, image = trained
    detector = load_trained_detector(path, "cpu")
    assert (detector.classes[0], detector.classes[79], detector.category_ids[79]) == ("person", "toothbrush", 90)
    small, size = resized(image), image.shape[:2]
    expected = their_detections(model, small, size)
    check_same(our_detections(detector, small, size), expected)

    write_mmdetection(detector, tmp_path / "mine.pth")
    config = Config.fromfile(str(tmp_path / "mine.py"))
    assert config.test_dataloader.dataset.pipeline[1].scale == (2 * SIDE, SIDE)
    again, content = build_theirs(config), torch.load(tmp_path / "mine.pth", weights_only=True)
    again.load_state_dict(content["state_dict"], strict=True)
    found = their_detections(again, small, size)
    assert all(torch.equal(found[name], expected[name]) for name in ("labels", "bboxes", "scores"))
    # The same tensors under the same names, counters of batches aside.
    state = model.state_dict()
    assert content["state_dict"].keys() == state.keys()
    assert all(torch.equal(state[name], value) for name, value in content["state_dict"].items() if value.ndim)
    read = open_starting_weights(str(tmp_path / "mine.pth"))
    assert (read.classes, read.category_ids) == (detector.classes, detector.category_ids)


@pytest.mark.parametrize(("height", "width"), [(90, 117), (120, 61), (427, 640), (160, 333), (50, 200)])
def test_test_images_have_the_size_of_theirs(height, width):
    """Where an image grows, the pixels too: a level off at most, where the rounding differs."""
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    config = default_config()
    config.INPUT.MIN_SIZE_TEST, config.INPUT.MAX_SIZE_TEST, config.INPUT.FORMAT = SIDE, 2 * SIDE, "BGR"
    ours, theirs = TestTransform(config)(image)["image"], resized(image)
    assert ours.shape == theirs.shape
    if theirs.shape[-1] >= width:
        assert (ours.int() - theirs.int()).abs().max() <= 1
