"""Layer responses: how strongly each 3x3 layer speaks (Fig. 7 of the paper)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from ..common.errors import ArchitectureError, DataError, WeightsError
from ..common.preprocessing import IMAGENET
from ..common.text import nearest
from ..networks import FrozenBatchNorm2d, create, find_architecture
from ..networks.precise_bn import Moments, recompute_bn
from ..weights import load_weights, resolve

BATCH_SIZE = 64
# Those of Fig. 7.
PAPER = ("cifar_plain20", "cifar_plain56", "cifar_resnet20", "cifar_resnet56", "cifar_resnet110")


@dataclass(frozen=True)
class Responses:
    """One network's curve.

    Attributes:
        trained: it had weights; else He initialisation, with BN statistics of the images themselves.
        layers: {name of the 3x3 convolution: standard deviation of its response}, in order of depth.
    """

    network: str
    trained: bool
    images: int
    layers: Mapping[str, float]

    @property
    def label(self) -> str:
        return f"{self.network} ({'trained' if self.trained else 'untrained'})"

    def ranked(self) -> list[tuple[str, float]]:
        """Return the layers by magnitude, the strongest first."""
        return sorted(self.layers.items(), key=lambda item: -item[1])


class _Recorder:
    """Takes the output of the norm right behind a 3x3 convolution; without one, that of the convolution."""

    def __init__(self, net: nn.Module, stack: ExitStack) -> None:
        self.moments: dict[str, Moments] = {}
        self._last: tuple[str, Tensor, Moments] | None = None
        for name, module in net.named_modules():
            if isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3):
                stack.enter_context(module.register_forward_hook(self._of_convolution(name)))
            elif isinstance(module, (nn.BatchNorm2d, nn.SyncBatchNorm, nn.GroupNorm, FrozenBatchNorm2d)):
                stack.enter_context(module.register_forward_hook(self._of_norm))

    def _of_convolution(self, name: str):
        def hook(_module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
            here = self.moments.setdefault(name, Moments())
            before = Moments()
            vars(before).update(vars(here))
            # At once: what follows may write over it.
            here.add(output.reshape(-1, 1))
            self._last = (name, output, before)

        return hook

    def _of_norm(self, _module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if self._last is not None and inputs[0] is self._last[1]:
            name, _, here = self._last
            here.add(output.reshape(-1, 1))
            self.moments[name] = here
        self._last = None


@torch.no_grad()
def layer_responses(net: nn.Module, batches: Iterable[Tensor]) -> dict[str, float]:
    """Return {name: standard deviation} of every 3x3 convolution's response, over images, channels and pixels.

    The response is the output behind the layer's BN and before ReLU and addition, as in the paper. A convolution
    without a norm right behind it (the last of a pre-activation block, VGG-16's) is taken as it is. Convolutions of
    other sizes are left out: of a bottleneck the 3x3 alone counts.

    Args:
        net: in evaluation mode.
        batches: preprocessed images (N, 3, H, W).

    Raises:
        ArchitectureError: no 3x3 convolution was run.
        DataError: a response is not finite.
    """
    with ExitStack() as stack:
        recorder = _Recorder(net, stack)
        for batch in batches:
            net(batch)
    if not recorder.moments:
        raise ArchitectureError("layer responses: no 3x3 convolution was run")
    found = {name: float((of.deviations / of.count).sqrt()) for name, of in recorder.moments.items()}
    wrong = [name for name, value in found.items() if value != value or value == float("inf")]
    if wrong:
        raise DataError(f"layer responses: the output of {wrong[0]} has NaN or infinite values; check the weights")
    return found


def network_responses(name: str, images: Tensor, *, weights: str | Path | None = None, seed: int = 0) -> Responses:
    """Build a network and measure its responses to `images`.

    Args:
        images: (N, 3, H, W), RGB, 0..255.
        weights: a file for `backbone.load_weights`; without one the network is untrained, and every BN takes its
            statistics from `images`, as in the first step of training.
        seed: of the first weights.

    Raises:
        ArchitectureError, WeightsError: unknown network; weights that cannot be read or do not fit.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = create(name).eval()
    if weights is not None:
        load_weights(net, weights)
    prepare = net.preprocessing or IMAGENET
    if weights is None and any(isinstance(module, nn.BatchNorm2d) for module in net.modules()):
        recompute_bn(net, [prepare(images)], len(images))
    layers = layer_responses(net, (prepare(batch) for batch in images.split(BATCH_SIZE)))
    return Responses(name, weights is not None, len(images), layers)


def pair_weights(pairs: Sequence[str], networks: Sequence[str]) -> dict[str, str]:
    """Read "network=file" pairs.

    Raises:
        WeightsError: not a pair, no such file, a network that is not among `networks`, or given twice.
        ArchitectureError: a network that does not exist.
    """
    found: dict[str, str] = {}
    for pair in pairs:
        name, separator, file = pair.partition("=")
        if not (name and separator and file):
            raise WeightsError(f"--weights takes NETWORK=FILE, such as cifar_resnet20=resnet20.th, not {pair!r}")
        find_architecture(name)
        if name not in networks:
            raise WeightsError(f"--weights {pair}: {name} is not among the networks{nearest(name, networks)}")
        if name in found:
            raise WeightsError(f"--weights: {name} is given twice")
        if not resolve(file).exists():
            raise WeightsError(f"--weights {pair}: no such file")
        found[name] = file
    return found
