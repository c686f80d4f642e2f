"""backbone.train: what tools/pretrain.py does, and a classifier at its end."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

import backbone
from backbone.engine.hooks import Hook


class Steps(Hook):
    """Notes the steps."""

    def __init__(self) -> None:
        self.seen: list[int] = []

    def after_step(self, trainer) -> None:
        self.seen.append(trainer.state.iteration)


@pytest.fixture
def photos(tmp_path):
    random = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for index in range(5):
            picture = random.integers(0, 256, (32, 32, 3), dtype=np.uint8)
            cv2.imwrite(str(tmp_path / "photos" / name / f"{index}.png"), picture)
    return tmp_path / "photos"


def test_a_training_gives_metrics_a_classifier_and_a_folder(photos, tmp_path):
    steps = Steps()
    run = backbone.train(
        "finetune_resnet18.yaml",
        train=photos,
        split=0.2,
        epochs=1,
        weights="",
        device="cpu",
        output_dir=tmp_path / "run",
        hooks=[steps],
        overrides=["INPUT.TRAIN_SIZE", 32, "INPUT.TEST_SIZE", 32],
        INPUT__TEST_SHORTER_SIDE=32,
        SOLVER__IMS_PER_BATCH=4,
        DATALOADER__NUM_WORKERS=0,
    )
    assert steps.seen == [1, 2] and run.folder == tmp_path / "run"
    figures = run.metrics["1crop"]
    assert figures["images"] == 2 and 0 <= figures["mean_class_accuracy"] <= 1
    assert repr(run) == f"<TrainingRun {run.folder}: 2 iterations, 1crop top1_accuracy {figures['top1_accuracy']:.4f}>"
    assert run.history[-1]["iteration"] == 2 and run.classifier.classes == ["cat", "dog"]
    best = torch.load(run.folder / "model_best.pth", weights_only=True)["model"]
    torch.testing.assert_close(run.classifier.network.state_dict()["fc.weight"], best["fc.weight"])
    assert {"split.json", "mistakes.html", "confusion.csv", "README.md"} <= {path.name for path in run.folder.iterdir()}
    card = (run.folder / "README.md").read_text()
    assert 'backbone.load_classifier("model_best.pth")' in card
    assert "trained on own, photos" in card and "0.2 of photos, held out" in card and str(tmp_path) not in card


def test_a_package_that_is_missing_is_named(monkeypatch):
    def missing(*_):
        raise ModuleNotFoundError("No module named 'yacs'", name="yacs")

    # Imported when it is first used, too.
    expected = backbone.RunError
    monkeypatch.setattr(backbone.importlib, "import_module", missing)
    with pytest.raises(expected, match="yacs is not installed; run `pip install 'resnet-detection"):
        backbone.load_classifier("a.pth")


@pytest.mark.parametrize(
    ("given", "kind", "said"),
    [
        ({"train": "nowhere"}, backbone.DataError, "nowhere does not exist"),
        ({"train": ("a", "b", "c")}, backbone.ConfigError, "give a path, or .CSV file, image folder"),
        ({"train": 5}, backbone.ConfigError, "train is 5; give a path, or .CSV file, image folder"),
        ({"val": "photos"}, backbone.ConfigError, "needs --train"),
        ({"train": ".", "SOLVER__BASE_LP": 1}, backbone.ConfigError, "did you mean 'SOLVER.BASE_LR'"),
        ({"train": ".", "MODEL__FREEZE_AT": 6}, backbone.ConfigError, "MODEL.FREEZE_AT must be at most 5"),
    ],
)
def test_mistakes_are_named(given, kind, said, photos, tmp_path, monkeypatch):
    monkeypatch.chdir(photos)
    with pytest.raises(kind, match=said):
        backbone.train("finetune_resnet18.yaml", weights="", device="cpu", output_dir=tmp_path / "run", **given)
    assert not (tmp_path / "run" / "config.yaml").exists()
