"""Keypoint R-CNN: its targets as detectron2 makes them, a run on real persons, and figures as pycocotools has them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.data import transforms
from detectron2.data.detection_utils import (
    annotations_to_instances,
    create_keypoint_hflip_indices,
    transform_instance_annotations,
)
from detectron2.structures import BoxMode
from keypoint_set import CORNERS, SIGMAS, write_corners
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

import detection
from backbone import ConfigError, DataError, ExportError
from backbone.engine.processes import Launch
from backbone.engine.session import Request
from detection.data.cache import read_set, write_set
from detection.data.keypoints import CENTRE
from detection.data.mapper import Mapper, Resize
from detection.data.sets import build_set, join_sets
from detection.data.view import View
from detection.engine.model import fit_keypoints
from detection.engine.session import run
from detection.engine.training import TrainingRun
from detection.evaluation import evaluate_coco, load_ground_truth
from detection.export import export_detector
from detection.inference.detector import load_trained_detector
from detection.visualization import draw_objects

CONFIG = "coco_keypoint_rcnn_r50_fpn.yaml"
TINY = {
    "MODEL.DEVICE": "cpu",
    "MODEL.BACKBONE.NAME": "resnet18_fpn",
    "MODEL.BACKBONE.CALIBRATION_IMAGES": 1,
    "MODEL.FPN.OUT_CHANNELS": 16,
    "MODEL.ROI_BOX_HEAD.FC_DIM": 16,
    "MODEL.ROI_KEYPOINT_HEAD.CONV_DIMS": (8,),
    "MODEL.ROI_HEADS.SCORE_THRESH_TEST": 0.0,
    "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE": 16,
    "MODEL.RPN.POST_NMS_TOPK_TRAIN": 40,
    "MODEL.RPN.POST_NMS_TOPK_TEST": 20,
    "DATASETS.TRAIN": ("custom_train",),
    "DATASETS.TEST": ("custom_val",),
    "DATALOADER.NUM_WORKERS": 0,
    "INPUT.MIN_SIZE_TRAIN": (96,),
    "INPUT.MIN_SIZE_TEST": 96,
    "SOLVER.IMS_PER_BATCH": 1,
    "SOLVER.AUTO_SCALE": False,
    "SOLVER.STEPS": (),
    "SOLVER.MAX_ITER": 2,
    "SOLVER.LOG_PERIOD": 1,
    "TEST.EVAL_PERIOD": 0,
    "TEST.DETECTIONS_PER_IMAGE": 10,
    "TEST.PICTURES": 1,
}


@pytest.fixture(scope="module")
def persons(shared_data, tmp_path_factory) -> tuple[Path, Path]:
    """Annotations of four real images with labelled keypoints, and the folder of the images."""
    data = json.loads((shared_data / "coco" / "annotations" / "person_keypoints_val2017.json").read_text())
    labelled = {record["image_id"] for record in data["annotations"] if record.get("num_keypoints")}
    data["images"] = [image for image in data["images"] if image["id"] in labelled][:4]
    kept = {image["id"] for image in data["images"]}
    data["annotations"] = [record for record in data["annotations"] if record["image_id"] in kept]
    path = tmp_path_factory.mktemp("persons") / "persons.json"
    path.write_text(json.dumps(data))
    return path, shared_data / "coco" / "val2017"


@pytest.fixture(scope="module")
def trained(persons, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("keypoints") / "run"
    custom = {f"DATASETS.CUSTOM.{split}_JSON": str(persons[0]) for split in ("TRAIN", "VAL")}
    custom |= {f"DATASETS.CUSTOM.{split}_IMAGES": str(persons[1]) for split in ("TRAIN", "VAL")}
    pairs = [item for pair in {**TINY, **custom, "OUTPUT_DIR": str(folder)}.items() for item in pair]
    machine = Launch(device="cpu", processes=1, machines=1, machine_rank=0, dist_url="auto")
    run(Request(detection.get_config(CONFIG, pairs)), machine)
    return folder


def figures_of(truth: Path, predictions: list[dict], sigmas: tuple = ()) -> list[float]:
    """Return AP, AP50, AP75, APm, APl and AR by pycocotools itself."""
    known = COCO(str(truth))
    evaluation = COCOeval(known, known.loadRes(predictions), "keypoints")
    if sigmas:
        evaluation.params.kpt_oks_sigmas = np.array(sigmas)
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return evaluation.stats[:6].tolist()


def test_run_predict_and_export(trained, persons, tmp_path):
    text = (trained / "log.txt").read_text()
    assert "Keypoint R-CNN, resnet18_fpn, StandardROIHeads, FrozenBN, 1 class, 17 keypoints" in text
    steps = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    assert [step["loss_keypoint"] > 0 for step in steps if "loss_keypoint" in step] == [True, True]
    predictions = json.loads((trained / "predictions_custom_val.json").read_text())
    assert predictions and all(len(record["keypoints"]) == 51 for record in predictions)
    results = json.loads((trained / "results.json").read_text())
    measured = [results["keypoints"][name] for name in ("AP", "AP50", "AP75", "APm", "APl", "AR")]
    assert measured == pytest.approx(figures_of(persons[0], predictions), abs=1e-9)
    assert TrainingRun(trained, results, "cpu").metrics == {kind: results[kind] for kind in ("bbox", "keypoints")}
    assert "AP50" in results["bbox"] and (trained / "detections.jpg").is_file()

    detector = load_trained_detector(trained / "model_final.pth", "cpu")
    path = persons[1] / json.loads(persons[0].read_text())["images"][0]["file_name"]
    found = detector(path)
    assert found.keypoints.shape == (len(found), 17, 3) and found[:3].keypoints.shape[0] == 3
    record, point = found.to_coco()[0], found[0].keypoints[5]
    assert record["keypoints"][15:17] == pytest.approx(point[:2] - CENTRE)
    canvas = np.zeros((60, 60, 3), np.uint8)
    points = np.array([[[20.2, 30.4, 0.9], [40, 40, 0.01]]])
    drawn = draw_objects(canvas, np.array([[1, 1, 50, 50]]), [0], ["person"], keypoints=points)
    assert drawn[30, 20].any() and not drawn[40, 40].any()
    with pytest.raises(ExportError, match="d.onnx: detectors of keypoints are not written"):
        export_detector(detector, tmp_path / "d.onnx")


@pytest.mark.parametrize("flip", ["none", "horizontal", "vertical"])
def test_targets_are_detectron2s(persons, flip):
    data = json.loads(persons[0].read_text())
    images = build_set(data, name="persons", folder=persons[1], keypoints=True)
    mapper = Mapper(images, resize=Resize((96,), 200), channel_order="RGB", flip=flip)
    names = images.keypoint_names
    swaps = {name: name.replace("left", "right") for name in names if "left" in name}
    for index, image in enumerate(data["images"]):
        width, height = images.size(index)
        new_width, new_height = mapper.resize.target(width, height, 96)
        ours = mapper.targets(index, View.of((width, height), (new_width, new_height), flip))
        steps: list = [transforms.ResizeTransform(height, width, new_height, new_width)]
        if flip == "horizontal":
            steps.append(transforms.HFlipTransform(new_width))
        elif flip == "vertical":
            steps.append(transforms.VFlipTransform(new_height))
        steps, annotations = transforms.TransformList(steps), []
        indices = np.array([names.index(partner(name, swaps)) for name in names])
        for record in data["annotations"]:
            if record["image_id"] != image["id"] or record["iscrowd"]:
                continue
            points = [value + 0.5 * (place % 3 != 2) for place, value in enumerate(record["keypoints"])]
            record = {**record, "keypoints": points, "bbox_mode": BoxMode.XYWH_ABS, "category_id": 0}
            record.pop("segmentation")
            annotations.append(
                transform_instance_annotations(record, steps, (new_height, new_width), keypoint_hflip_indices=indices)
            )
        theirs = annotations_to_instances(annotations, (new_height, new_width))
        assert len(ours) == len(theirs) > 0
        assert torch.allclose(ours.gt_keypoints.tensor, theirs.gt_keypoints.tensor, atol=1e-4)
    assert create_keypoint_hflip_indices(["keypoints_coco_2017_val"]) == mapper.partners


def partner(name: str, swaps: dict[str, str]) -> str:
    return swaps.get(name) or {right: left for left, right in swaps.items()}.get(name, name)


@pytest.mark.parametrize("engine", ["hotcoco", "faster-coco-eval", "pycocotools"])
def test_other_keypoints_than_coco_s(tmp_path, engine):
    path = tmp_path / "corners.json"
    write_corners(path, 12)
    rng, predictions = np.random.default_rng(0), []
    for record in json.loads(path.read_text())["annotations"]:
        points = np.array(record["keypoints"], float).reshape(4, 3)
        points[:, :2] += rng.normal(size=(4, 2)) * rng.choice([0.5, 2.0, 6.0])
        x, y, width, height = record["bbox"]
        kept = {"image_id": record["image_id"], "category_id": record["category_id"], "score": rng.random()}
        predictions.append({**kept, "bbox": [x, y, width, height], "keypoints": points.ravel().tolist()})
    truth = load_ground_truth(path, "keypoints", SIGMAS)
    found = evaluate_coco(truth, predictions, "keypoints", engine=engine).summary
    assert list(found.values())[:6] == pytest.approx(figures_of(path, predictions, SIGMAS), abs=1e-9)
    assert 0.1 < found["AP"] < 0.9
    given = evaluate_coco(path, predictions, "keypoints", engine=engine, sigmas=SIGMAS)
    assert given.summary == found
    with pytest.raises(DataError, match="an object has 4 keypoints, but 17 widths of object keypoint similarity"):
        load_ground_truth(path, "keypoints")


def test_numbers_of_keypoints_follow_the_data(tmp_path):
    path = tmp_path / "corners.json"
    images = build_set_of(path, write_corners(path, 3))
    assert images.keypoint_names == tuple(CORNERS) and images.keypoints.shape[1:] == (4, 3)
    write_set(tmp_path / "set.safetensors", images, "content")
    kept = read_set(tmp_path / "set.safetensors", "content", whole=True)
    assert kept.keypoint_names == images.keypoint_names and np.array_equal(kept.keypoints, images.keypoints)
    assert len(join_sets([kept, images]).keypoints) == 2 * len(images.keypoints)
    assert images.with_keypoints(1).tolist() == images.trainable().tolist()
    config = detection.get_config(CONFIG, ["TEST.KEYPOINT_OKS_SIGMAS", SIGMAS])
    assert fit_keypoints(config, images, set()).MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS == 4
    with pytest.raises(ConfigError, match="NUM_KEYPOINTS is 17, but the data has 4 keypoints"):
        fit_keypoints(config, images, {"MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS"})
    with pytest.raises(ConfigError, match="KEYPOINT_OKS_SIGMAS must hold 4 numbers"):
        fit_keypoints(detection.get_config(CONFIG), images, set())
    data = json.loads(path.read_text())
    data["categories"][1]["keypoints"] = ["head"]
    with pytest.raises(DataError, match="its categories have different keypoints"):
        build_set(data, name="set", folder=tmp_path, keypoints=True)
    data = {**data, "categories": [{"id": 1, "name": "a"}], "annotations": []}
    with pytest.raises(DataError, match="no category lists 'keypoints'"):
        build_set(data, name="set", folder=tmp_path, keypoints=True)


def build_set_of(path: Path, folder: Path):
    return build_set(json.loads(path.read_text()), name="corners", folder=folder, keypoints=True)
