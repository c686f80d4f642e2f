"""An inference copy of a network: norms folded into convolutions, channels last, optionally bfloat16 or compiled."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from ..common.errors import ArchitectureError
from .blocks import BLOCKS, PreActBlock, ResidualBlock, Stage
from .contract import Backbone
from .conv_norm import FoldedConv, all_are_watched, is_plain, is_watched, runs_eagerly
from .norm import FrozenBatchNorm2d, SyncBatchNorm2d
from .plain import plain_copy, unwrapped

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
NORMS_WITH_STATISTICS = (nn.BatchNorm2d, nn.SyncBatchNorm, SyncBatchNorm2d, FrozenBatchNorm2d)


class FoldedBackbone(nn.Module):
    """What `fold` returns: a backbone for inference, with the contract of the network it was made from.

    Images (N, C, H, W) of any float type and memory layout go in; {stage: (N, channels, H / stride, W / stride)} comes
    out in `dtype`, without gradients. What else is asked of it (`feature_info`, `preprocessing`, `stage_names`,
    `layer4`, ...) is the network's.

    Attributes:
        network: the folded copy.
        channels_last: whether weights and features are channels last in memory.
        compiled: whether the copy runs through torch.compile.
    """

    # torch.jit.script compiles every other property.
    __jit_unused_properties__ = ("out_features", "memory_format")

    def __init__(self, network: Backbone, dtype: torch.dtype, *, channels_last: bool, compiled: bool) -> None:
        super().__init__()
        self.network = network
        self.dtype = dtype
        self.channels_last = channels_last
        self.compiled = compiled
        # In a tuple, so that the compiled form is not registered as a second network.
        self._graph: tuple = ()

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name == "network":  # while a pickle is read
                raise
            return getattr(self.network, name)

    @property
    def out_features(self) -> tuple[str, ...]:
        return self.network.out_features

    @out_features.setter
    def out_features(self, wanted: Iterable[str]) -> None:
        self.network.out_features = wanted

    @property
    def memory_format(self) -> torch.memory_format:
        return torch.channels_last if self.channels_last else torch.contiguous_format

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """See `Backbone.forward`."""
        with torch.no_grad():
            if torch.jit.is_scripting():
                images = images.to(self.dtype)
                if self.channels_last:
                    images = images.contiguous(memory_format=torch.channels_last)
                return self.network(images)
            return self._runner()(images.to(self.dtype, memory_format=self.memory_format))

    @torch.no_grad()
    def dense_logits(self, images: Tensor, crop: int) -> Tensor:
        """Classify whole images, never by the compiled form; see `Backbone.dense_logits`."""
        return self.network.dense_logits(images.to(self.dtype, memory_format=self.memory_format), crop)

    def _runner(self) -> nn.Module:
        # DataParallel's replicas live for one call, too short to be compiled.
        if not self.compiled or getattr(self, "_is_replica", False):
            return self.network
        if not self._graph:
            on_cpu = next(self.network.parameters()).device.type == "cpu"
            self._graph = (torch.compile(self.network, options={"freezing": True} if on_cpu else None),)
        return self._graph[0]

    def __getstate__(self) -> dict[str, Any]:
        # A compiled form cannot be written; the next call compiles again.
        return {**super().__getstate__(), "_graph": ()}


def fold(
    network: Backbone,
    *,
    dtype: torch.dtype = torch.float32,
    channels_last: bool = True,
    compile: bool = False,
) -> FoldedBackbone:
    """Return an inference copy of `network`; the network itself is left as it is.

    Every BN (frozen, or trained with its running statistics) goes into the convolution before it; group normalisation
    stays. On a CPU the ReLU and the residual addition run inside the convolution. Layers that have hooks, or were
    replaced by others, stay as they are. Pruned and parametrised weights become ordinary ones.

    Args:
        network: of `backbone.create`, also inside torch.compile, DataParallel or DistributedDataParallel.
        dtype: torch.float32, torch.bfloat16 or torch.float16.
        channels_last: memory layout of weights and features.
        compile: pass the copy through torch.compile; the first call of each image size then takes long.

    Raises:
        ArchitectureError: another dtype, or no network of `backbone.create`.
    """
    if dtype not in DTYPES:
        raise ArchitectureError(f"fold: dtype must be one of {', '.join(map(str, DTYPES))}, not {dtype}")
    if not isinstance(unwrapped(network), Backbone):
        raise ArchitectureError(f"fold takes a network of backbone.create, not {type(network).__name__}")
    folded = fold_norms(plain_copy(network).eval().requires_grad_(False))
    result = FoldedBackbone(folded, dtype, channels_last=channels_last, compiled=compile)
    folded.to(dtype=dtype, memory_format=result.memory_format)
    return result.eval()


class FoldedBlock(nn.Module):
    """A residual block for inference. Its convolutions have taken their norms and ReLUs, the last one the addition too.

    Children have the names of the block's. Pre-activation blocks keep the norm and the ReLU before the weights.
    """

    def __init__(self, block: ResidualBlock | PreActBlock) -> None:
        super().__init__()
        for name, child in block.named_children():
            if name != "drop_path":  # of training alone
                self.add_module(name, child)
        if "downsample" not in self._modules:
            self.downsample = None
        self.pre_activation = isinstance(block, PreActBlock)
        self.plain = getattr(block, "plain", False)
        self.train(block.training)

    def forward(self, x: Tensor, overwrite: bool = False) -> Tensor:
        """See `ResidualBlock`; `overwrite` allows to write over `x`."""
        first = self.relu(self.bn1(x)) if self.pre_activation else x
        add = None if self.plain else x
        if self.downsample is not None:
            add = self.downsample(first)
            if not torch.jit.is_scripting():
                overwrite = runs_eagerly() and self.is_quiet()
        out = self.conv1(first)
        if hasattr(self, "conv3"):
            return self.conv3(self.conv2(out), add, overwrite)
        return self.conv2(out, add, overwrite)

    def is_quiet(self) -> bool:
        """Whether no hook can have kept a tensor that goes in, through or out."""
        return not (all_are_watched() or any(map(is_watched, self.modules())))


class FoldedStage(nn.Sequential):
    """The blocks of a stage for inference. A block may write over its input, which the block before it made for it
    alone, unless a hook can have kept that."""

    def forward(self, x: Tensor) -> Tensor:
        if torch.jit.is_scripting():
            for block in self:
                x = block(x)
        else:
            is_own = False
            for block in self:
                is_quiet = type(block) is FoldedBlock and runs_eagerly() and block.is_quiet()
                x = block(x, overwrite=True) if is_own and is_quiet else block(x)
                is_own = is_quiet
        return x


def fold_norms(module: nn.Module) -> nn.Module:
    """Put every norm with stored statistics in `module`, such as a stage, into the convolution before it, in place.

    Returns:
        `module`, or what takes its place.
    """
    for name, child in list(module.named_children()):
        if (folded := fold_norms(child)) is not child:
            setattr(module, name, folded)
    if isinstance(module, nn.Sequential):
        names = [*module._modules, "", ""]
        for conv, norm, relu in zip(names, names[1:], names[2:]):
            if norm and type(getattr(module, norm)) is nn.ReLU:
                norm, relu = "", norm
            _fold_layers(module, conv, norm, relu)
    elif isinstance(module, (Backbone, ResidualBlock, PreActBlock)):
        for conv, norm in module.conv_norm_pairs():
            # The ReLU of a block stands behind its last addition too: a `FoldedBlock` places them.
            _fold_layers(module, conv, norm, "relu" if isinstance(module, Backbone) else "")
    return _fast_form(module)


def _fast_form(module: nn.Module) -> nn.Module:
    if isinstance(module, nn.ReLU):
        module.inplace = False  # a hook may keep its input
    if isinstance(module, ResidualBlock):
        module.in_place = False
    if is_watched(module):
        return module
    if type(module) is Stage:
        return FoldedStage(*module).train(module.training)
    if type(module) not in BLOCKS.values() or type(module.relu) is not nn.ReLU or is_watched(module.relu):
        return module
    convolutions = [module.get_submodule(conv) for conv, _ in module.conv_norm_pairs()]
    last = f"conv{len(convolutions) + 1}"
    if isinstance(module, PreActBlock):
        _fold_layers(module, last, "", "")
        convolutions.append(module.get_submodule(last))
    if not all(type(convolution) is FoldedConv for convolution in convolutions):
        return module
    for convolution in convolutions[:-1] if isinstance(module, PreActBlock) else convolutions:
        convolution.relu = True
    return FoldedBlock(module)


def _fold_layers(parent: nn.Module, conv: str, norm: str, relu: str) -> None:
    """Fold a convolution with the norm and the ReLU behind it, by their names in `parent`; "" is none."""
    convolution = parent.get_submodule(conv)
    if not is_plain(convolution):
        return
    if norm and not _is_constant(parent.get_submodule(norm)):
        return
    folded = fold_pair(convolution, parent.get_submodule(norm) if norm else None)
    if relu and type(getattr(parent, relu)) is nn.ReLU and not is_watched(getattr(parent, relu)):
        folded.relu = True
        parent.set_submodule(relu, nn.Identity())
    elif not norm and isinstance(parent, nn.Sequential):
        return
    parent.set_submodule(conv, folded)
    if norm:
        parent.set_submodule(norm, nn.Identity())


def _is_constant(norm: nn.Module) -> bool:
    """Whether a norm computes the same linear map for every input, and nobody listens to it."""
    return type(norm) in NORMS_WITH_STATISTICS and norm.running_mean is not None and not is_watched(norm)


def fold_pair(conv: nn.Conv2d, norm: nn.Module | None, *, relu: bool = False) -> FoldedConv:
    """Return one convolution that computes norm(conv(x)) with the norm's stored statistics, or conv(x) without one."""
    folded = nn.utils.skip_init(
        FoldedConv,
        *(conv.in_channels, conv.out_channels, conv.kernel_size, conv.stride, conv.padding),
        dilation=conv.dilation,
        groups=conv.groups,
        device=conv.weight.device,
        dtype=conv.weight.dtype,
    )
    folded.relu = relu
    with torch.no_grad():
        scale, shift = torch.ones_like(folded.bias), torch.zeros_like(folded.bias)
        if norm is not None:
            scale = scale if norm.weight is None else norm.weight * scale
            scale = scale * (norm.running_var + norm.eps).rsqrt()
            shift = (shift if norm.bias is None else norm.bias) - norm.running_mean * scale
        folded.weight.copy_(conv.weight * scale.view(-1, 1, 1, 1))
        folded.bias.copy_(shift if conv.bias is None else shift + conv.bias * scale)
    return folded.requires_grad_(False).train(conv.training)
