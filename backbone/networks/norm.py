"""Normalisation layers by name, frozen batch normalisation, and the turns between them."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce

from ..common.errors import ArchitectureError

EPS = 1e-5  # of every BN in the paper's, torchvision's and detectron2's networks


class FrozenBatchNorm2d(nn.Module):
    """Batch normalisation with constant statistics and affine terms: y = x * scale + shift, channel by channel.

    The paper's detectors fine-tune with it ("each BN layer becomes a linear activation with constant offset and
    scale", Appendix A). All four tensors are buffers, so no optimizer sees them. `backbone.conv_norm.conv_norm` runs
    a convolution and its FrozenBatchNorm2d as one convolution.
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

    def scale_and_shift(self) -> tuple[Tensor, Tensor]:
        """Return the two vectors (channels,) of the linear map."""
        scale = self.weight * (self.running_var + self.eps).rsqrt()
        return scale, self.bias - self.running_mean * scale

    def forward(self, x: Tensor) -> Tensor:
        scale, shift = self.scale_and_shift()
        return x * scale.to(x.dtype).view(1, -1, 1, 1) + shift.to(x.dtype).view(1, -1, 1, 1)

    def _load_from_state_dict(self, state_dict, prefix, *rest) -> None:
        state_dict.pop(prefix + "num_batches_tracked", None)
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def extra_repr(self) -> str:
        return f"{self.num_features}, eps={self.eps}"


class SyncBatchNorm2d(nn.SyncBatchNorm):
    """Batch normalisation over the batch of all processes.

    On a GPU it is torch's. torch has none for the CPU; there the sums are added up over the processes with a
    differentiable all_reduce, so that training on gloo runs the same network.
    """

    def forward(self, x: Tensor) -> Tensor:
        alone = not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1)
        if x.is_cuda or alone or not self.training:
            return super().forward(x)
        count = x.new_tensor([x.numel() / x.shape[1]])
        sums = torch.cat([x.sum(dim=(0, 2, 3)), x.square().sum(dim=(0, 2, 3)), count])
        sums = all_reduce(sums)
        mean, mean_of_squares = (sums[:-1] / sums[-1]).chunk(2)
        variance = mean_of_squares - mean.square()
        with torch.no_grad():
            unbiased = variance * (sums[-1] / (sums[-1] - 1))
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(unbiased, self.momentum)
            self.num_batches_tracked += 1
        scale = self.weight * (variance + self.eps).rsqrt()
        shift = self.bias - mean * scale
        return x * scale.view(1, -1, 1, 1) + shift.view(1, -1, 1, 1)

    def _check_input_dim(self, x: Tensor) -> None:
        if x.dim() != 4:
            raise ValueError(f"expected (N, C, H, W), got {tuple(x.shape)}")


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


def _replace(module: nn.Module, kinds: type | tuple[type, ...], build) -> nn.Module:
    """Return `module` with every layer of `kinds` inside it replaced by what `build(layer)` makes, tensors shared."""
    if isinstance(module, kinds):
        fresh = build(module).to(module.running_mean.device, module.running_mean.dtype)
        with torch.no_grad():
            fresh.weight.copy_(module.weight)
            fresh.bias.copy_(module.bias)
            fresh.running_mean.copy_(module.running_mean)
            fresh.running_var.copy_(module.running_var)
        return fresh.train(module.training)
    for name, child in module.named_children():
        replaced = _replace(child, kinds, build)
        if replaced is not child:
            setattr(module, name, replaced)
    return module


def freeze_norm(module: nn.Module) -> nn.Module:
    """Turn every BatchNorm2d and SyncBatchNorm inside `module` into FrozenBatchNorm2d, in place.

    Returns:
        `module`, or its replacement when `module` is itself a batch normalisation.
    """
    kinds = (nn.BatchNorm2d, nn.SyncBatchNorm)
    return _replace(module, kinds, lambda layer: FrozenBatchNorm2d(layer.num_features, layer.eps))


def unfreeze_norm(module: nn.Module) -> nn.Module:
    """Turn every FrozenBatchNorm2d inside `module` into BatchNorm2d, in place; see `freeze_norm`."""
    return _replace(module, FrozenBatchNorm2d, lambda layer: nn.BatchNorm2d(layer.num_features, eps=layer.eps))


def synchronise_norm(module: nn.Module) -> nn.Module:
    """Turn every BatchNorm2d inside `module` into SyncBatchNorm2d, in place; see `freeze_norm`."""
    return _replace(module, nn.BatchNorm2d, lambda layer: SyncBatchNorm2d(layer.num_features, eps=layer.eps))
