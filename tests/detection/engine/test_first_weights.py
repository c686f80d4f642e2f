"""What a training without weights says of them."""

from __future__ import annotations

import detection
from backbone.weights.zoos import suggestion, torchvision_names
from detection.engine.model import prepare_for_training
from detection.modeling.build import build


def test_the_plan_of_frozen_bn_without_weights_proposes_a_name():
    keys = ["MODEL.DEVICE", "cpu", "MODEL.BACKBONE.FREEZE_AT", 0]
    frozen = detection.get_config("mini_faster_rcnn_r18.yaml", [*keys, "MODEL.RESNETS.NORM", "FrozenBN"])
    said = prepare_for_training(build(frozen), frozen, [], None)
    assert "--weights torchvision:resnet18 starts from a pretrained backbone" in said
    free = detection.get_config("mini_faster_rcnn_r18.yaml", [*keys, "MODEL.RESNETS.NORM", "GN"])
    assert prepare_for_training(build(free), free, [], None) == "none: random weights"


def test_only_what_there_is_is_proposed():
    assert suggestion("resnet101") == "torchvision:resnet101" and "resnet101" in torchvision_names()
    assert suggestion("cifar_resnet20") == suggestion("preact_resnet50") == ""
