"""What a network costs, stage by stage, found without computing anything: all tensors are on the meta device."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..common.errors import ArchitectureError
from ..networks import Backbone, create, find_architecture, freeze_norm
from ..networks.precise_bn import recompute_bn
from .counts import Counting
from .fields import FollowFields, effective_fields
from .memory import Kept, Peak, nbytes
from .norms import NormsByShape


@dataclass(frozen=True)
class StageReport:
    """One stage. Counts and bytes are those of the whole batch, bytes those of float32.

    Attributes:
        output: (C, H, W) of the feature map; (classes,) of `logits`.
        stride: input pixels a feature cell; None for `logits`.
        layers: convolutions and linear layers.
        parameters: trainable or not; the four vectors of a frozen BN are buffers and not counted.
        macs, activations: see `Counts`.
        field: side of the theoretical receptive field in pixels; None for `logits`, which sees the whole image.
        kept: {kind of training: bytes that the stage keeps for the backward pass, or None where BN cannot train}.
        peak: most bytes of features alive at a moment of inference within the stage.
    """

    name: str
    output: tuple[int, ...]
    stride: int | None
    layers: int
    parameters: int
    macs: int
    activations: int
    field: int | None
    kept: dict[str, int | None]
    peak: int


@dataclass(frozen=True)
class NetworkReport:
    """A network's stages, in order of depth, and what belongs to all of them.

    Attributes:
        input_size: (H, W) in pixels.
        keywords: given to `backbone.create`.
        weights: bytes of parameters and buffers.
        training: {kind of training: bytes of weights, gradients, SGD's momentum and what is kept}; see `analyse`.
    """

    name: str
    input_size: tuple[int, int]
    batch_size: int
    keywords: dict[str, Any]
    stages: tuple[StageReport, ...]
    weights: int
    training: dict[str, int | None]

    def total(self, value: str) -> int:
        """Return the sum of "parameters", "macs", "activations" or "layers" over the stages."""
        return sum(getattr(stage, value) for stage in self.stages)

    @property
    def field(self) -> int:
        """Side of the theoretical receptive field of the last feature map, in pixels."""
        return next(stage.field for stage in reversed(self.stages) if stage.field is not None)

    @property
    def inference(self) -> int:
        """Bytes of weights, images and features at the peak of inference."""
        return self.weights + max(stage.peak for stage in self.stages)

    def kept(self, kind: str) -> int | None:
        """Return the bytes kept for the backward pass by all stages."""
        values = [stage.kept[kind] for stage in self.stages]
        return None if None in values else sum(values)


def analyse(
    name: str,
    *,
    size: tuple[int, int] | None = None,
    batch_size: int = 1,
    freeze_at: int = 2,
    **keywords: Any,
) -> NetworkReport:
    """Count a network's parameters, multiply-adds, activations, receptive fields and memory, stage by stage.

    Memory is that of the tensors themselves in float32. Not in it: work space of convolutions (on a CPU, oneDNN's copy
    of a layer's output or weights in its own layout), what an allocator holds back, and, in training, the gradients of
    activations while they are on their way. Training is reckoned in two
    kinds: "bn", all stages trained, and "frozen_bn", as detectors fine-tune; a third where `norm` asks for another.
    What a kind keeps for the backward pass includes the images where the first layer is trained.

    Args:
        name: one of `backbone.list_backbones()`.
        size: (H, W) of the images; by default what its classifier is trained on.
        freeze_at: stages without gradients in the kind "frozen_bn".
        keywords: of `backbone.create`; by default with the classifier of ImageNet or CIFAR-10.

    Raises:
        ArchitectureError: unknown name or keyword, or images that are too small for the network.
    """
    table = find_architecture(name)
    height, width = size or (table.image_size, table.image_size)
    channels = keywords.get("in_chans", 3)
    if min(height, width, batch_size) < 1:
        raise ArchitectureError(
            f"{name}: a batch of {batch_size} x {channels} x {height} x {width}: each must be at least 1"
        )
    keywords = {"num_classes": table.num_classes, **keywords}
    net = _build(name, keywords).eval()
    images = torch.empty(batch_size, net.in_chans, height, width, device="meta")
    counting, peak, fields = Counting(), Peak(net, images), FollowFields(images)
    try:
        with torch.no_grad(), NormsByShape(), counting, peak, fields:
            shapes, seen = _shapes_and_fields(net, images, fields, (counting, peak))
    except RuntimeError:
        raise ArchitectureError(
            f"{name}: images of {height}x{width} pixels are too small; the smallest side is {_smallest_side(net)}"
        ) from None
    parameters, weights = {stage: _parameters(net, stage) for stage in shapes}, nbytes(net)
    kept, trained = _training(keywords, net, images, freeze_at)
    stages = tuple(
        StageReport(
            name=stage,
            output=shape,
            stride=net.feature_info[stage].stride or None,
            parameters=parameters[stage],
            field=seen[stage],
            kept={kind: None if of is None else of.get(stage, 0) for kind, of in kept.items()},
            peak=peak.bytes[stage],
            **vars(counting.counts[stage]),
        )
        for stage, shape in shapes.items()
    )
    # Gradients and momentum have the size of what is trained.
    training = {
        kind: None if of is None else weights + 2 * trained[kind] + sum(of.values()) for kind, of in kept.items()
    }
    return NetworkReport(name, (height, width), batch_size, keywords, stages, weights, training)


def measure_effective_fields(
    name: str, *, size: tuple[int, int] | None = None, samples: int = 4, **keywords: Any
) -> dict[str, float]:
    """Measure the effective receptive fields of an untrained network; see `effective_fields`.

    It is built with BN (or the `norm` of "gn"), whose statistics are taken from noise images.

    Returns:
        {stage: side in pixels} for every stage but `logits`.
    """
    if samples < 1:
        raise ArchitectureError(f"{name}: effective fields need at least 1 image, not {samples}")
    side = find_architecture(name).image_size
    size = size or (side, side)
    norm = "gn" if keywords.get("norm") == "gn" else "bn"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = create(name, **{**keywords, "num_classes": None, "norm": norm, "out_features": None})
        net.out_features = tuple(net.stage_names)
        if any(isinstance(module, nn.BatchNorm2d) for module in net.modules()):
            recompute_bn(net, [torch.randn(2, net.in_chans, *size)], 2)
    return effective_fields(net.eval(), size, samples=samples)


def _build(name: str, keywords: dict[str, Any]) -> Backbone:
    with torch.device("meta"):
        return create(name, **keywords)


def _run(net: Backbone, images: Tensor, watchers: tuple, after: Callable[[str, Tensor], None] | None = None) -> None:
    """Run stage after stage as `forward` does, and tell the watchers which."""
    outputs, x = {}, images
    for stage, compute in net.stages():
        for watcher in watchers:
            watcher.stage = stage
        x = compute(x)
        if stage in net.out_features:
            outputs[stage] = x
        if after is not None:
            after(stage, x)
        if stage == net.out_features[-1]:
            return


def _shapes_and_fields(
    net: Backbone, images: Tensor, fields: FollowFields, watchers: tuple
) -> tuple[dict[str, tuple[int, ...]], dict[str, int | None]]:
    shapes, seen = {}, {}

    def note(stage: str, x: Tensor) -> None:
        shapes[stage] = tuple(x.shape[1:])
        seen[stage] = fields.fields[x].size if x.dim() == 4 else None

    _run(net, images, watchers, note)
    return shapes, seen


def _smallest_side(net: Backbone) -> int:
    """Return the side of the smallest square image that the network takes."""
    for side in range(1, 257):
        try:
            with torch.no_grad():
                _run(net, torch.empty(1, net.in_chans, side, side, device="meta"), ())
            return side
        except RuntimeError:
            continue
    raise ArchitectureError(f"{net.architecture}: takes no images up to 256x256 pixels")


def _parameters(net: Backbone, stage: str) -> int:
    modules = [net.get_submodule(name) for name in net.stage_modules(stage)]
    return sum(parameter.numel() for module in modules for parameter in module.parameters())


def _training(
    keywords: dict[str, Any], net: Backbone, images: Tensor, freeze_at: int
) -> tuple[dict[str, dict[str, int] | None], dict[str, int]]:
    """Return {kind: {stage: bytes kept}}, None where BN cannot train, and {kind: bytes of trained parameters}."""
    kept, trained = {}, {}
    for kind, trainee in _kinds(keywords, net, freeze_at):
        kept[kind] = _kept(trainee.train(), images)
        trained[kind] = sum(p.numel() * p.element_size() for p in trainee.parameters() if p.requires_grad)
    return kept, trained


def _kinds(keywords: dict[str, Any], net: Backbone, freeze_at: int) -> Iterator[tuple[str, Backbone]]:
    norm = keywords.get("norm", "bn")
    if norm not in ("bn", "frozen_bn"):
        yield norm, net
    trained = net if norm == "bn" else _build(net.architecture, {**keywords, "norm": "bn"})
    yield "bn", trained
    # Frozen in place: to build the network once more takes longer than all the rest.
    freeze_norm(trained)
    trained.freeze(freeze_at)
    yield "frozen_bn", trained


def _kept(net: Backbone, images: Tensor) -> dict[str, int] | None:
    try:
        with NormsByShape(), Kept(net) as kept:
            _run(net, images, (kept,))
    except ValueError:  # torch's batch_norm: one value a channel
        return None
    return kept.bytes
