"""Training steps of CIFAR's ResNet-20, so small that a GPU waits for its kernels to be started."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from backbone.classification.config import load_config
from backbone.classification.data.sources import synthetic_images
from backbone.classification.networks import build, mean_image
from backbone.classification.task import ClassificationTask
from backbone.engine.timing import alternate, only_those_that_run

from .classifiers import OurLoop
from .memory import clean
from .report import Section

STEPS = {"cuda": 100, "cpu": 4}
BATCH = 128  # the paper's
PLAIN = "plain"


def forms_of(kind: str, *, compiled: bool) -> dict[str, Sequence[object]]:
    """Return the config keys of each form, by its name; CUDA graphs are a GPU's."""
    forms: dict[str, Sequence[object]] = {PLAIN: ()}
    if kind == "cuda":
        graphs, last = ("MODEL.CUDA_GRAPHS", True), ("MODEL.CHANNELS_LAST", True)
        forms["CUDA graphs"] = graphs
        forms["CUDA graphs, channels_last"] = (*graphs, *last)
        forms["CUDA graphs, channels_last, bfloat16"] = (*graphs, *last, "SOLVER.AMP.ENABLED", True)
    if compiled:
        forms["compiled"] = ("MODEL.COMPILE", True)
    if compiled and kind == "cuda":
        forms["compiled, CUDA graphs"] = ("MODEL.COMPILE", True, "MODEL.COMPILE_MODE", "reduce-overhead")
    return forms


def measure(*, rounds: int, device: str, compiled: bool, seconds: float | None = None) -> Section:
    """Time steps of the config cifar10_resnet20.yaml on random images, its crops and flips included.

    Args:
        compiled: also compiled.
        seconds: see `suite.run_all`.
    """
    kind = torch.device(device).type
    made = {name: steps_of(keys, device, STEPS[kind]) for name, keys in forms_of(kind, compiled=compiled).items()}
    with torch.backends.cudnn.flags(enabled=True, benchmark=True, deterministic=False, allow_tf32=True):
        ways, skipped = only_those_that_run(made, keep=lambda name: name == PLAIN)
        timings = alternate(ways, rounds=rounds, within=seconds)
    figures = {
        name: {
            "ms_a_step": 1000 * timing.median / STEPS[kind],
            "images_per_second": BATCH * STEPS[kind] / timing.median,
            "times_plain": timings[PLAIN].median / timing.median,
        }
        for name, timing in timings.items()
    }
    clean()
    return Section(
        name=f"pretraining-cifar-{kind}",
        title="Training steps of ResNet-20 on CIFAR-10's sizes",
        method=(
            f"cifar10_resnet20.yaml on random images in the device's memory: batches of {BATCH}, cropped and flipped "
            "there, float32 unless named. In one process, in turn, median of "
            f"{timings[PLAIN].rounds} rounds of {STEPS[kind]} steps."
        ),
        header=["form", "ms a step", "images/s", "times plain", "slowest/fastest"],
        rows=[[name, *found.values(), timings[name].spread] for name, found in figures.items()],
        notes=[f"Left out: {name}: {why}." for name, why in skipped.items()],
        figures=figures,
    )


def steps_of(keys: Sequence[object], device: str, steps: int) -> Callable[[], None]:
    """Return a call that takes the first steps of a training."""
    config = load_config(
        "cifar10_resnet20.yaml",
        [*("DATA.SYNTHETIC", True, "MODEL.NUM_CLASSES", 10, "MODEL.DEVICE", device), *keys],
    )
    images = synthetic_images(config)
    torch.manual_seed(0)
    loop = OurLoop(config, ClassificationTask(build(config), images, images, config, mean_image(images)))

    def run() -> None:
        for batch in loop.task.batches(0, steps):
            loop.averages.add(*loop.trainer.step(batch))

    return run
