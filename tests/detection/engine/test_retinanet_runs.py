"""RetinaNet: one small run, resumed, tested on its fast copy, and written for ONNX Runtime."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import detection
from backbone import ConfigError
from backbone.common.images import find_images, read_image
from backbone.common.mini_set import CLASSES, mini_set_root
from backbone.engine.processes import Launch
from backbone.engine.session import Request
from detection.engine.session import run
from detection.export import export_detector
from detection.inference.detector import Detector, load_trained_detector
from detection.inference.fast import fast_copy
from detection.inference.run import detect
from detection.inference.transform import TestTransform
from detection.weights.load import StartingWeights, load_initial

CONFIG = "coco_retinanet_r50_fpn.yaml"
TINY = {
    "MODEL.DEVICE": "cpu",
    "MODEL.BACKBONE.NAME": "resnet18_fpn_p6p7",
    "MODEL.BACKBONE.CALIBRATION_IMAGES": 1,
    "MODEL.FPN.OUT_CHANNELS": 16,
    "MODEL.RETINANET.NUM_CONVS": 1,
    # So that there are detections from the first step.
    "MODEL.RETINANET.PRIOR_PROB": 0.06,
    "DATASETS.TRAIN": ("mini_train",),
    "DATASETS.TEST": ("mini_val",),
    "DATALOADER.NUM_WORKERS": 0,
    "INPUT.MIN_SIZE_TRAIN": (64,),
    "INPUT.MIN_SIZE_TEST": 64,
    "SOLVER.IMS_PER_BATCH": 2,
    "SOLVER.AUTO_SCALE": False,
    "SOLVER.BASE_LR": 1e-4,
    "SOLVER.STEPS": (),
    "SOLVER.MAX_ITER": 2,
    "SOLVER.CHECKPOINT_PERIOD": 1,
    "TEST.EVAL_PERIOD": 0,
    "TEST.DETECTIONS_PER_IMAGE": 10,
    "TEST.PICTURES": 1,
}
MACHINE = Launch(device="cpu", processes=1, machines=1, machine_rank=0, dist_url="auto")


def config_of(**changes: object):
    pairs = {**TINY, **{key.replace("__", "."): value for key, value in changes.items()}}
    return detection.get_config(CONFIG, [item for pair in pairs.items() for item in pair])


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("retinanet") / "run"
    run(Request(config_of(OUTPUT_DIR=str(folder))), MACHINE)
    return folder


@pytest.fixture(scope="module")
def detector(trained) -> Detector:
    """The trained one, its last layers made larger: it is sure of some things."""
    found = load_trained_detector(trained / "model_final.pth", "cpu")
    torch.manual_seed(0)
    with torch.no_grad():
        for layer, size in ((found.model.head.cls_score, 0.3), (found.model.head.bbox_pred, 0.05)):
            layer.weight.normal_().mul_(size)
    return found


@pytest.fixture(scope="module")
def image():
    return read_image(find_images(Path(mini_set_root()) / "val")[0])


def test_run_and_resume(trained, tmp_path, caplog):
    text = (trained / "log.txt").read_text()
    assert "RetinaNet, resnet18_fpn_p6p7, FrozenBN, 8 classes" in text and "evaluated    mini_val: bbox AP" in text
    assert (trained / "detections.jpg").is_file()
    # detectron2 keeps the running number of positive anchors beside the weights; a resumed run goes on from it.
    middle = torch.load(trained / "model_0000001.pth", weights_only=True)
    assert 80 < middle["task"]["loss_normalizer"][0] < 100
    part = tmp_path / "run"
    (part / "parts").mkdir(parents=True)
    for name in ("config.yaml", "model_0000001.pth", "metrics.jsonl"):
        (part / name).write_bytes((trained / name).read_bytes())
    (part / "last_checkpoint").write_text("model_0000001.pth")
    config = config_of(OUTPUT_DIR=str(part), DATASETS__TEST=())
    run(Request(config, resume=True, force=True), MACHINE)
    ends = [torch.load(folder / "model_final.pth", weights_only=True)["model"] for folder in (trained, part)]
    assert all(torch.equal(value, ends[1][name]) for name, value in ends[0].items())


def test_fast_copy_and_classes(detector, image):
    assert detector.classes == list(CLASSES)
    sample = TestTransform(detector.config)(image)
    plain, same = (detect(net, [sample])[0] for net in (detector.model, detector.tested))
    assert len(plain) == len(same) == 10 and plain.pred_classes.equal(same.pred_classes)
    assert (plain.pred_boxes.tensor - same.pred_boxes.tensor).abs().max() < 0.01
    assert (plain.scores - same.scores).abs().max() < 1e-5
    assert len(detector(image)) == 10
    low = fast_copy(detector.model, "bfloat16")
    found = detect(low, [sample])[0]
    assert low.head.cls_subnet[0].weight.dtype == torch.bfloat16 and low.head.bbox_pred.weight.dtype == torch.float32
    assert found.pred_boxes.tensor.dtype == torch.float32 and (found.scores - plain.scores).abs().max() < 0.05


def test_onnx(detector, tmp_path, shared_data):
    images = find_images(shared_data / "coco" / "val2017")[:1]
    report = export_detector(detector, tmp_path / "d.onnx", images)
    ((_, found),) = report.compared.items()
    assert found.objects == 10 and found.box <= 1e-3 and found.score <= 1e-4
    assert report.metadata["model"] == "RetinaNet, resnet18_fpn_p6p7"


def test_other_classes_keep_their_rows(detector):
    model = detection.modeling.build.build(config_of(MODEL__RETINANET__NUM_CLASSES=3))
    names = [CLASSES[5], "unknown", CLASSES[0]]
    fresh = model.head.cls_score.bias.detach().clone().view(9, 3)
    weights = StartingWeights("run", True, detector.model.state_dict(), classes=detector.classes)
    assert "2 of 3 classes mapped by name from 8" in load_initial(model, weights, detector.config, names)
    now, former = (net.head.cls_score for net in (model, detector.model))
    for place, source in ((0, 5), (2, 0)):
        assert now.weight.view(9, 3, -1)[:, place].equal(former.weight.view(9, 8, -1)[:, source])
    assert now.bias.view(9, 3)[:, 1].equal(fresh[:, 1])
    assert model.head.bbox_pred.weight.equal(detector.model.head.bbox_pred.weight)


@pytest.mark.parametrize(
    ("pairs", "said"),
    [
        (("MODEL.RPN.NMS_THRESH", 0.5), "MODEL.RPN.NMS_THRESH has no effect here; RetinaNet has neither an RPN"),
        (("MODEL.MASK_ON", True), "MODEL.MASK_ON has no effect here; RetinaNet has no masks"),
        (("TEST.BOX_REFINEMENT.ENABLED", True), "is for detectors of two stages, not RetinaNet"),
        (("MODEL.BACKBONE.NAME", "resnet50_fpn_p6"), "did you mean 'resnet50_fpn_p6p7'"),
    ],
)
def test_what_it_has_not_is_refused(pairs, said):
    with pytest.raises(ConfigError, match=said):
        detection.get_config(CONFIG, pairs)
