"""The training step of a detector: a batch in parts, the average of the weights, detectron2's counts in the metrics."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from detectron2.solver import build_optimizer
from detectron2.structures import Boxes, Instances
from peers import config as settings_of
from waits_counted import Waits

from backbone.engine.averages import Averages
from backbone.engine.solver import fuse, make_schedule, make_settings
from backbone.engine.trainer import Trainer
from detection.engine.model import make_optimizer
from detection.engine.task import DetectionTask
from detection.inference.fast import fast_copy
from detection.modeling.build import build
from detection.modeling.compiled import compile_parts

SIDE = 64
SMALL = {
    "MODEL__BACKBONE__NAME": "resnet18_fpn",
    "MODEL__FPN__OUT_CHANNELS": 16,
    "MODEL__ROI_BOX_HEAD__FC_DIM": 16,
    "MODEL__ROI_HEADS__NUM_CLASSES": 3,
    # All anchors and proposals are drawn, so that no draw decides.
    "MODEL__RPN__BATCH_SIZE_PER_IMAGE": 10_000,
    "MODEL__ROI_HEADS__BATCH_SIZE_PER_IMAGE": 1000,
    "MODEL__ROI_HEADS__POSITIVE_FRACTION": 1.0,
    "MODEL__RPN__POSITIVE_FRACTION": 1.0,
    "MODEL__RPN__POST_NMS_TOPK_TRAIN": 10,
    "SOLVER__IMS_PER_BATCH": 4,
    "SOLVER__BASE_LR": 0.001,
    "SOLVER__WARMUP_ITERS": 0,
}


def make(**changes: object) -> Trainer:
    config = settings_of("coco_faster_rcnn_r50_fpn.yaml", **SMALL, **changes)
    torch.manual_seed(0)
    model = build(config)
    sets = SimpleNamespace(train=None, test=[], classes=["a", "b", "c"])
    task = DetectionTask(model.train(), sets, config)
    optimizer = build_optimizer(config, model)
    fuse(optimizer)
    return Trainer(task, optimizer, make_schedule(config), make_settings(config, best=""))


def batch_of(seed: int) -> list[dict]:
    generator = torch.Generator().manual_seed(seed)
    samples = []
    for _ in range(4):
        corner = torch.rand(2, 2, generator=generator) * 30
        boxes = Boxes(torch.cat([corner, corner + 10 + torch.rand(2, 2, generator=generator) * 20], dim=1))
        truth = Instances((SIDE, SIDE), gt_boxes=boxes, gt_classes=torch.tensor([0, 2]))
        pixels = torch.randint(256, (3, SIDE, SIDE), generator=generator, dtype=torch.uint8)
        samples.append({"image": pixels, "instances": truth})
    return samples


def after_steps(trainer: Trainer, number: int = 2) -> dict[str, float]:
    averages = Averages()
    for seed in range(number):
        averages.add(*trainer.step(batch_of(seed)))
    averages.take(number)
    return averages.last


def test_parts_of_a_batch_make_the_step_of_the_whole():
    whole, summed = make(), make(SOLVER__ACCUMULATE=2)
    shown, shown_too = after_steps(whole), after_steps(summed)
    counts = {name: value for name, value in shown.items() if not name.endswith(("accuracy", "share"))}
    drawn = [counts[f"roi_head/num_{kind}_samples"] for kind in ("fg", "bg")]
    assert 0 < shown["roi_head/foreground_share"] == pytest.approx(drawn[0] / sum(drawn), rel=0.05)
    assert {name: shown_too[name] for name in counts} == pytest.approx(counts, rel=2e-4, abs=1e-6)
    for one, other in zip(whole.task.model.parameters(), summed.task.model.parameters()):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-5)
    assert {"rpn/num_pos_anchors", "fast_rcnn/fg_cls_accuracy", "rpn/foreground_share"} <= shown.keys()


@pytest.mark.parametrize("kind", ["value", "norm"])
def test_gradients_are_clipped_as_by_detectron2(kind):
    """Its optimizer clips in its own step; ours is that optimizer without it, behind the trainer's clipping."""
    keys = {f"SOLVER__CLIP_GRADIENTS__{key}": value for key, value in (("CLIP_TYPE", kind), ("CLIP_VALUE", 0.01))}
    plain = make(**keys)
    ours = make(**keys, SOLVER__CLIP_GRADIENTS__ENABLED=True)
    theirs = ours.optimizer
    assert type(theirs).__name__ == "SGDWithGradientClip" and type(plain.optimizer).__name__ == "SGD"
    ours.optimizer = make_optimizer(ours.task.config, ours.task.model)
    assert type(ours.optimizer).__name__ == "SGD"
    other = make(**keys)
    other.optimizer = build_optimizer(ours.task.config, other.task.model)
    for trainer in (plain, ours, other):
        trainer.step(batch_of(0))
    parameters = [list(trainer.task.model.parameters()) for trainer in (plain, ours, other)]
    for one, same in zip(parameters[1], parameters[2]):
        torch.testing.assert_close(one, same, rtol=1e-6, atol=1e-9)
    assert any(not torch.equal(one, free) for one, free in zip(parameters[1], parameters[0]))


def test_the_average_is_tested_kept_and_resumed():
    trainer = make(SOLVER__EMA_DECAY=0.9)
    task, name = trainer.task, "roi_heads.box_predictor.cls_score.weight"
    values = [task.model.state_dict()[name].clone()]
    for seed in range(2):
        trainer.step(batch_of(seed))
        values.append(task.model.state_dict()[name].clone())
    expected = values[0]
    for steps, value in enumerate(values[1:], 1):
        decay = min(0.9, (1 + steps) / (10 + steps))
        expected = decay * expected + (1 - decay) * value
    torch.testing.assert_close(task.weights()[name], expected)
    assert torch.equal(task.averaged().state_dict()[name], task.weights()[name])
    assert torch.equal(task.model.state_dict()[name], values[-1])
    resumed = make(SOLVER__EMA_DECAY=0.9).task
    resumed.load_state_dict(task.state_dict())
    assert torch.equal(resumed.weights()[name], task.weights()[name])


def test_a_step_with_its_counts_reads_nothing_more(monkeypatch):
    trainer, averages = make(SOLVER__EMA_DECAY=0.9), Averages()
    averages.add(*trainer.step(batch_of(0)))  # is shown at once
    with Waits(monkeypatch) as counter:
        averages.add(*trainer.step(batch_of(1)))
    assert (counter.number, counter.nms) == (4, 4)


@pytest.mark.parametrize("kind", [float, torch.tensor])
def test_counts_that_only_some_steps_have_are_averaged_over_those(kind):
    averages = Averages()
    averages.add({"loss": torch.tensor(1.0)}, {"a": 1.0})
    averages.add({"loss": torch.tensor(3.0)}, {"a": kind(2.0), "b": kind(5.0)})
    averages.take(2)
    assert averages.last == {"loss": 2.0, "a": 1.5, "b": 5.0}
    assert averages.losses == {"loss": 2.0}


def test_a_compiled_step_has_the_same_losses(monkeypatch):
    # The graphs, without the compiler of kernels, which takes minutes.
    compiled, whole = [], torch.nn.Module.compile
    monkeypatch.setattr(
        torch.nn.Module,
        "compile",
        lambda self, **options: (compiled.append(self), whole(self, backend="eager", **options)),
    )
    plain, trainer = make(), make()
    names = list(trainer.task.model.state_dict())
    compile_parts(trainer.task.model)
    assert compiled == [trainer.task.model.backbone, trainer.task.model.roi_heads.box_head]
    assert list(trainer.task.model.state_dict()) == names
    for seed in range(2):
        torch.manual_seed(seed)
        wanted, _ = plain.step(batch_of(seed))
        torch.manual_seed(seed)
        losses, _ = trainer.step(batch_of(seed))
        torch.testing.assert_close(losses, wanted, atol=1e-5, rtol=1e-5)
    sample = {"image": batch_of(5)[0]["image"], "height": SIDE, "width": SIDE}
    tested = fast_copy(trainer.task.model.eval())
    with torch.no_grad():
        found, wanted = (model([sample])[0]["instances"].scores for model in (tested, plain.task.model.eval()))
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=0)
