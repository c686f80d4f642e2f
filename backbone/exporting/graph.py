"""What is exported: the folded network, its preprocessing where asked, and forms of layers that exporters can write."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..common.errors import ExportError
from ..common.preprocessing import Preprocessing
from ..networks.contract import Backbone
from ..networks.folding import FoldedBackbone, fold

INPUT = "images"
SIZE_TO_TRACE = (64, 96)


@dataclass(frozen=True)
class ExportOptions:
    """How a network is written.

    Attributes:
        input_size: height and width of images; with `dynamic` only those that the file is checked with.
        batch_size: images at once, likewise.
        dynamic: whether the file takes other sizes and numbers of images.
        exporter: "dynamo" or "torchscript", for ONNX.
        opset: of ONNX; None is the exporter's own choice.
        channels: of the images.

    Raises:
        ExportError: sizes that are none.
    """

    input_size: tuple[int, int]
    batch_size: int
    dynamic: bool
    exporter: str | None = None
    opset: int | None = None
    channels: int = 3

    def __post_init__(self) -> None:
        sizes = tuple(self.input_size) if isinstance(self.input_size, (tuple, list)) else ()
        if len(sizes) != 2 or not all(isinstance(size, int) and size > 0 for size in (*sizes, self.batch_size)):
            raise ExportError(
                f"input_size must be a height and a width and batch_size a number, all above 0; "
                f"not {self.input_size!r} and {self.batch_size!r}"
            )

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return (self.batch_size, self.channels, *self.input_size)

    def shapes_to_check(self) -> list[tuple[int, int, int, int]]:
        """Shapes of images that the file must take: the example's, and with `dynamic` another."""
        if not self.dynamic:
            return [self.shape]
        height, width = self.input_size
        # Odd sizes divide by no stride. Of large images a part is quicker; small ones may not become smaller.
        height = height * 5 // 8 if height >= 256 else height + 11
        width = width * 3 // 4 if width >= 256 else width + 18
        return [self.shape, (self.batch_size + 1, self.channels, height | 1, width | 1)]

    def shape_to_trace(self) -> tuple[int, int, int, int]:
        """Shape of the images that the network is traced with.

        torch.export takes a size of one, of the batch or of a feature map, for a constant. A dynamic graph is the same
        from any images; small ones are quick.
        """
        return (2, self.channels, *SIZE_TO_TRACE) if self.dynamic else self.shape


class AdaptiveAveragePool(nn.Module):
    """nn.AdaptiveAvgPool2d as two matrix products, which every runtime has for images of any size."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        """Average (N, C, H, W) over `size` x `size` bins."""
        rows = self._weights(x.new_ones(1).expand(x.shape[2]))
        columns = self._weights(x.new_ones(1).expand(x.shape[3]))
        return rows @ x @ columns.transpose(0, 1)

    def _weights(self, ones: Tensor) -> Tensor:
        """Return (size, n): each bin averages the pixels from floor(i n / size) to ceil((i + 1) n / size)."""
        position = ones.cumsum(0) - 1
        bins = torch.arange(self.size, dtype=ones.dtype, device=ones.device)[:, None]
        number = ones.sum()
        start = torch.floor(bins * number / self.size)
        end = torch.ceil((bins + 1) * number / self.size)
        inside = ((position >= start) & (position < end)).to(ones.dtype)
        return inside / (end - start)


class ExportGraph(nn.Module):
    """The folded network; with `preprocessing`, on images as they are decoded.

    Args:
        source: the network, in evaluation mode, float32, on the CPU; it stays as it is.
        preprocessing: put into the graph, which then takes uint8 RGB images.
    """

    def __init__(self, source: Backbone, preprocessing: Preprocessing | None) -> None:
        super().__init__()
        self.network = fold(source, channels_last=False).network
        for name, module in list(self.network.named_modules()):
            if isinstance(module, nn.AdaptiveAvgPool2d) and module.output_size not in (1, (1, 1)):
                size = module.output_size
                self.network.set_submodule(name, AdaptiveAveragePool(size if isinstance(size, int) else size[0]))
        self.bakes = preprocessing is not None
        if preprocessing is not None:
            if preprocessing.channel_order == "BGR":
                flip_inputs(self.network)
            numbers = preprocessing.converted(channel_order="RGB", value_range=255)
            self.register_buffer("mean", torch.tensor(numbers.mean).view(-1, 1, 1))
            self.register_buffer("std", torch.tensor(numbers.std).view(-1, 1, 1))
        self.eval().requires_grad_(False)

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the stages that come out."""
        return self.network.out_features

    @property
    def dtype(self) -> torch.dtype:
        """Of the images."""
        return torch.uint8 if self.bakes else torch.float32

    def example(self, shape: tuple[int, ...], seed: int = 0) -> Tensor:
        """Return images of this shape: noise in the range that the graph takes."""
        generator = torch.Generator().manual_seed(seed)
        if self.bakes:
            return torch.randint(256, shape, generator=generator, dtype=torch.uint8)
        return torch.randn(shape, generator=generator)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        if self.bakes:
            images = (images.to(self.mean.dtype) - self.mean) / self.std
        return self.network(images)


def flip_inputs(network: Backbone) -> None:
    """Reverse the channels that the first convolution takes, in place: RGB in place of BGR."""
    first = next(module for module in network.modules() if isinstance(module, nn.Conv2d))
    first.weight = nn.Parameter(first.weight.detach().flip(1), requires_grad=False)


class AsTuple(nn.Module):
    """The graph with a tuple for its outputs, in order: ONNX has no dicts."""

    def __init__(self, graph: ExportGraph) -> None:
        super().__init__()
        # Not "graph": torch.fx keeps its own under that name.
        self.exported = graph

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.exported(images).values())


def source_of(network: nn.Module) -> Backbone:
    """Return a copy of a network to export and compare with: in evaluation mode, float32, on the CPU.

    Raises:
        ExportError: it is no network of ours, or a folded one of lower precision.
    """
    if isinstance(network, FoldedBackbone):
        if network.dtype != torch.float32:
            raise ExportError(f"export takes the network itself or a float32 copy, not one folded to {network.dtype}")
        network = network.network
    if not isinstance(network, Backbone):
        raise ExportError(f"export takes a network of backbone.create, not {type(network).__name__}")
    copied = copy.deepcopy(network).cpu().float().eval().requires_grad_(False)
    return copied.to(memory_format=torch.contiguous_format)
