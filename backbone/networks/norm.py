"""Normalisation layers by name, frozen batch normalisation, and the turns between them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce
from torch.nn.modules.batchnorm import _BatchNorm

from ..common.errors import ArchitectureError

EPS = 1e-5  # of every BN in the paper's, torchvision's and detectron2's networks


@dataclass(frozen=True)
class _Before:
    """Settings of a batch normalisation that a frozen one has no use for."""

    kind: type = nn.BatchNorm2d
    momentum: float | None = 0.1
    affine: bool = True
    track_running_stats: bool = True
    trains: tuple[bool, bool] = (True, True)
    batches: Tensor | None = None
    process_group: Any = None


class FrozenBatchNorm2d(nn.Module):
    """Batch normalisation with constant statistics and affine terms: y = x * scale + shift, channel by channel.

    The paper's detectors fine-tune with it ("each BN layer becomes a linear activation with constant offset and
    scale", Appendix A). All four tensors are buffers, so no optimizer sees them. `conv_norm.conv_norm` runs
    a convolution and its FrozenBatchNorm2d as one convolution.

    Attributes:
        before: the batch normalisation that it was.
        held: it is of a stage that `Backbone.freeze` has frozen.
        thaws: where it is held: it is to be trained when that stage is.
    """

    _version = 2  # nn.BatchNorm2d's, so that either loads the other's state dict

    def __init__(self, num_features: int, eps: float = EPS) -> None:
        super().__init__()
        self.num_features = num_features
        self.eps = eps
        self.register_buffer("weight", torch.ones(num_features))
        self.register_buffer("bias", torch.zeros(num_features))
        self.register_buffer("running_mean", torch.zeros(num_features))
        self.register_buffer("running_var", torch.ones(num_features))

        self.before = _Before()
        self.held = False
        self.thaws = False

    def scale_and_shift(self) -> tuple[Tensor, Tensor]:
        """Return the two vectors (channels,) of the linear map."""
        scale = self.weight * (self.running_var + self.eps).rsqrt()
        return scale, self.bias - self.running_mean * scale

    def forward(self, x: Tensor) -> Tensor:
        """Return x * scale + shift, channel by channel: (N, C, H, W) in and out, in the dtype of `x`."""
        scale, shift = self.scale_and_shift()
        return x * scale.to(x.dtype).view(1, -1, 1, 1) + shift.to(x.dtype).view(1, -1, 1, 1)

    def _load_from_state_dict(self, state_dict, prefix, *rest) -> None:
        state_dict.pop(prefix + "num_batches_tracked", None)
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def extra_repr(self) -> str:
        return f"{self.num_features}, eps={self.eps}"


class SyncBatchNorm2d(nn.BatchNorm2d):
    """Batch normalisation over the batch of all processes, or of those in `process_group`.

    On a GPU it runs torch's operators. torch has none for the CPU; there sums and squared deviations are added up over
    the processes with a differentiable all_reduce, so that training on gloo runs the same network. It is no
    nn.SyncBatchNorm: DistributedDataParallel refuses those on CPUs.
    """

    # nn.SyncBatchNorm.forward, which runs on GPUs, asks for it.
    _check_non_zero_input_channels = nn.SyncBatchNorm._check_non_zero_input_channels

    def __init__(self, num_features: int, *arguments, process_group: dist.ProcessGroup | None = None, **keywords):
        """Take the arguments of nn.BatchNorm2d, and the processes; None stands for all."""
        super().__init__(num_features, *arguments, **keywords)
        self.process_group = process_group

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (N, C, H, W); N may differ between the processes and be 0 in some.

        Raises:
            ValueError: all batches together have one value a channel.
        """
        group = self.process_group
        joined = dist.is_available() and dist.is_initialized() and dist.get_world_size(group) > 1
        if not (joined and self.training):
            return super().forward(x)
        if x.device.type != "cpu":
            return nn.SyncBatchNorm.forward(self, x)
        self._check_input_dim(x)
        group = dist.group.WORLD if group is None else group
        values = x if x.dtype == torch.float64 else x.float()
        count = torch.tensor([values.numel() / values.shape[1]], dtype=torch.float64)
        sums = all_reduce(torch.cat([values.sum(dim=(0, 2, 3), dtype=torch.float64), count]), group=group)
        count = sums[-1].detach()
        if count <= 1:
            raise ValueError(f"expected more than 1 value per channel when training, got input size {tuple(x.shape)}")
        mean = sums[:-1] / count
        # Deviations do not cancel, as a mean of squares less a squared mean would.
        rounded = mean.to(values.dtype)
        centred = values - rounded.view(1, -1, 1, 1)
        variance = all_reduce(centred.square().sum(dim=(0, 2, 3), dtype=torch.float64), group=group) / count
        self._track(mean.detach(), variance.detach() * (count / (count - 1)))
        scale = (variance + self.eps).rsqrt()
        scale = scale if self.weight is None else scale * self.weight
        shift = (rounded - mean) * scale
        shift = shift if self.bias is None else shift + self.bias
        scale, shift = (vector.to(values.dtype).view(1, -1, 1, 1) for vector in (scale, shift))
        return (centred * scale + shift).to(x.dtype)

    def _track(self, mean: Tensor, variance: Tensor) -> None:
        if not self.track_running_stats:
            return
        self.num_batches_tracked += 1
        momentum = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        for running, value in ((self.running_mean, mean), (self.running_var, variance)):
            running.lerp_(value.to(running), momentum)


def _group_norm(channels: int) -> nn.GroupNorm:
    """GroupNorm of 32 groups, or of fewer where 32 do not divide the channels (CIFAR widths of 16)."""
    groups = next(groups for groups in (32, 16, 8, 4, 2, 1) if channels % groups == 0 and channels >= groups)
    return nn.GroupNorm(groups, channels, eps=EPS)


NORMS = {
    "bn": lambda channels: nn.BatchNorm2d(channels, eps=EPS),
    "frozen_bn": FrozenBatchNorm2d,
    "sync_bn": lambda channels: SyncBatchNorm2d(channels, eps=EPS),
    "gn": _group_norm,
}


def check_norm(name: str) -> None:
    """Raise ArchitectureError unless `name` is a key of NORMS."""
    if name not in NORMS:
        raise ArchitectureError(f"norm must be one of {', '.join(NORMS)}; not {name!r}")


def make_norm(name: str, channels: int) -> nn.Module:
    """Return a fresh normalisation layer: "bn", "frozen_bn", "sync_bn" or "gn"."""
    check_norm(name)
    return NORMS[name](channels)


def freeze_norm(module: nn.Module) -> nn.Module:
    """Turn every BatchNorm2d and SyncBatchNorm inside `module` into FrozenBatchNorm2d, in place.

    Afterwards a network is like one of `norm="frozen_bn"`: the features in training are those of evaluation. A layer
    that has no running statistics is left as it is. `backbone.freeze_bn` is another name of it.

    Returns:
        `module`, or its replacement when `module` is itself a batch normalisation.
    """
    for layer in _frozen_layers(module):
        layer.thaws = False
    return _replace(module, _freezes, _frozen)


freeze_bn = freeze_norm


def unfreeze_norm(module: nn.Module) -> nn.Module:
    """Turn every FrozenBatchNorm2d inside `module` into BatchNorm2d, or SyncBatchNorm2d where it was one, in place.

    Momentum, affine, track_running_stats, the counter of batches and requires_grad are those from before `freeze_norm`,
    nn.BatchNorm2d's own for a layer that was built frozen. Stages that `Backbone.freeze` holds stay frozen.

    Returns:
        As `freeze_norm`.
    """
    for layer in _frozen_layers(module):
        layer.thaws = True
    return _replace(module, lambda layer: isinstance(layer, FrozenBatchNorm2d) and not layer.held, trained)


def synchronise_norm(module: nn.Module) -> nn.Module:
    """Turn every BatchNorm2d inside `module` into SyncBatchNorm2d, in place, with all its settings.

    Returns:
        As `freeze_norm`.
    """
    for layer in _frozen_layers(module):
        layer.before = replace(layer.before, kind=SyncBatchNorm2d)
    return _replace(module, lambda layer: isinstance(layer, nn.BatchNorm2d), _synchronised)


def own_synchronised_norm(module: nn.Module) -> nn.Module:
    """Turn torch's SyncBatchNorm inside `module` into SyncBatchNorm2d, which runs on CPUs too."""
    return _replace(module, lambda layer: isinstance(layer, nn.SyncBatchNorm), _synchronised)


def hold_norm(module: nn.Module) -> nn.Module:
    """Freeze the norms of a stage until `release_norm`; see `freeze_norm`."""
    module = _replace(module, _freezes, lambda layer: _frozen(layer, thaws=True))
    for layer in _frozen_layers(module):
        layer.held = True
    return module


def release_norm(module: nn.Module) -> nn.Module:
    """Undo `hold_norm`; what was frozen before it stays frozen."""
    module = _replace(module, lambda layer: isinstance(layer, FrozenBatchNorm2d) and layer.thaws, trained)
    for layer in _frozen_layers(module):
        layer.held = False
    return module


def trained(layer: FrozenBatchNorm2d) -> nn.BatchNorm2d:
    """Return the batch normalisation that `layer` was, with its tensors."""
    before = layer.before
    # A state dict that was loaded meanwhile may have brought affine terms.
    plain = not layer.weight.is_meta and bool((layer.weight == 1).all() and (layer.bias == 0).all())
    fresh = before.kind(layer.num_features, layer.eps, before.momentum, before.affine or not plain)
    fresh = _with_tensors(fresh, layer)
    fresh.track_running_stats = before.track_running_stats
    if before.batches is not None:
        fresh.num_batches_tracked.copy_(before.batches)
    if fresh.affine:
        fresh.weight.requires_grad_(before.trains[0])
        fresh.bias.requires_grad_(before.trains[1])
    if isinstance(fresh, SyncBatchNorm2d):
        fresh.process_group = before.process_group
    return fresh


@contextmanager
def statistics_kept(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Leave the running statistics of the BN among `modules` as they are; in training it still takes the batch's."""
    # Copies take the updates: BN without statistics would keep other tensors for the backward pass.
    layers = {layer: dict(layer._buffers) for layer in modules if isinstance(layer, _BatchNorm)}
    for layer, buffers in layers.items():
        layer._buffers.update({name: None if value is None else value.clone() for name, value in buffers.items()})
    try:
        yield
    finally:
        for layer, buffers in layers.items():
            layer._buffers.update(buffers)


def _freezes(layer: nn.Module) -> bool:
    return isinstance(layer, (nn.BatchNorm2d, nn.SyncBatchNorm)) and layer.running_mean is not None


def _frozen_layers(module: nn.Module) -> list[FrozenBatchNorm2d]:
    return [layer for layer in module.modules() if isinstance(layer, FrozenBatchNorm2d)]


def _frozen(layer: nn.BatchNorm2d | nn.SyncBatchNorm, *, thaws: bool = False) -> FrozenBatchNorm2d:
    fresh = _with_tensors(FrozenBatchNorm2d(layer.num_features, layer.eps), layer)
    synchronised = isinstance(layer, (SyncBatchNorm2d, nn.SyncBatchNorm))
    fresh.before = _Before(
        kind=SyncBatchNorm2d if synchronised else nn.BatchNorm2d,
        momentum=layer.momentum,
        affine=layer.affine,
        track_running_stats=layer.track_running_stats,
        trains=(layer.weight.requires_grad, layer.bias.requires_grad) if layer.affine else (True, True),
        batches=None if layer.num_batches_tracked is None else layer.num_batches_tracked.clone(),
        process_group=layer.process_group if synchronised else None,
    )
    fresh.thaws = thaws
    return fresh


def _synchronised(layer: nn.BatchNorm2d | nn.SyncBatchNorm) -> SyncBatchNorm2d:
    if isinstance(layer, SyncBatchNorm2d):
        return layer
    settings = (layer.eps, layer.momentum, layer.affine, layer.running_mean is not None)
    fresh = _with_tensors(SyncBatchNorm2d(layer.num_features, *settings), layer)
    fresh.track_running_stats = layer.track_running_stats
    fresh.process_group = getattr(layer, "process_group", None)
    for own, theirs in zip(fresh.parameters(), layer.parameters()):
        own.requires_grad_(theirs.requires_grad)
    return fresh


def _with_tensors(fresh: nn.Module, layer: nn.Module) -> nn.Module:
    """Give `fresh` the tensors, the device, the type and the mode of `layer`."""
    tensors = layer.state_dict()
    like = next((tensor for tensor in tensors.values() if tensor.is_floating_point()), None)
    fresh = fresh if like is None else fresh.to(like.device, like.dtype)
    with torch.no_grad():
        for name, tensor in fresh.state_dict().items():
            if name in tensors:
                tensor.copy_(tensors[name])
    return fresh.train(layer.training)


def _replace(
    module: nn.Module,
    wanted: Callable[[nn.Module], bool],
    build: Callable[[nn.Module], nn.Module],
    made: dict[nn.Module, nn.Module] | None = None,
) -> nn.Module:
    """Return `module` with every `wanted` layer inside it replaced by what `build(layer)` makes.

    Args:
        made: what has been made already: a layer that stands in several places stays one.
    """
    made = {} if made is None else made
    if module not in made:
        made[module] = build(module) if wanted(module) else module
        if made[module] is module:
            for name, child in module._modules.items():
                if child is not None and _replace(child, wanted, build, made) is not child:
                    setattr(module, name, made[child])
    return made[module]
