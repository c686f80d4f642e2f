"""The list of weights by name, against the libraries' own tables and networks."""

from __future__ import annotations

import io

import pytest
import torch
from torchvision.models import ResNet50_Weights, get_model_weights, list_models

import backbone
from backbone.common.errors import WeightsError
from backbone.weights import sources
from backbone.weights.zoo_list import list_weights, network_of_timm
from detection.compat import close_gaps

KEYPOINTS = "COCO-Keypoints/keypoint_rcnn_R_50_FPN_3x"


def test_torchvisions_rows_are_its_enums():
    rows = {entry.name: entry for entry in list_weights("torchvision:")}
    row = rows["torchvision:resnet50:IMAGENET1K_V1"]
    meta, transform = ResNet50_Weights.IMAGENET1K_V1.meta, ResNet50_Weights.IMAGENET1K_V1.transforms()
    assert (row.network, row.task, row.classes) == ("resnet50", "classifier", len(meta["categories"]))
    assert row.accuracy == meta["_metrics"] and row.mebibytes == meta["_file_size"]
    assert list(row.preprocessing.mean) == transform.mean and row.source == ResNet50_Weights.IMAGENET1K_V1.url
    own = set(backbone.list_backbones())
    classifiers = {
        f"torchvision:{name}:{tag.name}" for name in own & set(list_models()) for tag in get_model_weights(name)
    }
    assert {name for name, entry in rows.items() if entry.task == "classifier"} == classifiers
    assert rows["torchvision:fcn_resnet50:COCO_WITH_VOC_LABELS_V1"].task == "segmentation"
    assert rows["torchvision:maskrcnn_resnet50_fpn:COCO_V1"].task == "detector"
    assert list_weights("TORCHVISION:resnet50:*V1") == [row]
    assert all(entry.network in own for entry in rows.values())


@pytest.mark.parametrize("pattern", ["resnet51", "timm:nothing*"])
def test_a_pattern_of_nothing_is_an_error(pattern):
    with pytest.raises(WeightsError, match="no weights have a name like"):
        list_weights(pattern)


# timm's networks that differ from ours though their names or their tensors are alike.
OTHERS = (
    "resnetaa50",
    "resnetblur50",
    "resnet26t",
    "resnet50s",
    "seresnet50",
    "resnetv2_50x1_bit",
    "resnet50_clip",
    "vgg11",
)


@pytest.mark.parametrize(
    "model", ["resnet18", "resnet18d", "resnet50c", "resnet50_gn", "resnetv2_18d", "resnext50d_32x4d"]
)
def test_timms_rows_are_networks_of_ours(model, tmp_path, monkeypatch):
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    theirs = timm.create_model(model, num_classes=5).eval()
    network, form = network_of_timm(model)
    file = tmp_path / "net.pth"
    content = io.BytesIO()
    torch.save(theirs.state_dict(), content)
    file.write_bytes(content.getvalue())
    name = f"timm:{model}"
    monkeypatch.setattr(sources, "_found", {name: file})
    ours = backbone.create(network, weights=name, num_classes=5, out_features=("logits",), **form).eval()
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(ours(images)["logits"], theirs(images), rtol=1e-4, atol=1e-5)


def test_timms_rows_are_its_configs():
    timm = pytest.importorskip("timm")
    assert [network_of_timm(model) for model in OTHERS] == [None] * len(OTHERS)
    row, *others = list_weights("timm:resnet50.a1_in1k")
    config = timm.models.get_pretrained_cfg("resnet50.a1_in1k")
    assert not others and (row.classes, row.licence, row.source) == (1000, config.license, config.hf_hub_id)
    # The published file has 102.5 million bytes.
    assert row.mebibytes == pytest.approx(102.5e6 / 2**20, rel=0.01)
    assert {entry.name.partition(":")[2] for entry in list_weights("timm:resnet18.*")} == set(
        timm.list_pretrained("resnet18.*")
    )


def test_detectron2s_rows_are_its_catalog():
    close_gaps()
    model_zoo = pytest.importorskip("detectron2.model_zoo")
    rows = {entry.name: entry for entry in list_weights("detectron2:")}
    for name in ("COCO-Detection/faster_rcnn_R_50_FPN_3x", "PascalVOC-Detection/faster_rcnn_R_50_C4", KEYPOINTS):
        row = rows[f"detectron2:{name}"]
        config = model_zoo.get_config(f"{name}.yaml")
        assert row.source == model_zoo.get_checkpoint_url(f"{name}.yaml")
        assert row.classes == config.MODEL.ROI_HEADS.NUM_CLASSES and row.network == "resnet50"
        assert list(row.preprocessing.mean) == config.MODEL.PIXEL_MEAN
        assert list(row.preprocessing.std) == config.MODEL.PIXEL_STD
    x101 = "COCO-Detection/faster_rcnn_X_101_32x8d_FPN_3x"
    assert list(rows[f"detectron2:{x101}"].preprocessing.std) == model_zoo.get_config(f"{x101}.yaml").MODEL.PIXEL_STD
    assert "detectron2:Misc/cascade_mask_rcnn_R_50_FPN_3x" in rows and not any("dconv" in name for name in rows)
