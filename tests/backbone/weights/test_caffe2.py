"""Detectron's Caffe2 files: detectron2's own reading of them, and the arithmetic of an affine layer."""

from __future__ import annotations

import pickle
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from other_projects import Peer, empty, filled, from_detectron2
from randomize import relative_error
from torch import nn

import backbone
from backbone.weights import open_weights, read_weight_metadata

MSRA = from_detectron2("resnet50", "FrozenBN", stride_in_1x1=True)
RESNEXT = from_detectron2("resnext50_32x4d", "FrozenBN")
GROUP_NORM = from_detectron2("resnet50", "GN")
BRANCHES = {"conv1": "branch2a", "conv2": "branch2b", "conv3": "branch2c", "shortcut": "branch1"}


def caffe2_name(name: str, norm: str) -> str | None:
    """Detectron's name for a tensor of detectron2; None for statistics, which its affine layers do not have."""
    if re.search("running|num_batches", name):
        return None
    name = name.replace(".norm.weight", f"_{norm}_s").replace(".norm.bias", f"_{norm}_b").replace(".weight", "_w")
    for theirs, branch in BRANCHES.items():
        name = re.sub(rf"^(res\d)\.(\d+)\.{theirs}", rf"\1_\2_{branch}", name)
    name = name.replace("stem.conv1", "conv1")
    return f"res_{name}" if name.startswith("conv1_bn") else name


def write(path: Path, peer: nn.Module, norm: str = "bn", blobs: bool = False, **more: np.ndarray) -> Path:
    names = {name: caffe2_name(name, norm) for name in peer.state_dict()}
    arrays = {names[name]: value.numpy() for name, value in peer.state_dict().items() if names[name]}
    arrays |= {"fc1000_w": np.ones((7, 2048), np.float32), "fc1000_b": np.ones(7, np.float32), **more}
    arrays["conv1_w_momentum"] = np.zeros_like(arrays["conv1_w"])
    path.write_bytes(pickle.dumps({"blobs": arrays, "cfg": "MODEL: {}"} if blobs else arrays, protocol=2))
    return path


def same_features(peer: Peer, theirs: nn.Module, network: nn.Module) -> None:
    images = torch.randn(2, 3, 64, 97, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for value, truth in zip(network(images).values(), peer.outputs(theirs, images)):
            assert relative_error(value, truth) < 1e-5


@pytest.mark.parametrize(
    ("peer", "keywords", "norm"),
    [
        (MSRA, {"stride_in_1x1": True, "norm": "frozen_bn"}, "bn"),
        (RESNEXT, {"norm": "frozen_bn"}, "bn"),
        (GROUP_NORM, {"norm": "gn"}, "gn"),
    ],
)
@pytest.mark.proves("caffe2", "backbones", "in", "detectron2's own reading of the same file")
def test_features_of_detectron2(peer, keywords, norm, tmp_path, capfd):
    """The same file through detectron2's checkpointer and through ours."""
    from detectron2.checkpoint import DetectionCheckpointer

    path = write(tmp_path / "R-50.pkl", filled(peer.build), norm, blobs=norm == "gn")
    theirs = empty(peer.build)
    DetectionCheckpointer(theirs).load(str(path))
    for layer in theirs.modules():
        if hasattr(layer, "running_var"):
            # detectron2 0.6 fills in 1, and adds eps: 2.5e-4 off over 50 layers. Caffe2's affine layer has none.
            layer.running_var.fill_(1 - layer.eps)
    network = empty(lambda: backbone.create(peer.name, **keywords))
    report = backbone.load_weights(network, path)
    assert report.fits and (report.kind, report.layout) == ("pickle", "caffe2")
    same_features(peer, theirs, network)


def test_the_affine_layer_is_exact(tmp_path):
    """Frozen BN multiplies with s and adds b, to the last bit of float32 but one; a bias of conv1 is counted in."""
    peer = filled(from_detectron2("resnet18", "FrozenBN").build)
    bias = np.linspace(-1, 1, 64, dtype=np.float32)
    network = empty(lambda: backbone.create("resnet18", norm="frozen_bn", out_features=("stem",)))
    path = write(tmp_path / "R-50.pkl", peer, conv1_b=bias)
    backbone.load_weights(network, path)
    scale, shift = network.bn1.scale_and_shift()
    expected = peer.state_dict()
    assert torch.allclose(scale, expected["stem.conv1.norm.weight"], rtol=2e-7, atol=0)
    truth = expected["stem.conv1.norm.weight"] * torch.from_numpy(bias) + expected["stem.conv1.norm.bias"]
    assert torch.allclose(shift, truth, rtol=1e-6, atol=1e-6)
    assert "conv1.bias" not in open_weights(path).tensors


def test_preprocessing_and_stride(tmp_path):
    """As detectron2's configs set them: PIXEL_MEAN and PIXEL_STD of config/defaults.py and, for Caffe2's ResNeXt,
    of model_zoo/configs/COCO-Detection/faster_rcnn_X_101_32x8d_FPN_3x.yaml; STRIDE_IN_1X1 for MSRA's alone."""
    from detectron2.config import get_cfg

    cfg = get_cfg()
    msra = read_weight_metadata(write(tmp_path / "a.pkl", empty(MSRA.build)))
    assert list(msra.preprocessing.mean) == cfg.MODEL.PIXEL_MEAN
    assert list(msra.preprocessing.std) == cfg.MODEL.PIXEL_STD
    assert msra.preprocessing.channel_order == cfg.INPUT.FORMAT
    assert msra.stride_in_1x1 is cfg.MODEL.RESNETS.STRIDE_IN_1X1 is True
    resnext = read_weight_metadata(write(tmp_path / "b.pkl", empty(RESNEXT.build)))
    assert resnext.preprocessing.std == (57.375, 57.12, 58.395) and resnext.stride_in_1x1 is False
    group_norm = read_weight_metadata(write(tmp_path / "c.pkl", empty(GROUP_NORM.build), "gn"))
    assert group_norm.stride_in_1x1 is False and not group_norm.preprocessing.assumed


def test_the_stride_is_checked(tmp_path):
    path = write(tmp_path / "R-50.pkl", empty(MSRA.build))
    network = backbone.create("resnet50", out_features=("res2",))
    with pytest.raises(backbone.WeightsError, match="create it with stride_in_1x1=True"):
        backbone.load_weights(network, path)
    # Basic blocks have no 1x1 convolution that it could stand in.
    small = from_detectron2("resnet18", "FrozenBN")
    network = backbone.create("resnet18", norm="frozen_bn")
    assert backbone.load_weights(network, write(tmp_path / "R-18.pkl", filled(small.build))).fits
