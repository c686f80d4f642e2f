"""`detection.train`: a training by one call, with its figures, its detector and its folder."""

from __future__ import annotations

import json
import logging
from dataclasses import replace

import cv2
import numpy as np
import pytest
from runs import keys
from torchvision.transforms import v2

import detection
from backbone import ConfigError, DataError, RunError
from backbone.common.mini_set import mini_set_root
from backbone.engine import extensions
from backbone.engine.hooks import Hook
from backbone.engine.processes import Launch
from backbone.engine.record import stop_logging
from detection.data.transforms import registered_transforms
from detection.engine.session import make_request
from detection.engine.session import run as run_request
from tools.train_net import make_parser

CONFIG = "mini_faster_rcnn_r18.yaml"
QUICK = keys({"SOLVER.MAX_ITER": 2, "DATALOADER.NUM_WORKERS": 0, "TEST.PICTURES": 0, "SOLVER.CHECKPOINT_PERIOD": 0})[
    :-2
]


class Counts(Hook):
    steps = 0

    def after_step(self, trainer):
        self.steps += 1


@pytest.fixture(scope="module")
def few(tmp_path_factory):
    """A JSON of four images of the mini set, and their folder."""
    root = mini_set_root()
    data = json.loads((root / "annotations" / "instances_val.json").read_text())
    data["images"] = data["images"][:4]
    ids = {image["id"] for image in data["images"]}
    data["annotations"] = [record for record in data["annotations"] if record["image_id"] in ids]
    path = tmp_path_factory.mktemp("few") / "few.json"
    path.write_text(json.dumps(data))
    return path, root / "val"


@pytest.fixture(scope="module")
def run(tmp_path_factory, few):
    """A run with a hook and a key of one's own."""
    folder, hook = tmp_path_factory.mktemp("python") / "run", Counts()
    found = detection.train(
        CONFIG,
        train="mini_train",
        val=few,
        output_dir=folder,
        overrides=QUICK,
        hooks=[hook],
        device="cpu",
        SOLVER__BASE_LR=0.002,
    )
    return found, hook


def test_a_run_has_figures_a_detector_and_a_folder(run, few, capfd):
    found, hook = run
    record = json.loads((found.folder / "results.json").read_text())
    assert found.metrics == {"bbox": record["bbox"]} and 0 <= found.metrics["bbox"]["AP"] <= 1
    assert (hook.steps, found.record["iteration"]) == (2, 2)
    assert [line["iteration"] for line in found.history] == [1, 2, 2]
    assert repr(found) == f"<TrainingRun {found.folder}: 2 iterations, bbox AP {record['bbox']['AP']:.4f}>"
    assert found.detector is found.detector
    assert found.detector.config.SOLVER.BASE_LR == 0.002
    image = cv2.imread(str(next(few[1].iterdir())))
    best = detection.load(found.folder, "cpu")
    assert np.array_equal(found.detector(image).boxes, best(image).boxes)
    # The log is closed: nothing of what comes after it goes there or to the terminal.
    handlers = logging.getLogger("backbone").handlers
    assert [handler for handler in handlers if not type(handler).__module__.startswith("_pytest")] == []
    assert "iter 2/2" in (found.folder / "log.txt").read_text()


@pytest.mark.parametrize(
    ("given", "error", "said"),
    [
        (
            {"train": "mini_trian"},
            DataError,
            "no such file or folder, .* did you mean 'mini_train'",
        ),
        ({"train": ("mini_train", "coco_2018_train")}, ConfigError, "names of data sets"),
        ({"SOLVER__BASE_LRR": 1.0}, ConfigError, r"SOLVER\.BASE_LRR; did you mean 'SOLVER\.BASE_LR'"),
        ({"overrides": ["SOLVER.MAX_ITER"]}, ConfigError, "has no value"),
        (
            {"train": "mini_val", "DATASETS__TEST": (), "TEST__BEST": "bbox/AP50"},
            ConfigError,
            "no set of .* has ground",
        ),
        ({"device": "gpu"}, (ConfigError, RunError), "gpu"),
        ({"output_dir": None}, RunError, "holds a run already"),
    ],
)
def test_mistakes_are_named_errors(run, tmp_path, given, error, said):
    folder = run[0].folder if "output_dir" in given else tmp_path / "run"
    with pytest.raises(error, match=said):
        detection.train(CONFIG, **{"overrides": QUICK, "device": "cpu", **given, "output_dir": folder})
    assert not (tmp_path / "run" / "config.yaml").exists()


def test_keys_of_ones_own(monkeypatch):
    monkeypatch.setattr(extensions, "_extensions", {})

    def extend(config):
        config.MODEL.MINE = type(config)({"WIDTH": 8, "NAMES": ("a",)})

    config = detection.get_config(CONFIG, ["MODEL.MINE.WIDTH", 16], extend=extend)
    assert (config.MODEL.MINE.WIDTH, config.MODEL.MINE.NAMES) == (16, ("a",))
    with pytest.raises(ConfigError, match=r"MODEL\.MINE\.WIDHT; did you mean 'MODEL\.MINE\.WIDTH'"):
        detection.get_config(CONFIG, ["MODEL.MINE.WIDHT", 1])
    with pytest.raises(ConfigError, match="WIDTH is 'wide', expected a whole number"):
        detection.get_config(CONFIG, ["MODEL.MINE.WIDTH", "wide"])


def test_epochs_and_a_set_by_its_file(few, tmp_path):
    """Half an epoch of four images is one step of two."""
    pairs = [item for pair in zip(QUICK[::2], QUICK[1::2]) if pair[0] != "SOLVER.MAX_ITER" for item in pair]
    found = detection.train(
        CONFIG,
        train=few[0],
        epochs=0.5,
        output_dir=tmp_path / "run",
        device="cpu",
        overrides=[*pairs, "DATASETS.CUSTOM.TRAIN_IMAGES", str(few[1])],
    )
    assert found.record["iteration"] == 1 and found.metrics == {}


class Darkens:
    """A transform of one's own that counts its calls."""

    calls = 0

    def __call__(self, sample, random):
        self.calls += 1
        return {**sample, "image": (sample["image"] * random.uniform(0.2, 0.8)).to(sample["image"].dtype)}


def test_transforms_of_a_run(few, tmp_path):
    """With everything that augments images beside them; the run after it has none of them. --draw draws its images."""
    own = Darkens()
    names = ("MOSAIC", "COPY_PASTE", "COLOR_JITTER", "CROP")
    keys = [*QUICK, "MODEL.MASK_ON", True, *(word for name in names for word in (f"INPUT.{name}.ENABLED", True))]
    found = detection.train(
        CONFIG,
        train=few,
        output_dir=tmp_path / "run",
        overrides=[*keys, "DATASETS.TEST", ()],
        transforms=[own, v2.RandomGrayscale(1.0)],
        device="cpu",
    )
    losses = [line["total_loss"] for line in found.history if "total_loss" in line]
    assert own.calls == 4 and len(losses) == 2 and np.isfinite(losses).all()
    assert not registered_transforms()

    words = [str(word) for word in keys]
    flags = ["--train-json", str(few[0]), "--train-images", str(few[1]), "--device", "cpu"]
    arguments = make_parser().parse_intermixed_args(
        ["--config", CONFIG, *flags, "--draw", str(tmp_path / "drawn"), "--output-dir", str(tmp_path / "d"), *words]
    )
    request = make_request(arguments)
    run_request(request, Launch(device="cpu", processes=None))
    stop_logging()
    assert sorted(path.name for path in (tmp_path / "drawn").iterdir()) == [
        f"step_{step}_training_batch.jpg" for step in (1, 2, 3, 4)
    ]
    assert all(cv2.imread(str(path)).std() > 10 for path in (tmp_path / "drawn").iterdir())
    assert not (tmp_path / "d").exists()
    with pytest.raises(ConfigError, match="--draw shows training images; it goes without --eval-only and --plan"):
        run_request(replace(request, plan_only=True), Launch(device="cpu", processes=None))
