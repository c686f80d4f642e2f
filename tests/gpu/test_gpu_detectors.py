"""A detector on the GPU: trained in every precision, resumed, placed whole, and finding what the CPU finds."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pytest
import torch

import detection

CONFIG = "mini_faster_rcnn_r18.yaml"
TINY = {
    "SOLVER.IMS_PER_BATCH": 2, "SOLVER.REFERENCE_BATCH_SIZE": 2, "SOLVER.BASE_LR": 0.01, "SOLVER.WARMUP_ITERS": 3,
    "SOLVER.LOG_PERIOD": 1, "INPUT.MIN_SIZE_TRAIN": (80,), "INPUT.MIN_SIZE_TEST": 80, "MODEL.FPN.OUT_CHANNELS": 16,
    "MODEL.ROI_BOX_HEAD.FC_DIM": 32, "DATALOADER.NUM_WORKERS": 1, "TEST.PICTURES": 0,
}  # fmt: skip
SHORT = {**TINY, "SOLVER.MAX_ITER": 30, "SOLVER.STEPS": (28,)}
STEPS = {**TINY, "SOLVER.MAX_ITER": 4, "SOLVER.STEPS": (28,), "SOLVER.CHECKPOINT_PERIOD": 2, "DATASETS.TEST": ()}


def keys(values: dict) -> list[object]:
    return [word for pair in values.items() for word in pair]


@pytest.fixture(scope="module")
def trained(tool, tmp_path_factory):
    """Return the folder of a short training, and what it printed."""
    folder = tmp_path_factory.mktemp("gpu") / "run"
    return folder, tool("train_net.py", "--config", CONFIG, "--output-dir", folder, *keys(SHORT))


def test_the_run_names_its_device(trained, device):
    folder, printed = trained
    name = torch.cuda.get_device_name() if device == "cuda" else "thread"
    assert name in printed
    assert "AP" in json.loads((folder / "results.json").read_text())["bbox"]
    content = torch.load(folder / "model_final.pth", weights_only=True)
    assert all(torch.isfinite(tensor).all() for tensor in content["model"].values() if tensor.is_floating_point())
    losses = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    totals = [line["total_loss"] for line in losses if "total_loss" in line]
    assert totals[-1] < totals[0]


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_mixed_precision(tool, tmp_path, precision):
    flags = ("train_net.py", "--config", CONFIG, "--output-dir", tmp_path)
    mixed = {**STEPS, "SOLVER.AMP.ENABLED": True, "SOLVER.AMP.DTYPE": precision}
    if precision == "bfloat16":
        tool(*flags, *keys({**mixed, "SOLVER.MAX_ITER": 2}))
        assert "resumed from" in tool(*flags, "--resume", "--force", *keys(mixed))
    else:
        tool(*flags, *keys(mixed))
    assert torch.load(tmp_path / "model_final.pth", weights_only=True)["iteration"] == 4


def test_the_cpu_finds_the_same(trained, tool, tmp_path):
    """The figures of the whole evaluation on both."""
    weights = trained[0] / "model_final.pth"
    found = []
    for name, where in (("own", {}), ("cpu", {"where": "cpu"})):
        flags = ("--config", CONFIG, "--eval-only", "--weights", weights, "--output-dir", tmp_path / name)
        tool("train_net.py", *flags, *keys(SHORT), **where)
        found.append(json.loads((tmp_path / name / "results.json").read_text())["bbox"])
    assert found[0]["AP"] == pytest.approx(found[1]["AP"], abs=2e-3)
    assert found[0]["AP50"] == pytest.approx(found[1]["AP50"], abs=2e-3)


def test_boxes_equal_those_of_the_cpu(trained, device):
    from backbone.common.images import find_images, read_image
    from backbone.common.mini_set import mini_set_root
    from detection.inference.detector import load_trained_detector

    detection.register()
    path = str(trained[0] / "model_final.pth")
    keys = ["MODEL.ROI_HEADS.SCORE_THRESH_TEST", 0.01]
    here, cpu = (load_trained_detector(path, device=place, overrides=keys) for place in (device, "cpu"))
    for file in find_images(mini_set_root() / "val")[:3]:
        image = read_image(file)
        a, b = here.detect(image), cpu.detect(image)
        # The sure ones: of several with almost the same score, the order may be another.
        number = int((b.scores > b.scores.max() / 2).sum())
        assert number and np.allclose(a.scores[:number], b.scores[:number], atol=2e-3)
        apart = (a.pred_boxes.tensor[None] - b.pred_boxes.tensor[:number, None]).abs().amax(dim=2)
        apart += 1000.0 * (a.pred_classes[None] != b.pred_classes[:number, None])
        nearest, places = apart.min(dim=1)
        assert nearest.max() < 0.5 and len(set(places.tolist())) == number
        assert np.allclose(a.scores[places], b.scores[:number], atol=2e-3)


@pytest.mark.parametrize(
    "name", ["coco_faster_rcnn_r50_fpn.yaml", "coco_faster_rcnn_r50.yaml", "coco_mask_rcnn_r50_fpn.yaml"]
)
def test_everything_lies_on_the_device(device, name):
    from detection.modeling.build import build

    detection.register()
    model = build(
        detection.get_config(name, ["MODEL.DEVICE", device, "MODEL.WEIGHTS", "", "MODEL.BACKBONE.NAME", small(name)])
    )
    places = {tensor.device.type for tensor in [*model.parameters(), *model.buffers()]}
    assert places == {torch.device(device).type}


def small(name: str) -> str:
    return "resnet18_fpn" if "fpn" in name else "resnet18"


def test_a_training_step_waits_less_often_than_detectron2s(device):
    """Reading a value on the host makes the GPU wait. On the CPU test_waits.py counts what can be counted there."""
    if device == "cpu":
        pytest.skip("a CPU waits for nothing")
    from benchmarks import scenes, stock
    from benchmarks.variants import OURS, PEER, Variant, Way

    batches = scenes.drawn_batches((320, 480), batch=2, batches=1)
    pair = stock.make_pair("r50_fpn", batches[0], device)
    counted = {}
    for whose in (PEER, OURS):
        way = Way(pair, Variant(whose), batches, training=True)
        way()
        torch.cuda.set_sync_debug_mode("warn")
        try:
            with warnings.catch_warnings(record=True) as seen:
                warnings.simplefilter("always")
                way()
        finally:
            torch.cuda.set_sync_debug_mode("default")
        counted[whose] = sum("synchroniz" in str(warning.message) for warning in seen)
    assert counted[OURS] < counted[PEER] / 2, counted
