"""The config that a checkpoint of OpenMMLab carries: its preprocessing, strides and dilations."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import backbone
from backbone.common.preprocessing import MSRA, Preprocessing
from backbone.weights import WeightMetadata, open_weights

# Written after the documentation of MMEngine's and MMCV's configs.
CAFFE = """
auto_scale_lr = dict(base_batch_size=16, enable=False)
model = dict(
    backbone=dict(depth=50, norm_cfg=dict(requires_grad=False, type='BN'), style='caffe', type='ResNet'),
    data_preprocessor=dict(
        bgr_to_rgb=False, mean=[103.53, 116.28, 123.675], std=[1.0, 1.0, 1.0], type='DetDataPreprocessor'),
    type='FasterRCNN')
"""
DC5 = """
norm = dict(type='SyncBN', requires_grad=True)
model = dict(type='FasterRCNN', backbone=dict(type='ResNetV1d', depth=101, norm_cfg=norm, strides=(1, 2, 2, 1),
    dilations=(1, 1, 1, 2), style='pytorch'), rpn_head=dict(anchor=-1, scale=__import__('os').getcwd()))
img_norm_cfg = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True)
train_pipeline = [dict(type='LoadImageFromFile'), dict(type='Normalize', **img_norm_cfg)]
"""
CLASSIFIER = """
data_preprocessor = dict(num_classes=1000, mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True)
model = dict(type='ImageClassifier', backbone=dict(type='ResNet', depth=18, style='pytorch'))
"""
PIPELINE = """
test_pipeline = [dict(type='Normalize', mean=[103.53, 116.28, 123.675], std=[1.0, 1.0, 1.0], to_rgb=False)]
"""
RGB = Preprocessing("RGB", 255, (123.675, 116.28, 103.53), (58.395, 57.12, 57.375))


def checkpoint(path: Path, meta: object, prefix: str = "backbone.") -> Path:
    network = backbone.create("resnet50", out_features=("res2",), norm="bn")
    state = {prefix + name: value for name, value in network.state_dict().items()}
    torch.save({"meta": meta, "state_dict": state}, path)
    return path


@pytest.mark.parametrize(
    ("meta", "expected"),
    [
        ({"cfg": CAFFE, "epoch": 12}, {"preprocessing": MSRA, "stride_in_1x1": True, "average_down": False}),
        ({"config": PIPELINE}, {"preprocessing": MSRA}),
        (
            {"cfg": DC5},
            {
                "preprocessing": RGB,
                "stride_in_1x1": False,
                "average_down": True,
                "output_stride": 16,
                "dilation_style": "mmdetection",
            },
        ),
        ({"cfg": CLASSIFIER}, {"preprocessing": RGB, "average_down": False}),
        # What is no config, or no ResNet's, says nothing.
        ({"cfg": "model = dict(backbone=dict(type='SwinTransformer'))"}, {}),
        ({"cfg": "model = dict(data_preprocessor=dict(mean=[1, 2], std=[0, 0, 0]))"}, {}),
        ({"cfg": "model = ("}, {}),
        ({"cfg": "model = " + "(" * 5000}, {}),
        ({"cfg": "x = " + "-" * 100_000 + "1"}, {}),
        ({"cfg": "model = dict(**open('/etc/passwd'))"}, {}),
        ({"cfg": ["model"]}, {}),
        ([], {}),
    ],
)
def test_the_config_is_read(meta, expected, tmp_path):
    weights = open_weights(checkpoint(tmp_path / "a.pth", meta))
    usual = open_weights(checkpoint(tmp_path / "b.pth", None)).weight_metadata
    known = {name: getattr(weights.weight_metadata, name) for name in expected}
    assert known == expected
    assert ("preprocessing" in expected) != weights.weight_metadata.preprocessing.assumed
    assert weights.weight_metadata == usual.updated(WeightMetadata(**expected))


def test_a_caffe_checkpoint_is_held_against_the_network(tmp_path):
    path = checkpoint(tmp_path / "a.pth", {"cfg": CAFFE})
    network = backbone.create("resnet50", out_features=("res2",), stride_in_1x1=True)
    assert backbone.load_weights(network, path).notes == [] and network.preprocessing == MSRA
    with pytest.raises(backbone.WeightsError, match="create it with stride_in_1x1=True"):
        backbone.load_weights(backbone.create("resnet50", out_features=("res2",)), path)
