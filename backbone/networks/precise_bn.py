"""True averages for the statistics of batch normalisation."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..common.errors import ArchitectureError, DataError
from ..common.text import count

Prepare = Callable[[Any], Tensor]


@dataclass(frozen=True)
class BNReport:
    """What `recompute_bn` did.

    Attributes:
        images: that were used, over all processes; fewer than asked for where the loader ended early.
        layers: names of the layers with new statistics.
        unused: names of the layers that the forward pass did not reach; they keep their statistics.
    """

    images: int
    layers: tuple[str, ...]
    unused: tuple[str, ...]

    def __str__(self) -> str:
        text = f"statistics of {count(len(self.layers), 'BN layer')} from {count(self.images, 'image')}"
        return text + (f"; {', '.join(self.unused)} not reached" if self.unused else "")


class Moments:
    """Mean and sum of squared deviations of everything seen, merged batch by batch (Chan, Golub & LeVeque 1983).

    Merging deviations does not cancel, as a mean of squares less a squared mean would.
    """

    def __init__(self) -> None:
        self.count, self.mean, self.deviations = 0, None, None

    def add(self, x: Tensor) -> None:
        """Take in `x` (N, C, ...): every pixel of every image counts alike."""
        number = x.numel() // x.shape[1]
        precise = torch.float32 if x.device.type == "mps" else torch.float64
        axes = [axis for axis in range(x.dim()) if axis != 1]
        variance, mean = torch.var_mean(x if x.dtype == torch.float64 else x.float(), dim=axes, correction=0)
        mean, deviations = mean.to(precise), variance.to(precise) * number
        if self.count:
            total = self.count + number
            step = mean - self.mean
            deviations = self.deviations + deviations + step.square() * (self.count * number / total)
            mean = self.mean + step * (number / total)
        self.count, self.mean, self.deviations = self.count + number, mean, deviations


@torch.no_grad()
def recompute_bn(net: nn.Module, loader: Iterable[Any], num_images: int, *, prepare: Prepare | None = None) -> BNReport:
    """Set the statistics of every batch normalisation in `net` to true averages over `num_images` images, in place.

    As the paper does after training ("precise BN"): the mean, and the population variance, of all pixels of all images
    together. That is the mean of squares less the squared mean of the whole sample, what fvcore's `update_bn_stats`
    computes too, and not the mean of the batches' variances, which leaves out how the batches differ.

    While images run through, each layer normalises with the statistics of its own batch, as in training. Those of the
    first layer therefore do not depend on the batch size; those of deeper layers do, a little: use batches as large as
    in training. Everything but batch normalisation runs as in evaluation (no dropout).

    Frozen BN is left as it is. So are parameters, gradients, training flags, momentum, the counters of batches and
    torch's random state. With several processes (torch.distributed) each takes an equal share from its own loader and
    all end with the same statistics; they stop when the first loader ends. A network with synchronised BN normalises
    over the batches of all processes, as in training.

    Args:
        loader: gives batches: images (N, 3, H, W) preprocessed for `net`, a tuple or list with them first, or a dict
            with them under "image" or "images". The last batch is cut to `num_images`.
        num_images: over all processes.
        prepare: takes a batch of any other kind, returns the images.

    Raises:
        ArchitectureError: `net` has no batch normalisation that is not frozen.
        DataError: num_images is not positive, the loader is empty or gives something else, images leave a layer a
            single value a channel, or the statistics are not finite. `net` is left as it was.
    """
    layers = _layers(net)
    if isinstance(num_images, bool) or not isinstance(num_images, int) or num_images < 1:
        raise DataError(f"recompute_bn: num_images must be a whole number of at least 1, not {num_images!r}")
    moments = {name: Moments() for name in layers}
    device = next(iter(layers.values())).running_mean.device
    with _recording(net, layers, moments), _same_random_state(device):
        images = _feed(net, loader, -(-num_images // _processes()), prepare, device)
    if _processes() > 1:
        images = int(_sum(torch.tensor(images, device=device)))
    if images == 0:
        raise DataError("recompute_bn: the loader gave no images" + _in_some_process())
    if _processes() > 1:
        _merge_processes(moments, layers, device)
    reached = [name for name in layers if moments[name].count]
    _check_finite({name: moments[name] for name in reached})
    for name in reached:
        layers[name].running_mean.copy_(moments[name].mean)
        layers[name].running_var.copy_(moments[name].deviations / moments[name].count)
    return BNReport(images, tuple(reached), tuple(name for name in layers if name not in reached))


def _layers(net: nn.Module) -> dict[str, _BatchNorm]:
    modules = net.named_modules()
    layers = {name: layer for name, layer in modules if isinstance(layer, _BatchNorm) and layer.track_running_stats}
    if not layers:
        kind = getattr(net, "architecture", type(net).__name__)
        raise ArchitectureError(f"{kind}: no batch normalisation to work on; create it with norm='bn' or 'sync_bn'")
    return layers


@contextmanager
def _recording(net: nn.Module, layers: Mapping[str, _BatchNorm], moments: Mapping[str, Moments]) -> Iterator[None]:
    """Run batch normalisation as in training, the rest as in evaluation; afterwards put everything back."""
    flags = {module: module.training for module in net.modules()}
    buffers = {buffer: buffer.clone() for layer in layers.values() for buffer in layer.buffers()}
    hooks = [layer.register_forward_pre_hook(_recorder(name, moments[name])) for name, layer in layers.items()]
    try:
        net.eval()
        for layer in layers.values():
            layer.training = True
        yield
    finally:
        for hook in hooks:
            hook.remove()
        for module, flag in flags.items():
            module.training = flag
        for buffer, value in buffers.items():
            buffer.copy_(value)


def _recorder(name: str, moments: Moments) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
    def record(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        (x,) = inputs
        if x.numel() <= x.shape[1]:
            raise DataError(
                f"recompute_bn: {name or 'the layer'} sees one value a channel; use larger images or larger batches"
            )
        moments.add(x)

    return record


@contextmanager
def _same_random_state(device: torch.device) -> Iterator[None]:
    """Put torch's random state back: a DataLoader draws from it when it starts."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        yield


def _feed(net: nn.Module, loader: Iterable[Any], wanted: int, prepare: Prepare | None, device: torch.device) -> int:
    """Run batches through `net` until `wanted` images are used or a loader ends; return the number used here."""
    used, batches = 0, iter(loader)
    while used < wanted:
        batch = next(batches, None)
        # Synchronised BN waits for all processes: they run the same number of batches.
        if not _all(batch is not None, device):
            break
        images = _images_of(batch) if prepare is None else prepare(batch)
        _check_images(images)
        images = images[: wanted - used]
        net(images.to(device))
        used += len(images)
    return used


def _images_of(batch: Any) -> Any:
    if isinstance(batch, Mapping):
        key = next((key for key in ("images", "image") if key in batch), None)
        if key is None:
            keys = ", ".join(map(str, batch))
            raise DataError(f"recompute_bn: a batch has no key image or images, only {keys}; give prepare=")
        return batch[key]
    return batch[0] if isinstance(batch, (tuple, list)) and batch else batch


def _check_images(images: Any) -> None:
    if not isinstance(images, Tensor):
        raise DataError(f"recompute_bn: images must be a tensor, not {type(images).__name__}; give prepare=")
    if images.dim() != 4 or 0 in images.shape:
        raise DataError(f"recompute_bn: images must be (N, 3, H, W), not {tuple(images.shape)}; use a DataLoader")
    if not images.is_floating_point():
        raise DataError(f"recompute_bn: images must be preprocessed floats, not {images.dtype}; give prepare=")


def _check_finite(moments: Mapping[str, Moments]) -> None:
    for name, of_layer in moments.items():
        if not (of_layer.mean.isfinite().all() and of_layer.deviations.isfinite().all()):
            raise DataError(f"recompute_bn: the input of {name or 'the layer'} has NaN or infinite values")


def _processes() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def _in_some_process() -> str:
    return " in one of the processes" if _processes() > 1 else ""


def _sum(values: Tensor) -> Tensor:
    dist.all_reduce(values)
    return values


def _all(condition: bool, device: torch.device) -> bool:
    """Whether `condition` holds in every process."""
    if _processes() == 1:
        return condition
    return int(_sum(torch.tensor(int(condition), device=device))) == _processes()


def _merge_processes(moments: Mapping[str, Moments], layers: Mapping[str, _BatchNorm], device: torch.device) -> None:
    """Make every process's `moments` those of all processes' images."""
    for name, here in moments.items():
        if not here.count:
            here.mean = torch.zeros(layers[name].num_features, dtype=torch.float64, device=device)
            here.deviations = here.mean.clone()
    sizes = [layers[name].num_features for name in moments]
    of_channels = torch.tensor(sizes, device=device)
    counts = torch.tensor([here.count for here in moments.values()], dtype=torch.float64, device=device)
    totals = _sum(counts.clone())
    means = torch.cat([here.mean for here in moments.values()])
    share = (counts / totals.clamp(min=1)).repeat_interleave(of_channels)
    joint = _sum(means * share)
    deviations = torch.cat([here.deviations for here in moments.values()])
    deviations = _sum(deviations + (means - joint).square() * counts.repeat_interleave(of_channels))
    for here, total, mean, spread in zip(moments.values(), totals, joint.split(sizes), deviations.split(sizes)):
        here.count, here.mean, here.deviations = int(total), mean, spread
