"""Test sets without ground truth are run where their predictions are of use: at the end, and in --eval-only."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest
from torch import nn

from detection.config import default_config
from detection.engine import task as module
from detection.engine.task import DetectionTask


@dataclass
class FakeSet:
    """What the task asks of a test set."""

    name: str
    has_truth: bool
    images: SimpleNamespace = field(init=False)

    def __post_init__(self) -> None:
        self.images = SimpleNamespace(name=self.name)


@pytest.fixture
def task(monkeypatch) -> DetectionTask:
    sets = SimpleNamespace(train=None, test=[FakeSet("val", True), FakeSet("test-dev", False)], classes=["a"])
    task = DetectionTask(nn.Identity(), sets, default_config())
    monkeypatch.setattr(module, "TestMapper", lambda images, transform: images)
    monkeypatch.setattr(module, "run_on_set", lambda model, mapper, **_: [mapper.name])
    monkeypatch.setattr(module, "score", lambda *_: {})
    return task


def test_on_the_way_they_are_left_out(task, monkeypatch):
    task.evaluate(final=False)
    assert task.predictions == {"val": ["val"]}
    drawn = []
    monkeypatch.setattr(module, "evaluation_pictures", lambda images, *_: drawn.append(images.name) or [])
    task.evaluation_pictures()
    assert drawn == ["val"]


@pytest.mark.parametrize("keywords", [{"final": True}, {}])
def test_at_the_end_and_alone_they_are_run(task, keywords):
    task.evaluate(**keywords)
    assert task.predictions == {"val": ["val"], "test-dev": ["test-dev"]}
