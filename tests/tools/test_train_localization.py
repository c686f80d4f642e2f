"""tools/train_localization.py as people type it: RPN, its tests, R-CNN on its boxes, an ensemble, and mistakes."""

from __future__ import annotations

import json

import numpy as np
import torch
from ilsvrc_sample import write_loc

import backbone
from backbone.localization import default_config
from backbone.localization.data import open_sets
from backbone.localization.evaluation import is_right
from backbone.localization.inference import localize
from backbone.localization.weights import open_trained

SMALL = {
    "INPUT.TRAIN_SIZE": 64,
    "INPUT.SHORTER_SIDE": (64, 80),
    "INPUT.TEST_SHORTER_SIDE": 72,
    "TEST.DENSE_SIDES": (64, 96),
    "DATALOADER.NUM_WORKERS": 0,
}
TRAINING = {
    "MODEL.NAME": "resnet18",
    "MODEL.ANCHOR_SIZES": (32, 64),
    "MODEL.PROPOSALS": 6,
    "SOLVER.IMS_PER_BATCH": 4,
    "SOLVER.AUTO_SCALE": False,
    "SOLVER.MAX_ITER": 2,
    "SOLVER.STEPS": (),
    "SOLVER.LOG_PERIOD": 1,
    "TEST.EVAL_PERIOD": 0,
}


def pairs(*parts: dict) -> list[str]:
    return [str(word) for part in parts for pair in part.items() for word in pair]


def test_from_a_classifier_to_the_servers_file(tool, shared_data, tmp_path):
    write_loc(tmp_path, sorted((shared_data / "imagenet_sample" / "images").glob("*/*.JPEG")))
    config = default_config()
    config.DATA.ROOT = str(tmp_path)
    classes = open_sets(config, training=False)[1].classes
    torch.manual_seed(0)
    network = backbone.create("resnet18", num_classes=4)
    backbone.save_weights(network, "classifier.pth", metadata={"classes": classes, "architecture": "resnet18"})
    root = ("--data-root", tmp_path, "--device", "cpu")

    def call(name: str, folder: str, *rest: object, **changes: object) -> dict:
        changes = {key.replace("__", "."): value for key, value in changes.items()}
        flags = ("--config", f"imagenet_loc_{name}.yaml", *root, "--output-dir", folder)
        tool("train_localization.py", *flags, *rest, *pairs(SMALL, changes)).fine("results")
        return json.loads((tmp_path / folder / "results.json").read_text())

    first = call("rpn_r101", "rpn", "--weights", "classifier.pth", *pairs(TRAINING))
    assert first["loc"]["images"] == 4 and set(first["loc"]) == {"true_class_error", "images", "accuracy"}
    trained = ("--eval-only", "--weights", "rpn/model_final.pth")
    dense = call("rpn_r101_dense", "dense", *trained)
    card = (tmp_path / "rpn" / "README.md").read_text()
    assert "resnet18 (rpn), localisation, 4 classes" in card and "loc/true_class_error" in card
    # The figure is that of the network's boxes, one image after the other.
    values = {
        **SMALL,
        "MODEL.DEVICE": "cpu",
        "MODEL.NAME": "resnet18",
        "MODEL.ANCHOR_SIZES": (32, 64),
        "TEST.VIEWS": "dense",
    }
    config.merge_from_list(pairs(values))
    member = open_trained("rpn/model_final.pth", config, classes, "rpn")
    _, images = open_sets(config, training=False)
    right = 0
    for index in range(len(images)):
        label = int(images.labels[index])
        with open(images.place(index), "rb") as file:
            image = backbone.common.images.decode_image(np.frombuffer(file.read(), np.uint8), "x")[:, :, ::-1]
        box = localize([member], [], np.ascontiguousarray(image), [label], config)[0]
        right += is_right(label, box, label, images.boxes_of(index))
    assert dense["loc"]["true_class_error"] == 1 - right / 4
    files = {"TEST__CLASSIFIERS": ("classifier.pth",), "TEST__BATCH_SIZE": 4}
    predicted = call("rpn_r101_predicted", "predicted", *trained, **files)
    assert (
        predicted["loc"]["top5_error"] == dense["loc"]["true_class_error"]
    )  # four classes: the true one is among them
    files["TEST__PROPOSERS"] = ("rpn/model_final.pth",)
    call("rcnn_r101", "rcnn", "--weights", "classifier.pth", *pairs(TRAINING), **files)
    with np.load(tmp_path / "rcnn" / "proposals.npz") as file:
        assert file["boxes"].shape == (8, 6, 4) and (file["counts"] > 0).all()
        sides = file["boxes"][:, 0, 2:] - file["boxes"][:, 0, :2]
        assert (sides >= 1).all() and (file["boxes"] == file["boxes"].round()).all()
    files |= {"TEST__ENSEMBLE": ("rcnn/model_final.pth",), "DATA__VAL": "test", "MODEL__PROPOSALS": 6}
    results = call("ensemble", "ensemble", "--eval-only", "--weights", "rcnn/model_final.pth", **files)
    assert "loc" not in results
    lines = (tmp_path / "ensemble" / "submission.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in lines] == ["ImageId", "ILSVRC2012_test_00000001", "ILSVRC2012_test_00000002"]
    assert all(len(line.split(",")[1].split()) == 4 * 5 for line in lines[1:])

    flags = ("--output-dir", "x", *root, *pairs(SMALL))
    rcnn = ("train_localization.py", "--config", "imagenet_loc_rcnn_r101.yaml", *flags)
    tool(*rcnn).mistake("TEST.CLASSIFIERS names no classifier")
    tool(*rcnn, "TEST.CLASSES", "truth").mistake("TEST.PROPOSERS names no RPN")
    wrong = ("TEST.CLASSES", "truth", "TEST.PROPOSERS", "('rcnn/model_final.pth',)", *pairs(TRAINING))
    tool(*rcnn, *wrong).mistake("rcnn/model_final.pth: is a network of MODEL.KIND rcnn; one of rpn belongs there")
    tool("train_localization.py", "--config", "cifar10_resnet20.yaml", *flags).mistake("a config of tools/pretrain.py")
    assert not (tmp_path / "x" / "config.yaml").exists()
