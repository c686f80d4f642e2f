"""What the methods of a test cost."""

from __future__ import annotations

import torch
from torch import nn

from backbone.engine.timing import alternate

from ..modeling.testing import Pipeline
from .run import detect
from .transform import TestMapper

TIMED_IMAGES = 3


def cost_line(plain: nn.Module, tested: Pipeline, mapper: TestMapper) -> str:
    """Time a few images with the methods and without, and return a line with time and, on a GPU, peak memory."""
    number = min(TIMED_IMAGES, len(mapper.images))
    samples = [mapper(index) for index in range(number)]
    peaks: dict[str, int] = {}
    on_gpu = next(plain.parameters()).device.type == "cuda"

    def run(name: str, model: nn.Module) -> None:
        if on_gpu:
            torch.cuda.reset_peak_memory_stats()
        for sample in samples:
            detect(model, [sample])
        if on_gpu:
            peaks[name] = torch.cuda.max_memory_allocated()

    models = {"plain": plain, "tested": tested}
    ways = {name: lambda name=name, model=model: run(name, model) for name, model in models.items()}
    seconds = {name: timing.median / number for name, timing in alternate(ways, rounds=1, warm_up=int(on_gpu)).items()}
    line = (
        f"cost         {seconds['tested']:.3g} s an image with {', '.join(tested.methods.names)}; "
        f"{seconds['plain']:.3g} s plain ({seconds['tested'] / seconds['plain']:.1f}x, {number} images timed)"
    )
    if on_gpu:
        line += f"; peak GPU memory {peaks['tested'] / 2**30:.2f} GiB against {peaks['plain'] / 2**30:.2f} GiB"
    return line
