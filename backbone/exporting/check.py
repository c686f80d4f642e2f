"""Comparing what a file computes with what its source computes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

from ..common.errors import ExportError
from ..networks.contract import Backbone
from .graph import ExportGraph, ExportOptions
from .quiet import first_line, last_line

TOLERANCE = 1e-4
Example = tuple[Tensor, dict[str, Tensor]]  # images, and the network's stages
Run = Callable[[Tensor], dict[str, Tensor]]


def shape_text(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))


def examples_of(source: Backbone, graph: ExportGraph, options: ExportOptions) -> list[Example]:
    """Return images of every shape that must fit, and what the network makes of them.

    Raises:
        ExportError: the network cannot take them.
    """
    examples = []
    for seed, shape in enumerate(options.shapes_to_check()):
        images = graph.example(shape, seed)
        try:
            with torch.no_grad():
                examples.append((images, source(source.preprocessing(images) if graph.bakes else images)))
        except RuntimeError as error:
            first = next((module for module in source.modules() if isinstance(module, nn.Conv2d)), None)
            channels = first.in_channels if first is not None else images.shape[1]
            mend = "give another input_size"
            if channels != images.shape[1]:
                mend = f"its first convolution takes {channels}-channel images, an export is one of {images.shape[1]}"
            raise ExportError(
                f"{source.architecture} cannot take images of {shape_text(shape)}: {first_line(error)}; {mend}"
            ) from error
    return examples


def compare(run: Run, examples: Iterable[Example], tolerance: float, where: str) -> dict[str, dict[str, float]]:
    """Return the differences by shape of images and stage.

    Args:
        run: the file in its runtime.
        where: file and runtime, for messages.

    Raises:
        ExportError: it does not run, or computes something else.
    """
    compared = {}
    for images, expected in examples:
        place = f"{where}, images of {shape_text(images.shape)},"
        try:
            with torch.no_grad():
                found = run(images)
        except Exception as error:  # runtimes' exceptions have no common base
            raise ExportError(f"{place} fails: {last_line(error)}; nothing was kept") from error
        compared[shape_text(images.shape)] = differences(found, expected, tolerance=tolerance, where=place)
    return compared


def differences(
    found: Mapping[str, Tensor],
    expected: Mapping[str, Tensor],
    *,
    tolerance: float,
    where: str,
    source: str = "network",
) -> dict[str, float]:
    """Return each output's largest difference over the largest value of the source's output.

    Args:
        where: file, runtime and image size, for messages; source: what it is compared with.

    Raises:
        ExportError: names, shapes or values differ, by more than `tolerance`.
    """
    if list(found) != list(expected):
        raise ExportError(f"{where} gives {', '.join(found)}, the {source} {', '.join(expected)}; nothing was kept")
    result = {}
    for name, value in expected.items():
        if found[name].shape != value.shape:
            shapes = [shape_text(tensor.shape) for tensor in (found[name], value)]
            raise ExportError(f"{where} gives {name} of {shapes[0]}, the {source} {shapes[1]}; nothing was kept")
        if not torch.isfinite(value).all():
            raise ExportError(
                f"the {source}'s {name} is not finite on images of noise, so that no file can be compared with it; "
                "load weights, or train it, first"
            )
        if not value.numel():
            # Of masks, where nothing is found.
            result[name] = 0.0
            continue
        scale = value.abs().max().item()
        difference = (found[name].float() - value).abs().max().item()
        result[name] = difference / scale if scale else difference
        # Not `>`: NaN must not pass.
        if not result[name] <= tolerance:
            raise ExportError(
                f"{where} differs from the {source} in {name} by {result[name]:.2g} of its largest value, more than "
                f"{tolerance:g}; nothing was kept"
            )
    return result
