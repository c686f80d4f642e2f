"""An inference copy of a network: norms folded into convolutions, channels last, optionally bfloat16 or compiled."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from ..common.errors import ArchitectureError
from .contract import Backbone, FeatureInfo
from .conv_norm import FoldedConv
from .norm import FrozenBatchNorm2d

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
NORMS_WITH_STATISTICS = (nn.BatchNorm2d, nn.SyncBatchNorm, FrozenBatchNorm2d)


class FoldedBackbone(nn.Module):
    """What `fold` returns: a backbone for inference, with the contract of the network it was made from.

    Images of any float type and memory layout go in; features come out in `dtype`.
    """

    def __init__(self, network: Backbone, dtype: torch.dtype, memory_format: torch.memory_format) -> None:
        super().__init__()
        self.network = network
        self.dtype = dtype
        self.memory_format = memory_format
        # In a tuple, so that a compiled form is not registered as a second network.
        self._compiled: tuple = ()

    @property
    def architecture(self) -> str:
        return self.network.architecture

    @property
    def feature_info(self) -> dict[str, FeatureInfo]:
        return self.network.feature_info

    @property
    def out_features(self) -> tuple[str, ...]:
        return self.network.out_features

    @torch.no_grad()
    def forward(self, images: Tensor) -> dict[str, Tensor]:
        run = self._compiled[0] if self._compiled else self.network
        return run(images.to(self.dtype, memory_format=self.memory_format))

    @torch.no_grad()
    def dense_logits(self, images: Tensor, crop: int) -> Tensor:
        """Classify whole images, never by the compiled form; see `Backbone.dense_logits`."""
        return self.network.dense_logits(images.to(self.dtype, memory_format=self.memory_format), crop)


def fold(
    network: Backbone,
    *,
    dtype: torch.dtype = torch.float32,
    channels_last: bool = True,
    compile: bool = False,
) -> FoldedBackbone:
    """Return an inference copy of `network`; the network itself is left as it is.

    Every BN (frozen, or trained with its running statistics) goes into the convolution before it; group normalisation
    stays. On a CPU the ReLU and the residual addition run inside the convolution.

    Args:
        dtype: torch.float32, torch.bfloat16 or torch.float16.
        channels_last: memory layout of weights and features.
        compile: pass the copy through torch.compile; the first call of each image size then takes long.

    Raises:
        ArchitectureError: another dtype.
    """
    if dtype not in DTYPES:
        raise ArchitectureError(f"fold: dtype must be one of {', '.join(map(str, DTYPES))}, not {dtype}")
    folded = copy.deepcopy(network).eval().requires_grad_(False)
    _fold_all(folded)
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    folded = folded.to(dtype=dtype, memory_format=memory_format)
    result = FoldedBackbone(folded, dtype, memory_format)
    if compile:
        result._compiled = (torch.compile(folded, options={"freezing": True} if _on_cpu(folded) else None),)
    return result.eval()


def _on_cpu(network: nn.Module) -> bool:
    return next(network.parameters()).device.type == "cpu"


class Copy(nn.Module):
    """An identity shortcut whose input is a stage that `forward` returns: the addition must not run over it."""

    def forward(self, x: Tensor) -> Tensor:
        return x.clone()


def fold_norms(module: nn.Module) -> None:
    """Put every norm with stored statistics in `module`, such as a stage, into the convolution before it, in place."""
    for parent in list(module.modules()):
        for first, second in _pairs_of(parent):
            norm = parent.get_submodule(second)
            if isinstance(norm, NORMS_WITH_STATISTICS) and norm.running_mean is not None:
                parent.set_submodule(first, fold_pair(parent.get_submodule(first), norm))
                parent.set_submodule(second, nn.Identity())
            elif isinstance(norm, nn.ReLU):
                parent.set_submodule(first, fold_pair(parent.get_submodule(first), None))


def _fold_all(network: Backbone) -> None:
    fold_norms(network)
    if "stem" in network.out_features and "res2" in network.feature_info:
        first_block = network.get_submodule(network.stage_modules("res2")[0])[0]
        if getattr(first_block, "plain", True) is False and first_block.downsample is None:
            first_block.downsample = Copy()


def _pairs_of(parent: nn.Module) -> list[tuple[str, str]]:
    """Return the names, within `parent`, of its convolutions and the norms behind them."""
    if hasattr(parent, "conv_norm_pairs"):
        return parent.conv_norm_pairs()
    if not isinstance(parent, nn.Sequential):
        return []
    children = list(parent.named_children())
    return [(a, b) for (a, first), (b, _) in zip(children, children[1:]) if isinstance(first, nn.Conv2d)]


def fold_pair(conv: nn.Conv2d, norm: nn.Module | None) -> FoldedConv:
    """Return one convolution that computes norm(conv(x)) with the norm's stored statistics, or conv(x) without one."""
    folded = FoldedConv(
        *(conv.in_channels, conv.out_channels, conv.kernel_size, conv.stride, conv.padding),
        dilation=conv.dilation,
        groups=conv.groups,
        device=conv.weight.device,
        dtype=conv.weight.dtype,
    )
    with torch.no_grad():
        scale, shift = torch.ones_like(folded.bias), torch.zeros_like(folded.bias)
        if norm is not None:
            scale = (1 if norm.weight is None else norm.weight) * (norm.running_var + norm.eps).rsqrt()
            shift = (0 if norm.bias is None else norm.bias) - norm.running_mean * scale
        folded.weight.copy_(conv.weight * scale.view(-1, 1, 1, 1))
        folded.bias.copy_(shift if conv.bias is None else shift + conv.bias * scale)
    return folded.requires_grad_(False)
