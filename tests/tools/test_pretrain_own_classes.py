"""tools/pretrain.py from weights of other classes to own ones."""

from __future__ import annotations

import json
import shutil

import cv2
import numpy as np
import pytest
import torch

import backbone

KEYS = {
    "MODEL.NAME": "resnet18",
    "MODEL.SHORTCUT": "",
    "DATA.NAME": "folder",
    "INPUT.CROP": "area",
    "INPUT.TRAIN_SIZE": 32,
    "INPUT.TEST_SIZE": 32,
    "INPUT.TEST_SHORTER_SIDE": 32,
    "SOLVER.IMS_PER_BATCH": 6,
    "SOLVER.REFERENCE_BATCH_SIZE": 6,
    "SOLVER.BASE_LR": 1e-12,
    "SOLVER.MAX_ITER": 1,
    "DATALOADER.NUM_WORKERS": 0,
    "TEST.PRECISE_BN.ENABLED": False,
    "TEST.FINAL_PROTOCOLS": "()",
}


@pytest.fixture
def pretrain(tool, tmp_path):
    """Call tools/pretrain.py on images of three classes."""
    random = np.random.default_rng(0)
    for split, number in (("train", 4), ("val", 2)):
        for name in ("cat", "dog", "owl"):
            folder = tmp_path / "data" / split / name
            folder.mkdir(parents=True)
            for index in range(number):
                cv2.imwrite(str(folder / f"{index}.png"), random.integers(0, 256, (40, 40, 3), dtype=np.uint8))

    def call(*arguments: object, **changes: object):
        pairs = [
            part
            for pair in {**KEYS, **{key.replace("__", "."): v for key, v in changes.items()}}.items()
            for part in pair
        ]
        base = ("--config", "imagenet_resnet18.yaml", "--data-root", tmp_path / "data", "--device", "cpu")
        return tool("pretrain.py", *base, "--output-dir", tmp_path / "run", *arguments, *pairs)

    return call


def weights_of(path, classes: int, names: list[str] | None = None) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    network = backbone.create("resnet18", num_classes=classes, norm="bn")
    network.preprocessing = backbone.Preprocessing("BGR", 255, (102.9801, 115.9465, 122.7717), (1.0, 1.0, 1.0))
    backbone.save_weights(network, path, metadata={"classes": names} if names else None)
    return network.state_dict()


def test_a_classifier_of_other_classes_becomes_one_of_own(pretrain, tmp_path):
    source = tmp_path / "source.pth"
    began = weights_of(source, 20)
    pretrain("--weights", source).mistake(
        "fc.weight [20, 512] for [3, 512]", "MODEL.NEW_CLASSIFIER True takes the rest"
    )
    assert not (tmp_path / "run" / "config.yaml").exists()
    said = pretrain("--weights", source, MODEL__NEW_CLASSIFIER=True).fine("classifier initialised anew")
    assert "INPUT.FORMAT RGB -> BGR" in said
    ended = torch.load(tmp_path / "run" / "model_final.pth", weights_only=True)
    for name, value in ended["model"].items():
        if name.startswith("fc."):
            assert len(value) == 3
        elif not name.endswith(("running_mean", "running_var", "num_batches_tracked")):
            # At a rate of 1e-12.
            torch.testing.assert_close(value, began[name], rtol=0, atol=1e-6)
    assert ended["metadata"]["classes"] == ["cat", "dog", "owl"]
    assert json.loads((tmp_path / "run" / "results.json").read_text())["1crop"]["images"] == 6
    # What was set as the weights ask stays set.
    pretrain("--weights", source, "--resume", MODEL__NEW_CLASSIFIER=True).fine("resumed from")


def test_as_many_classes_of_other_names(pretrain, tmp_path):
    source = tmp_path / "source.pth"
    weights_of(source, 3, ["cat", "fox", "owl"])
    said = "its class 'fox' stands where the data has 'dog', MODEL.NEW_CLASSIFIER True trains"
    assert said in pretrain("--weights", source).fine()


def test_a_test_takes_no_new_classifier(pretrain, tmp_path):
    source = tmp_path / "source.pth"
    weights_of(source, 20)
    line = pretrain("--weights", source, "--eval-only").mistake("train on these first (MODEL.NEW_CLASSIFIER True)")
    assert "new_classifier=True" not in line
    pretrain("--weights", source, "--eval-only", MODEL__NEW_CLASSIFIER=True).mistake("begins a training")


def test_a_test_on_a_set_that_lacks_a_class(pretrain, tmp_path):
    source = tmp_path / "source.pth"
    weights_of(source, 3, ["cat", "dog", "owl"])
    shutil.rmtree(tmp_path / "data" / "train")
    shutil.rmtree(tmp_path / "data" / "val" / "cat")
    said = pretrain("--weights", source, "--eval-only").fine("3 classes")
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["1crop"]["images"] == 4 and results["paper"] == [] and "Paper:" not in said
