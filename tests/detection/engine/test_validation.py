"""TEST.LOSS: the losses of a test set, against detectron2's model and targets; and nothing else changes."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from detectron2.data import transforms
from detectron2.data.detection_utils import annotations_to_instances, transform_instance_annotations
from detectron2.structures import BoxMode
from detectron2.utils.events import EventStorage
from keypoint_set import SIGMAS, write_corners
from torch import nn

import detection
from backbone import ConfigError
from backbone.engine import distributed
from backbone.engine.processes import Launch
from backbone.engine.record import read_metrics
from backbone.engine.session import Request
from detection.engine.datasets import Sets, load_sets
from detection.engine.scoring import best_of
from detection.engine.session import run
from detection.engine.task import DetectionTask
from detection.engine.validation import in_training_form, validation_losses
from detection.inference.transform import TestMapper, TestTransform
from detection.modeling.build import build

SMALL = {
    "MODEL.DEVICE": "cpu",
    "MODEL.BACKBONE.NAME": "resnet18_fpn",
    "MODEL.BACKBONE.CALIBRATION_IMAGES": 0,
    "MODEL.FPN.OUT_CHANNELS": 16,
    "MODEL.ROI_HEADS.NUM_CLASSES": 8,
    "MODEL.ROI_BOX_HEAD.FC_DIM": 16,
    "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE": 16,
    "MODEL.RPN.BATCH_SIZE_PER_IMAGE": 32,
    "MODEL.RPN.POST_NMS_TOPK_TRAIN": 40,
    "MODEL.RPN.POST_NMS_TOPK_TEST": 10,
    "DATASETS.TRAIN": ("custom_train",),
    "DATASETS.TEST": ("custom_val",),
    "DATALOADER.NUM_WORKERS": 0,
    "INPUT.MIN_SIZE_TRAIN": (64,),
    "INPUT.MIN_SIZE_TEST": 64,
    "SOLVER.IMS_PER_BATCH": 2,
    "SOLVER.AUTO_SCALE": False,
    "SOLVER.STEPS": (),
    "SOLVER.MAX_ITER": 2,
    "SOLVER.CHECKPOINT_PERIOD": 1,
    "TEST.EVAL_PERIOD": 1,
    "TEST.LOSS": True,
    "TEST.PICTURES": 0,
}
RETINA = {"MODEL.BACKBONE.NAME": "resnet18_fpn_p6p7", "MODEL.RETINANET.NUM_CONVS": 1, "MODEL.RETINANET.NUM_CLASSES": 8}
KEYPOINTS = {"MODEL.ROI_KEYPOINT_HEAD.CONV_DIMS": (8,), "MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS": 4}
KINDS = {
    "faster": ("coco_faster_rcnn_r50_fpn.yaml", {"MODEL.RESNETS.NORM": "BN"}),
    "mask": ("coco_mask_rcnn_r50_fpn.yaml", {"MODEL.ROI_MASK_HEAD.CONV_DIM": 8}),
    "keypoint": ("coco_keypoint_rcnn_r50_fpn.yaml", {**KEYPOINTS, "TEST.KEYPOINT_OKS_SIGMAS": SIGMAS}),
    "cascade": ("coco_cascade_rcnn_r50_fpn.yaml", {}),
    "retinanet": ("coco_retinanet_r50_fpn.yaml", RETINA),
}
HERE = Launch(device="cpu", processes=1, machines=1, machine_rank=0, dist_url="auto")


@pytest.fixture(scope="module")
def corners(tmp_path_factory) -> tuple[Path, Path]:
    """Three images with boxes, polygons and keypoints, and a crowd region."""
    path = tmp_path_factory.mktemp("corners") / "corners.json"
    folder = write_corners(path, 3)
    data = json.loads(path.read_text())
    data["annotations"][0]["iscrowd"] = 1
    path.write_text(json.dumps(data))
    return path, folder


@pytest.fixture
def config_of(corners):
    def make(kind: str, **changes: object):
        name, own = KINDS[kind]
        files = dict(zip(("JSON", "IMAGES"), map(str, corners)))
        custom = {f"DATASETS.CUSTOM.{split}_{part}": file for split in ("TRAIN", "VAL") for part, file in files.items()}
        small = {key: value for key, value in SMALL.items() if kind != "retinanet" or ".RPN." not in key}
        small = {key: value for key, value in small.items() if kind != "retinanet" or ".ROI_" not in key}
        more = {key.replace("__", "."): value for key, value in changes.items()}
        pairs = {**small, **own, **custom, **more}
        return detection.get_config(name, [item for pair in pairs.items() for item in pair])

    return make


def by_hand(model: nn.Module, config, corners: tuple[Path, Path], sets: Sets) -> dict[str, float]:
    """Return the losses of detectron2's model on detectron2's targets, image by image."""
    data = json.loads(corners[0].read_text())
    labels = {category["id"]: label for label, category in enumerate(data["categories"])}
    images, sums, weights = sets.test[0].images, {}, 0.0
    model.train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    for index in range(len(images)):
        sample = TestMapper(images, TestTransform(config))(index)
        size = sample["image"].shape[-2:]
        resize = transforms.ResizeTransform(sample["height"], sample["width"], *size)
        records = [
            {**record, "category_id": labels[record["category_id"]], "bbox_mode": BoxMode.XYWH_ABS}
            for record in data["annotations"]
            if record["image_id"] == sample["image_id"] and not record.get("iscrowd")
        ]
        for record in records:
            # As detectron2's loader: from indices of pixels to coordinates.
            points = record["keypoints"]
            record["keypoints"] = [value + 0.5 if place % 3 < 2 else value for place, value in enumerate(points)]
        moved = [transform_instance_annotations(record, [resize], size) for record in records]
        sample["instances"] = annotations_to_instances(moved, size)
        torch.manual_seed(config.SEED + index)
        with EventStorage() as storage, torch.no_grad():
            losses, weight = model([sample]), 1.0
        if config.MODEL.META_ARCHITECTURE == "RetinaNet":
            # Its running number is now 0.9 times 100 and a tenth of the image's.
            weight = max(1.0, storage.latest()["num_pos_anchors"][0])
            assert model.loss_normalizer == pytest.approx(90 + 0.1 * weight)
            losses = {name: loss * model.loss_normalizer / weight for name, loss in losses.items()}
            del model.loss_normalizer
        weights += weight
        for name, loss in losses.items():
            sums[name] = sums.get(name, 0.0) + weight * float(loss)
    means = {name: value / weights for name, value in sums.items()}
    return {"total_loss": sum(means.values()), **means}


@pytest.mark.parametrize("kind", KINDS)
def test_losses_are_those_of_detectron2_and_nothing_changes(kind, config_of, corners, monkeypatch):
    config = config_of(kind)
    sets = load_sets(config, training=True)
    torch.manual_seed(0)
    task = DetectionTask(build(config).eval(), sets, config)
    model, before = task.model, {name: value.clone() for name, value in task.model.state_dict().items()}
    model.loss_normalizer = 57.0
    generator = torch.get_rng_state()
    found = task.evaluate()["validation"]
    assert torch.equal(torch.get_rng_state(), generator) and model.loss_normalizer == 57.0
    assert not any(module.training for module in model.modules())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert "_ema_update" not in vars(model)
    # Two processes that share the images find the same, to the bit.
    parts = []
    monkeypatch.setattr(distributed, "world_size", lambda: 2)
    monkeypatch.setattr(distributed, "gather_to_main", lambda part: (parts.append(part), list(parts))[1])
    for rank in (0, 1):
        monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
        shared = validation_losses(model, sets.test[0], config, workers=0)
    assert shared == found and [len(part) for part in parts] == [2, 1]
    del model.loss_normalizer
    expected = by_hand(model, config, corners, sets)
    assert found == pytest.approx(expected, rel=1e-5) and all(math.isfinite(value) for value in found.values())
    assert {"loss_mask", "loss_keypoint"} & found.keys() == {f"loss_{kind}"} & {"loss_mask", "loss_keypoint"}


def test_norms_dropout_and_the_network_stay_as_in_a_test(config_of):
    model = build(config_of("faster"))
    model.roi_heads.box_head.append(nn.Dropout(0.5))
    model.eval()
    with in_training_form(model):
        resting = {type(module).__name__ for module in model.modules() if not module.training}
        assert model.training and model.roi_heads.training and model.proposal_generator.training
        assert not model.backbone.training and not any(module.training for module in model.backbone.modules())
        assert "Dropout" in resting and not model.roi_heads.box_head[-1].training
    assert not any(module.training for module in model.modules())


def test_a_training_goes_on_to_the_same_bits(config_of, tmp_path):
    finals = []
    for number, on in enumerate((True, False)):
        folder = tmp_path / str(number)
        best = {"TEST__BEST": "validation/total_loss"} if on else {}
        run(Request(config_of("faster", TEST__LOSS=on, OUTPUT_DIR=str(folder), LOGGERS=(), **best)), HERE)
        finals.append(torch.load(folder / "model_0000002.pth", weights_only=True))
    assert all(torch.equal(value, finals[1]["model"][name]) for name, value in finals[0]["model"].items())
    assert finals[0]["rng"][0]["torch"].equal(finals[1]["rng"][0]["torch"])
    assert finals[0]["task"] == finals[1]["task"]
    lines = [line for line in read_metrics(tmp_path / "0" / "metrics.jsonl") if "bbox/AP" in line]
    losses = {line["iteration"]: line["validation/total_loss"] for line in lines}
    record = json.loads((tmp_path / "0" / "results.json").read_text())
    lowest = min(losses, key=losses.get)
    assert record["best"] == {"total_loss": losses[lowest], "iteration": lowest}
    assert record["validation"]["total_loss"] == losses[2]
    assert "validation   custom_val: loss" in (tmp_path / "0" / "log.txt").read_text()
    assert "validation" not in json.loads((tmp_path / "1" / "results.json").read_text())


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"TEST__LOSS": False, "TEST__BEST": "validation/total_loss"}, "needs TEST.LOSS True"),
        ({"TEST__BEST": "segm/AP"}, "needs MODEL.MASK_ON True"),
        ({"TEST__BEST": "box/AP50"}, "did you mean 'bbox/AP50'?"),
    ],
)
def test_a_figure_that_a_run_does_not_have_is_refused(changes, said, config_of):
    with pytest.raises(ConfigError, match=said.replace("?", r"\?")):
        config_of("faster", **changes)


def test_a_figure_needs_a_set_with_ground_truth():
    with pytest.raises(ConfigError, match="no set of DATASETS.TEST has ground truth"):
        best_of([], "bbox/AP50")
    assert best_of([], "") == "bbox/AP"
