"""The training step of a classifier: it never waits for the device, and compiled it computes the same."""

from __future__ import annotations

import contextlib
from argparse import Namespace

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from backbone.classification import load_config
from backbone.classification.data.sources import synthetic_images
from backbone.classification.networks import build, mean_image
from backbone.classification.optimizer import make_optimizer
from backbone.classification.plan import plan
from backbone.classification.session import ClassificationRun
from backbone.classification.task import ClassificationTask
from backbone.common.errors import ConfigError
from backbone.engine import distributed
from backbone.engine.averages import Averages
from backbone.engine.plan import precision
from backbone.engine.solver import make_schedule, make_settings
from backbone.engine.trainer import Trainer

# What hands a value of the device to Python.
WAITING = ("aten._local_scalar_dense", "aten.is_nonzero", "aten.equal", "aten.nonzero")


class Operators(TorchDispatchMode):
    """Notes the operators that run."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.names.append(str(function))
        return function(*args, **(kwargs or {}))


def make(device: str = "cpu", **changes: object) -> Trainer:
    keys = [part for key, value in changes.items() for part in (key.replace("__", "."), value)]
    config = load_config(
        "cifar10_resnet20.yaml",
        ["DATA.SYNTHETIC", True, "MODEL.NUM_CLASSES", 10, "SOLVER.IMS_PER_BATCH", 8, "MODEL.DEVICE", device, *keys],
    )
    images = synthetic_images(config)
    torch.manual_seed(0)
    task = ClassificationTask(build(config), images, images, config, mean_image(images))
    task.model.train()
    return Trainer(task, make_optimizer(task.model, config), make_schedule(config), make_settings(config, best=""))


def steps(trainer: Trainer, averages: Averages, start: int, end: int) -> list[torch.Tensor]:
    losses = []
    for batch in trainer.task.batches(start, end):
        found, step_metrics = trainer.step(batch)
        averages.add(found, step_metrics)
        losses.append(found["loss_class"])
    return losses


def test_no_value_is_read_in_a_step():
    trainer, averages = make(SOLVER__EMA_DECAY=0.9), Averages()
    # The first loss is shown at once.
    steps(trainer, averages, 0, 1)
    with Operators() as seen:
        steps(trainer, averages, 1, 3)
    assert any(name.startswith("aten.convolution_backward") for name in seen.names)
    assert not [name for name in seen.names if name.startswith(WAITING)]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("mixed", [False, True])
def test_no_step_waits_for_the_gpu(mixed):
    changes = {"INPUT__MIXUP": 0.2, "INPUT__CUTMIX": 1.0} if mixed else {}
    trainer, averages = make("cuda", SOLVER__EMA_DECAY=0.9, **changes), Averages()
    steps(trainer, averages, 0, 2)
    torch.cuda.set_sync_debug_mode("error")
    try:
        steps(trainer, averages, 2, 5)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("mixed", [{}, {"INPUT__MIXUP": 0.2}], ids=["plain", "mixed"])
def test_parts_of_a_batch_make_the_step_of_the_whole(mixed):
    def sums(parts: int) -> tuple[list, dict]:
        rate = {"SOLVER__BASE_LR": 1e-6}  # without its norms' statistics, the network is far from any solution
        trainer = make(SOLVER__ACCUMULATE=parts, SOLVER__IMS_PER_BATCH=6, **rate, **mixed)
        averages = Averages()
        for module in trainer.task.model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
        steps(trainer, averages, 0, 3)
        averages.take(3)
        return [state["momentum_buffer"] for state in trainer.optimizer.state.values()], averages.last

    (whole, shown), (summed, shown_too) = sums(1), sums(3)
    assert whole
    for one, other in zip(summed, whole, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5 * float(other.abs().max()), rtol=0)
    assert shown_too == pytest.approx(shown, rel=1e-5)


def test_gradients_are_gone_in_the_forward_pass(monkeypatch):
    trainer = make()
    seen = []
    losses = trainer.task.losses

    def watched(*arguments):
        seen.append(any(parameter.grad is not None for parameter in trainer.task.model.parameters()))
        return losses(*arguments)

    monkeypatch.setattr(trainer.task, "losses", watched)
    steps(trainer, Averages(), 0, 2)
    assert seen == [False, False]


def test_the_mode_of_the_compiler_is_handed_on(monkeypatch):
    asked, marked = [], []
    monkeypatch.setattr(torch, "compile", lambda model, mode, dynamic: asked.append((mode, dynamic)) or model)
    monkeypatch.setattr(torch.compiler, "cudagraph_mark_step_begin", lambda: marked.append(1))
    steps(make(MODEL__COMPILE=True), Averages(), 0, 2)
    steps(make(MODEL__COMPILE=True, MODEL__COMPILE_MODE="reduce-overhead"), Averages(), 0, 2)
    # One graph for several sizes would be slower.
    assert asked == [("default", False), ("reduce-overhead", False)]
    assert len(marked) == 2


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        (("SOLVER.ACCUMULATE", 3), "SOLVER.ACCUMULATE 3 must divide SOLVER.IMS_PER_BATCH, which is 128"),
        (("SOLVER.ACCUMULATE", 0), "SOLVER.ACCUMULATE must be above 0, not 0"),
        (("MODEL.COMPILE_MODE", "fast"), "MODEL.COMPILE_MODE is 'fast'"),
        (("MODEL.COMPILE_MODE", "reduce-overhead"), "MODEL.COMPILE_MODE 'reduce-overhead' needs MODEL.COMPILE True"),
        (("MODEL.CUDA_GRAPHS", True, "MODEL.COMPILE", True), "MODEL.CUDA_GRAPHS is for networks that are not compiled"),
        (("MODEL.CUDA_GRAPHS", True, "MODEL.CHECKPOINTING", True), "which runs each block twice, do not go together"),
    ],
)
def test_mistakes(keys, expected):
    with pytest.raises(ConfigError, match=expected) as caught:
        load_config("cifar10_resnet20.yaml", keys)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("mode", "expected"), [("default", ", compiled\n"), ("max-autotune", ", compiled (max-auto")])
def test_plan_says_the_mode(mode, expected):
    trainer = make(MODEL__COMPILE=True, MODEL__COMPILE_MODE=mode)
    task = trainer.task
    shown = plan(task.model, None, task.test, task.config, weights="none", notes=[], protocols=["1crop", "10crop"])
    assert expected in shown and "; 1crop, 10crop\n" in shown


def test_cuda_graphs_are_for_one_process(monkeypatch):
    run = object.__new__(ClassificationRun)
    run.config = load_config("cifar10_resnet20.yaml", ["MODEL.CUDA_GRAPHS", True, "MODEL.DEVICE", "cuda"])
    run.request = Namespace(eval_only=False)
    monkeypatch.setattr(distributed, "world_size", lambda: 2)
    with pytest.raises(ConfigError, match="MODEL.CUDA_GRAPHS is for one process; several take MODEL.COMPILE True"):
        run.open()


def test_cuda_graphs_are_a_gpus():
    trainer = make(MODEL__CUDA_GRAPHS=True)
    assert torch.equal(*map(torch.stack, (steps(trainer, Averages(), 0, 1), steps(make(), Averages(), 0, 1))))
    config = trainer.task.config
    assert "graphs" not in precision(config)
    config.defrost()
    config.MODEL.DEVICE = "cuda"
    assert precision(config) == "float32, CUDA graphs"


@pytest.mark.slow
@pytest.mark.parametrize(
    "device", ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"))]
)
@pytest.mark.parametrize("mode", ["default", "reduce-overhead"])
def test_compiled_it_learns_the_same(device, mode):
    with contextlib.suppress(AttributeError):
        torch._dynamo.reset()
    expected = steps(make(device), Averages(), 0, 4)
    trainer = make(device, MODEL__COMPILE=True, MODEL__COMPILE_MODE=mode)
    found = steps(trainer, Averages(), 0, 4)
    assert torch.allclose(torch.stack(found), torch.stack(expected), rtol=1e-2)
