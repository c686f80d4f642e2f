"""Our figures of segmentation against detectron2's SemSegEvaluator on the same predictions."""

from __future__ import annotations

import logging

import cv2
import numpy as np
import pytest
import torch

import detection  # noqa: F401 (closes the gaps that importing detectron2 has)
from backbone.segmentation.evaluation import VOID, Confusion, metrics

NAMES = ["background", "mug", "fish", "clock"]


@pytest.fixture
def evaluator(tmp_path, monkeypatch):
    from detectron2.data import DatasetCatalog, MetadataCatalog
    from detectron2.evaluation import SemSegEvaluator

    # Where detectron2 asks numpy for names that it has dropped.
    for name, kind in (("int", int), ("float", float)):
        monkeypatch.setattr(np, name, kind, raising=False)
    monkeypatch.setattr(logging.getLogger("detectron2.evaluation.sem_seg_evaluation"), "disabled", True)
    records = [{"file_name": f"{index}.jpg", "sem_seg_file_name": str(tmp_path / f"{index}.png")} for index in range(4)]
    DatasetCatalog.register("segmentation_figures", lambda: records)
    MetadataCatalog.get("segmentation_figures").set(stuff_classes=NAMES, ignore_label=VOID)
    yield SemSegEvaluator("segmentation_figures", distributed=False)
    DatasetCatalog.remove("segmentation_figures")
    MetadataCatalog.remove("segmentation_figures")


@pytest.mark.parametrize("absent", [None, 3])
def test_figures_are_detectron2s(evaluator, tmp_path, absent):
    random = np.random.default_rng(7)
    evaluator.reset()
    confusion = Confusion(len(NAMES))
    for index in range(4):
        truth = random.integers(0, len(NAMES), (21, 34)).astype(np.uint8)
        if absent is not None:
            truth[truth == absent] = 0
        predicted = np.where(random.random(truth.shape) < 0.7, truth, random.integers(0, len(NAMES), truth.shape))
        truth[random.random(truth.shape) < 0.1] = VOID
        cv2.imwrite(str(tmp_path / f"{index}.png"), truth)
        scores = torch.nn.functional.one_hot(torch.from_numpy(predicted).long(), len(NAMES)).permute(2, 0, 1)
        evaluator.process([{"file_name": f"{index}.jpg"}], [{"sem_seg": scores.float()}])
        confusion.add(torch.from_numpy(predicted), torch.from_numpy(truth))
    expected = evaluator.evaluate()["sem_seg"]
    found = metrics(confusion.counts, NAMES)
    # detectron2's main branch measures boundaries too.
    found = {name: value for name, value in found.items() if name in expected}
    assert set(found) == {name for name in expected if "Boundary" not in name and "B-Iou" not in name}
    if absent is not None:
        # A class that is predicted and never true counts as 0 in our mean, and in that of release 0.6; the main branch
        # leaves it out.
        others = [expected[f"IoU-{name}"] for name in NAMES[:absent]]
        if expected["mIoU"] == pytest.approx(sum(others) / len(others)):
            expected["mIoU"] = sum(others) / len(NAMES)
    for name in found:
        value = expected[name]
        # A class that is predicted and never true is 0 in detectron2's mean, as in ours, but undefined by itself.
        if not (name == f"IoU-{NAMES[3]}" and absent is not None):
            assert 100 * found[name] == pytest.approx(value, nan_ok=True), name
