"""A convolution and its frozen BN as one convolution, where nobody can tell the difference.

A frozen BN after a convolution is a constant linear map, so conv(x, w) * scale + shift = conv(x, w * scale) + shift.
That leaves out a pass over the activations forward and another backward. Autograd would keep the scaled weights for the
backward pass, a second copy of the network; `_ScaledConv` keeps the weights themselves, which exist anyway, and scales
them again.

Modules that somebody listens to, or has changed, are called as modules: hooks, wrapped and replaced layers, pruning,
parametrisations, tracing and counting work as on any network of torch.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules import module as every_module

from .norm import FrozenBatchNorm2d
from .winograd import compiled
from .winograd.choice import fits_training, gains, is_ready, is_worthwhile
from .winograd.convolution import prepare_weight, winograd
from .winograd.training import Convolution, convolution_in_graph, convolve, gradients

TENSORS = (Tensor, nn.Parameter)
# What calls run through; a class may be given other functions later.
MODULE_CALL, NORM_FORWARD = nn.Module.__call__, FrozenBatchNorm2d.forward
CONV_FORWARD, CONV_FORWARD_INSIDE = nn.Conv2d.forward, nn.Conv2d._conv_forward


class _ScaledConv(torch.autograd.Function):
    """conv2d(x, weight * scale, shift) for constant `scale` and `shift`; differentiable in `x` and `weight`.

    `quick`: by Winograd's form, where `takes_winograd`.
    """

    @staticmethod
    def forward(ctx, x, weight, scale, shift, geometry, quick):
        ctx.save_for_backward(x, weight, scale)
        ctx.save_for_forward(x, weight, scale)
        ctx.geometry, ctx.quick = geometry, quick
        weight, shift = _scaled(weight, scale, x.dtype), shift.to(x.dtype)
        return convolve(x, weight, shift, geometry[1]) if quick else F.conv2d(x, weight, shift, *geometry)

    @staticmethod
    def backward(ctx, grad):
        x, weight, scale = ctx.saved_tensors
        stride, padding, dilation, groups = ctx.geometry
        scaled, wanted = _scaled(weight, scale, x.dtype), ctx.needs_input_grad[:2]
        if ctx.quick:
            grad_x, grad_weight = gradients(grad, x, scaled, padding, wanted)
        else:
            geometry = stride, padding, dilation, False, [0, 0], groups
            wanted = [*wanted, False]
            grad_x, grad_weight, _ = torch.ops.aten.convolution_backward(grad, x, scaled, None, *geometry, wanted)
        if grad_weight is not None:
            grad_weight = grad_weight.to(weight.dtype) * scale.view(-1, 1, 1, 1)
        return grad_x, grad_weight, None, None, None, None

    @staticmethod
    def jvp(ctx, x_tangent, weight_tangent, *_):
        x, weight, scale = ctx.saved_tensors
        parts = []
        if x_tangent is not None:
            parts.append(F.conv2d(x_tangent, _scaled(weight, scale, x.dtype), None, *ctx.geometry))
        if weight_tangent is not None:
            parts.append(F.conv2d(x, _scaled(weight_tangent, scale, x.dtype), None, *ctx.geometry))
        return sum(parts)


def _scaled(weight: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
    return (weight * scale.view(-1, 1, 1, 1)).to(dtype)


def runs_eagerly() -> bool:
    """Whether this runs as it stands; a compiler or an exporter gets plain operators, which it can look into."""
    return not (torch.compiler.is_compiling() or torch.jit.is_tracing() or torch.jit.is_scripting())


def is_plain(conv: nn.Module) -> bool:
    """Whether `conv` is torch's convolution with zero padding that nobody listens to and nobody has changed."""
    return (
        type(conv) in (nn.Conv2d, WinogradConv2d)
        and conv.padding_mode == "zeros"
        and type(conv.padding) is tuple
        and nn.Conv2d.__call__ is MODULE_CALL
        and nn.Conv2d.forward is CONV_FORWARD
        and nn.Conv2d._conv_forward is CONV_FORWARD_INSIDE
        and not is_watched(conv)
    )


def is_watched(module: nn.Module) -> bool:
    """Whether a hook of this module, or a function put in the place of its own, takes part in its calls."""
    own = module.__dict__
    return bool(
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
        # accelerate's hooks and Module.compile put functions on the instance.
        or "forward" in own
        or "_conv_forward" in own
        or "_call_impl" in own
        or "_compiled_call_impl" in own
    )


def all_are_watched() -> bool:
    """Whether a hook listens to every module."""
    return bool(
        every_module._global_forward_hooks
        or every_module._global_forward_pre_hooks
        or every_module._global_backward_hooks
        or every_module._global_backward_pre_hooks
    )


class ConvNorms(nn.Sequential):
    """Convolutions, norms and other layers in turn; each convolution with its norm as by `conv_norm`."""

    def forward(self, x: Tensor) -> Tensor:
        if torch.jit.is_scripting():
            for layer in self:
                x = layer(x)
        else:
            x = run_layers(self, x)
        return x


def run_layers(layers: Iterable[nn.Module], x: Tensor) -> Tensor:
    """Run one layer after the other; each convolution with the norm behind it as by `conv_norm`."""
    convolution = None
    for layer in layers:
        if convolution is not None:
            x, convolution = conv_norm(convolution, layer, x), None
        elif isinstance(layer, nn.Conv2d):
            convolution = layer
        else:
            x = layer(x)
    return x if convolution is None else convolution(x)


def conv_norm(conv: nn.Module, norm: nn.Module, x: Tensor) -> Tensor:
    """Return norm(conv(x)); by one convolution where `norm` is frozen BN and nobody can tell the difference.

    Args:
        x: (N, C, H, W).
    """
    fuses = (
        type(norm) is FrozenBatchNorm2d
        and is_plain(conv)
        and FrozenBatchNorm2d.__call__ is MODULE_CALL
        and FrozenBatchNorm2d.forward is NORM_FORWARD
        and not is_watched(norm)
        and not all_are_watched()
    )
    if not fuses and type(conv) is ConvNorms and not (is_watched(conv) or all_are_watched()):
        return run_layers((*conv, norm), x)
    eager = runs_eagerly()
    if not fuses or (eager and not _are_plain_tensors(conv.weight, norm, x)):
        return norm(conv(x))
    scale, shift = _map_of(norm) if eager else norm.scale_and_shift()
    if conv.bias is not None:
        shift = shift + conv.bias * scale
    weight, geometry = conv.weight, (conv.stride, conv.padding, conv.dilation, conv.groups)
    trains = torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad)
    if not trains or not eager or shift.requires_grad:
        return F.conv2d(x, weight * scale.view(-1, 1, 1, 1), shift, *geometry)
    quick = type(conv) is WinogradConv2d and takes_winograd(conv, x)
    return _ScaledConv.apply(x.to(_autocast_dtype(x) or x.dtype), weight, scale, shift, geometry, quick)


def maps_made(network: nn.Module) -> AbstractContextManager:
    """Make the scales and shifts of all frozen BN of a network at once, for one pass of this thread.

    Nine operators in place of four for each norm: on a GPU, starting them takes longer than running them. Where a norm
    has changed until its turn comes, `conv_norm` makes its own.
    """
    if not runs_eagerly() or torch._C._are_functorch_transforms_active() or all_are_watched():
        return nullcontext()
    norms = [module for module in network.modules() if type(module) is FrozenBatchNorm2d]
    return _made(norms) if len(norms) > 1 and _are_alike(norms) else nullcontext()


class _Made(threading.local):
    """Of this thread's pass: by norm its tensors, their state, and scale and shift of them."""

    maps: dict[nn.Module, tuple[tuple[Tensor, ...], list[tuple[int, int]], tuple[Tensor, Tensor]]] | None = None


_MADE = _Made()


@contextmanager
def _made(norms: list[FrozenBatchNorm2d]) -> Iterator[None]:
    before = _MADE.maps
    found = {}
    for norm, made in zip(norms, _maps(norms)):
        tensors = tuple(norm._buffers.values())
        found[norm] = tensors, _state(tensors), made
    _MADE.maps = found
    try:
        yield
    finally:
        _MADE.maps = before


def _map_of(norm: FrozenBatchNorm2d) -> tuple[Tensor, Tensor]:
    """Return scale and shift of a norm, made before or now."""
    tensors, state, made = (_MADE.maps or {}).get(norm, ((), [], None))
    now = tuple(norm._buffers.values())
    same = made is not None and len(now) == len(tensors) and all(a is b for a, b in zip(now, tensors))
    return made if same and _state(now) == state else norm.scale_and_shift()


def _state(tensors: tuple[Tensor, ...]) -> list[tuple[int, int]]:
    return [(tensor._version, tensor.data_ptr()) for tensor in tensors]


def _are_alike(norms: list[FrozenBatchNorm2d]) -> bool:
    """Whether the tensors of all norms are plain ones, and fit into one."""
    like = norms[0].weight
    tensors = (tensor for norm in norms for tensor in norm._buffers.values())
    return all(norm.eps == norms[0].eps for norm in norms) and all(
        type(tensor) in TENSORS
        and not tensor.requires_grad
        and not tensor.is_inference()  # it has no version
        and tensor.dtype is like.dtype
        and tensor.device == like.device
        for tensor in tensors
    )


def _maps(norms: list[FrozenBatchNorm2d]) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield what `FrozenBatchNorm2d.scale_and_shift` returns, of each norm."""
    names = ("weight", "bias", "running_mean", "running_var")
    weight, bias, mean, variance = (torch.cat([getattr(norm, name) for norm in norms]) for name in names)
    scale = weight * (variance + norms[0].eps).rsqrt()
    shift = bias - mean * scale
    numbers = [len(norm.weight) for norm in norms]
    return zip(scale.split(numbers), shift.split(numbers))


def _are_plain_tensors(weight: Tensor, norm: FrozenBatchNorm2d, x: Tensor) -> bool:
    """Whether torch would run both modules on these tensors, and see nothing but tensors of its own kind."""
    if not (type(x) in TENSORS and type(weight) in TENSORS and x.dim() == 4 and weight.dtype is norm.weight.dtype):
        return False
    # torch.func differentiates and batches plain operators, no autograd.Function of this kind.
    if torch._C._are_functorch_transforms_active():
        return False
    if x.dtype is weight.dtype and x.dtype is not torch.float64:
        return True
    autocasts = _autocast_dtype(x) is not None
    # Autocast leaves float64 as it is.
    return torch.float64 not in (x.dtype, weight.dtype) if autocasts else x.dtype is weight.dtype


def _autocast_dtype(x: Tensor) -> torch.dtype | None:
    """Return what autocast makes of a convolution's input; None where it is off."""
    device = x.device.type
    # Asking about a device without autocast, such as meta, raises.
    if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
        return torch.get_autocast_dtype(device)
    return None


class WinogradConv2d(nn.Conv2d):
    """torch's convolution, in Winograd's form where that takes less time; made by `use_winograd`.

    Attributes:
        in_graphs: whether graphs of torch.compile take it too, but exports; each size of images is to have its own.
    """

    in_graphs = False

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        exports = getattr(torch.compiler, "_is_exporting_flag", True)  # is_exporting() is true in any graph
        if self.in_graphs and torch.compiler.is_compiling() and not exports:
            # Channels first, the copies that torch's compiler puts around the operator cost more than it saves.
            last = input.is_contiguous(memory_format=torch.channels_last) and input.device.type == "cpu"
            if last and not torch.is_autocast_enabled("cpu") and gains(input, self, training=True):
                return convolution_in_graph(input, weight, bias, self.padding)
        elif takes_winograd(self, input):
            return Convolution.apply(input, weight, bias, self.padding)
        return super()._conv_forward(input, weight, bias)


def use_winograd(model: nn.Module, kinds: Mapping[type, type] | None = None, *, in_graphs: bool = False) -> None:
    """Let the 3x3 convolutions of `model` be computed in Winograd's form in training, see `winograd.training`.

    Args:
        kinds: of other classes than torch's own, the class in their place, which is to ask `takes_winograd`.
        in_graphs: of torch's own classes, in graphs of torch.compile too, where each size has a graph of its own.
    """
    kinds = {nn.Conv2d: WinogradConv2d, **(kinds or {})}
    for module in model.modules():
        if (kind := kinds.get(type(module))) and fits_training(module) and not is_watched(module):
            module.__class__ = kind
            if kind is WinogradConv2d and in_graphs and module.weight.device.type == "cpu":
                module.in_graphs = is_ready(module)


def takes_winograd(conv: nn.Conv2d, x: Tensor) -> bool:
    """Whether Winograd's form computes this convolution of (N, C, H, W) in less time, and nobody can tell."""
    return (
        x.dim() == 4
        and runs_eagerly()
        and _lie_in_memory(x, conv.weight, conv.bias)
        and _autocast_dtype(x) is None
        and is_worthwhile(x, conv, training=True)
    )


def _lie_in_memory(*tensors: Tensor | None) -> bool:
    """Whether these are plain numbers in the CPU's memory, and nobody watches the operators on them."""
    return (
        not torch._C._are_functorch_transforms_active()
        and not torch._C._len_torch_dispatch_stack()
        and all(type(x) in TENSORS and compiled.reads(x) for x in tensors if x is not None)
    )


class FoldedConv(nn.Conv2d):
    """A convolution for inference that has taken its norm into weights and bias, and maybe a ReLU; see `backbone.fold`.

    Attributes:
        relu: whether a ReLU ends it.
    """

    def forward(self, x: Tensor, add: Tensor | None = None, overwrite: bool = False) -> Tensor:
        """Return the convolution of `x`, plus `add`, then the ReLU; `overwrite` allows to write it over `add`."""
        if torch.jit.is_scripting():
            pass
        elif self._fuses(x):
            if x.dim() == 4 and _lie_in_memory(x, self.weight, self.bias, add) and is_worthwhile(x, self):
                return self._by_winograd(x, add)
            if add is None or (overwrite and add.is_contiguous(memory_format=torch.channels_last)):
                return self._fused(x, add)
        out = F.conv2d(x, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)
        if add is not None:
            out += add
        return F.relu(out, inplace=True) if self.relu else out

    def _fused(self, x: Tensor, add: Tensor | None) -> Tensor:
        geometry = (self.weight, self.bias, self.padding, self.stride, self.dilation, self.groups)
        if add is None:
            after = "relu" if self.relu else "none"
            return torch.ops.mkldnn._convolution_pointwise(x, *geometry, after, [], "")
        after = "relu" if self.relu else None
        return torch.ops.mkldnn._convolution_pointwise_.binary(add, x, *geometry, "add", 1.0, after, [], "")

    def _by_winograd(self, x: Tensor, add: Tensor | None) -> Tensor:
        out = winograd(x, self._transformed(), self.bias, self.padding, relu=self.relu and add is None)
        if add is None:
            return out
        out += add
        return out.relu_() if self.relu else out

    def _transformed(self) -> Tensor:
        """Return the weight as `winograd` takes it, made again when the weight has changed."""
        weight = self.weight
        state = (weight.data_ptr(), 0 if weight.is_inference() else weight._version)
        if self.__dict__.get("_places", (None,))[0] != state:
            self._places = (state, prepare_weight(weight))
        return self._places[1]

    def __getstate__(self) -> dict[str, Any]:
        # Made again where it is read; a file and a copy need not hold it.
        return {name: value for name, value in super().__getstate__().items() if name != "_places"}

    def _fuses(self, x: Tensor) -> bool:
        """Whether other operators than torch's convolution can take part: nothing records what runs here."""
        return (
            FUSED_OPERATORS
            and x.device.type == "cpu"
            and x.dtype in FUSED_DTYPES
            and x.dtype == self.weight.dtype
            and not torch.is_grad_enabled()
            and runs_eagerly()
        )


# The operators that torch's own compiler fuses convolutions with on a CPU; processors without AVX-512 have no bfloat16.
FUSED_OPERATORS = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_convolution_pointwise_")
FUSED_DTYPES = (torch.float32, torch.bfloat16)
if not (FUSED_OPERATORS and torch.ops.mkldnn._is_mkldnn_bf16_supported()):
    FUSED_DTYPES = (torch.float32,)
