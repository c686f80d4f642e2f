"""ResNet (He et al., "Deep Residual Learning for Image Recognition", Table 1 and Sec. 4.2) and its relatives.

One class builds ResNets, plain nets, ResNeXt, wide and CIFAR networks; another those with pre-activation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from ..common.errors import ArchitectureError
from .architectures import Architecture, named_architecture
from .blocks import BLOCKS, BlockShape, Stage, conv3x3
from .contract import Backbone, FeatureInfo, check_in_chans, resolve_outputs
from .conv_norm import ConvNorms, conv_norm
from .initialise import initialise
from .norm import check_norm, make_norm

OUTPUT_STRIDES = (32, 16, 8)
STEMS = ("conv7", "deep")
SHORTCUTS = ("A", "B", "C")
DILATION_STYLES = ("torchvision", "mmdetection")


def stem_width(table: Architecture) -> int:
    """Channels that the stem gives: those of the first stage's 3x3 convolutions."""
    return table.widths[0]


def make_stage(
    table: Architecture,
    index: int,
    *,
    norm: str,
    stride_in_1x1: bool = False,
    stride: int | None = None,
    dilation_before: int = 1,
    dilation: int = 1,
    dilation_style: str = "torchvision",
    average_down: bool = False,
    drop_path_rate: float = 0.0,
) -> Stage:
    """Build the blocks of one stage; `index` 0 is res2.

    Args:
        stride: of the first block; by default 1 for res2 and 2 for the others.
        dilation_before: dilation up to the layer whose stride the dilation stands in for.
        dilation: dilation of the 3x3 convolutions behind that layer.
        dilation_style, average_down, drop_path_rate: as of `ResNet`.

    Returns:
        The blocks; takes (N, channels of the stage before, H, W).
    """
    block = BLOCKS[table.family, table.block]
    stride = (1 if index == 0 else 2) if stride is None else stride
    as_torchvision = dilation_style == "torchvision"
    rest = BlockShape(
        inputs=table.channels[index],
        width=table.widths[index],
        outputs=table.channels[index],
        dilation_before=dilation,
        dilation=dilation if as_torchvision or table.block == "bottleneck" else 1,
        norm=norm,
        shortcut=table.shortcut,
        stride_in_1x1=stride_in_1x1,
        groups=table.groups,
        base_width=table.base_width,
    )
    first = replace(
        rest,
        inputs=stem_width(table) if index == 0 else table.channels[index - 1],
        stride=stride,
        dilation_before=dilation_before if as_torchvision else dilation,
        average_down=average_down and (stride > 1 or (as_torchvision and dilation > 1)),
    )
    before, all_blocks = sum(table.blocks[:index]), sum(table.blocks)
    shapes = (
        replace(
            first if position == 0 else rest, drop_path=drop_path_rate * (before + position) / max(1, all_blocks - 1)
        )
        for position in range(table.blocks[index])
    )
    return Stage(*map(block, shapes))


class ResNet(Backbone):
    """Stages stem (stride 4), res2 (4), res3 (8), res4 (16), res5 (32), and `logits` with `num_classes`.

    CIFAR networks have stem (1), res2 (1), res3 (2), res4 (4). Module names are torchvision's: conv1, bn1,
    layer1..layer4, fc. Stages deeper than the deepest output are not built.

    Args:
        name: key of the table of architectures, or an Architecture of one's own.
        out_features: stages that `forward` returns; by default res2 and deeper, and logits where there are classes.
        norm: "bn", "frozen_bn", "sync_bn" or "gn".
        freeze_at: number of stages without gradients: 0 none, 1 stem, 2 stem and res2, ...; their BN is frozen too.
        stride_in_1x1: a bottleneck's stride stands in its first 1x1 convolution (paper, Caffe), else in its 3x3.
        num_classes: adds global average pooling and a linear classifier, unless `out_features` leaves out logits.
        output_stride: 32, 16 or 8; dilation stands in for the strides left out. Not for CIFAR networks.
        dilation_style: "torchvision" (and timm): the first block of a dilated stage has the dilation of the stage
            before, and its shortcut averages. "mmdetection" (and detectron2's RES5_DILATION): it has the stage's own,
            and its shortcut does not average; blocks of two 3x3 convolutions are dilated in their first alone.
        checkpointing: keep each block's input alone in training, and run the block again in the backward pass.
        shortcut: the paper's option "A", "B" or "C" in place of the table's.
        stem: "conv7", or "deep": three 3x3 convolutions (ResNet-C and -D). Not for CIFAR networks.
        average_down: a projection with a stride averages over 2 x 2 pixels in its place (ResNet-D).
        ceil_pool: the stem's pooling has no padding and rounds its output size up (Caffe).
        in_chans: channels of the images.
        zero_init_residual: the last norm of each block (with pre-activation its last convolution) begins at 0.
        drop_path_rate: of the last block; training leaves its residual branch out with this probability, image by
            image (stochastic depth). The probability grows linearly from 0 at the first block.

    Raises:
        ArchitectureError: a keyword has a value that this network cannot take.
    """

    families = ("resnet",)

    def __init__(
        self,
        name: str | Architecture,
        *,
        out_features: Sequence[str] | None = None,
        norm: str = "bn",
        freeze_at: int = 0,
        stride_in_1x1: bool = False,
        num_classes: int | None = None,
        output_stride: int = 32,
        dilation_style: str = "torchvision",
        checkpointing: bool = False,
        shortcut: str | None = None,
        stem: str = "conv7",
        average_down: bool = False,
        ceil_pool: bool = False,
        in_chans: int = 3,
        zero_init_residual: bool = False,
        drop_path_rate: float = 0.0,
    ) -> None:
        super().__init__()
        check_norm(norm)
        name, table = named_architecture(name, self.families)
        table = with_shortcut(name, table, shortcut)
        check_in_chans(name, in_chans)
        if not 0 <= drop_path_rate < 1:
            raise ArchitectureError(f"{name}: drop_path_rate must be 0 to below 1, not {drop_path_rate}")
        if table.shortcut is None and (zero_init_residual or drop_path_rate):
            raise ArchitectureError(f"{name}: a plain net has no residual branches to drop or to begin at 0")
        self._check(name, table, output_stride, dilation_style, stem)
        default = (*table.stages, *(() if num_classes is None else ("logits",)))
        out_features = resolve_outputs(name, ("stem", *table.stages), out_features, num_classes, default=default)
        self.architecture = name
        self.stride_in_1x1 = stride_in_1x1 and table.block == "bottleneck"
        self.ceil_pool = ceil_pool
        self.average_down = average_down
        self.dilation_style = dilation_style
        self.shortcut = table.shortcut
        # A CIFAR network has neither.
        self.stem, self.output_stride = (None, None) if table.stem == "conv3" else (stem, output_stride)
        self.table = table
        width = stem_width(table)
        self._make_stem(table, stem, norm, in_chans)
        stride = 1 if table.stem == "conv3" else 4
        self.feature_info = {"stem": FeatureInfo(width, stride)}
        depth = len(table.stages)
        if out_features[-1] != "logits":
            depth = 1 + table.stages.index(out_features[-1]) if out_features[-1] != "stem" else 0
        dilation = 1
        for index, stage in enumerate(table.stages[:depth]):
            step, dilation_before = (1 if index == 0 else 2), dilation
            if stride * step > output_stride:
                step, dilation = 1, dilation * step
            stride *= step
            blocks = make_stage(
                table,
                index,
                norm=norm,
                stride_in_1x1=stride_in_1x1,
                stride=step,
                dilation_before=dilation_before,
                dilation=dilation,
                dilation_style=dilation_style,
                average_down=average_down,
                drop_path_rate=drop_path_rate,
            )
            self.add_module(f"layer{index + 1}", blocks)
            self.feature_info[stage] = FeatureInfo(table.channels[index], stride)
        self._make_end(table, norm, complete=depth == len(table.stages))
        if "logits" in out_features:
            self._add_classifier(num_classes)
        initialise(self)
        if zero_init_residual:
            for block in (module for module in self.modules() if hasattr(module, "zero_residual")):
                block.zero_residual()
        self.finish(out_features=out_features, freeze_at=freeze_at, checkpointing=checkpointing)

    @staticmethod
    def _check(name: str, table: Architecture, output_stride: int, dilation_style: str, stem: str) -> None:
        if output_stride not in OUTPUT_STRIDES:
            raise ArchitectureError(f"{name}: output_stride must be one of {OUTPUT_STRIDES}, not {output_stride}")
        if dilation_style not in DILATION_STYLES:
            raise ArchitectureError(
                f"{name}: dilation_style must be one of {', '.join(DILATION_STYLES)}, not {dilation_style!r}"
            )
        if stem not in STEMS:
            raise ArchitectureError(f"{name}: stem must be one of {', '.join(STEMS)}, not {stem!r}")
        if table.stem == "conv3" and (output_stride != 32 or stem != "conv7"):
            raise ArchitectureError(f"{name}: output_stride and stem are not for CIFAR networks")

    def _make_stem(self, table: Architecture, stem: str, norm: str, in_chans: int) -> None:
        width = stem_width(table)
        if table.stem == "conv3":
            self.conv1 = conv3x3(in_chans, width)
        elif stem == "deep":
            half = width // 2
            self.conv1 = ConvNorms(
                *(conv3x3(in_chans, half, stride=2), make_norm(norm, half), nn.ReLU(inplace=True)),
                *(conv3x3(half, half), make_norm(norm, half), nn.ReLU(inplace=True)),
                conv3x3(half, width),
            )
        else:
            self.conv1 = nn.Conv2d(in_chans, width, 7, stride=2, padding=3, bias=False)
        self._make_first_norm(norm, width)
        if table.stem != "conv3":
            padding = 0 if self.ceil_pool else 1
            self.maxpool = nn.MaxPool2d(3, stride=2, padding=padding, ceil_mode=self.ceil_pool)

    def _make_first_norm(self, norm: str, width: int) -> None:
        self.bn1 = make_norm(norm, width)
        self.relu = nn.ReLU(inplace=True)

    def _make_end(self, table: Architecture, norm: str, *, complete: bool) -> None:
        """Add what stands behind the last stage of a complete network: nothing."""

    def _add_classifier(self, num_classes: int) -> None:
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = self._last_layer(num_classes)[1]
        self.feature_info["logits"] = FeatureInfo(num_classes, 0)

    def _last_layer(self, num_classes: int) -> tuple[str, nn.Linear]:
        return "fc", nn.Linear(self.table.channels[-1], num_classes)

    def _drop_classifier(self) -> None:
        del self.avgpool, self.fc

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        blocks = r"^layer(\d+)" if coarse else [(r"^layer(\d+)\.(\d+)", None), (r"^bn\.", (99999,))]
        return {"stem": r"^conv1|^bn1", "blocks": blocks}

    def conv_norm_pairs(self) -> list[tuple[str, str]]:
        """Names of the stem's convolutions and of the norms behind them."""
        return [(f"conv1.{len(self.conv1) - 1}" if isinstance(self.conv1, nn.Sequential) else "conv1", "bn1")]

    def stage_modules(self, stage: str) -> list[str]:
        if stage == "logits":
            return ["avgpool", "fc"]
        if stage != "stem":
            return [f"layer{self.table.stages.index(stage) + 1}"]
        return [name for name in ("conv1", "bn1", "relu", "maxpool") if name in self._modules]

    def stages(self) -> Iterator[tuple[str, Callable[[Tensor], Tensor]]]:
        yield "stem", self.run_stem
        for index, stage in enumerate(self.table.stages, start=1):
            if stage in self.feature_info:
                yield stage, getattr(self, f"layer{index}")
        if "logits" in self.feature_info:
            yield "logits", self.classify

    def classify(self, x: Tensor) -> Tensor:
        """Return the logits (N, classes) of the last stage's output."""
        return self.fc(self.avgpool(x).flatten(1))

    def scripted(self, images: Tensor) -> dict[str, Tensor]:
        outputs: dict[str, Tensor] = {}
        x = images
        for name, child in self.named_children():
            x = child(x.flatten(1) if name == "fc" else x)
            if name in self._ends:
                outputs[self._ends[name]] = x
        return outputs

    def fully_convolutional(self, x: Tensor, crop: int) -> Tensor:
        """Average over windows in place of the global pooling, then `fc` at every position.

        `fc` is linear: it takes the mean over the positions instead, and gives the mean of their scores.
        """
        window = -(-crop // self.feature_info[self.stage_names[-1]].stride)
        height, width = x.shape[-2:]
        return self.fc(F.avg_pool2d(x, (min(window, height), min(window, width)), stride=1).mean((2, 3)))

    def run_stem(self, images: Tensor) -> Tensor:
        """Compute the stem from the images."""
        x = self.relu(conv_norm(self.conv1, self.bn1, images))
        return self.maxpool(x) if hasattr(self, "maxpool") else x


class PreActResNet(ResNet):
    """ResNet with pre-activation (He et al., "Identity Mappings in Deep Residual Networks", arXiv 1603.05027).

    The stem has no norm: the first block brings it. The last stage of the table ends with a norm `bn` and ReLU; the
    others give the sums as they are.
    """

    families = ("preact",)

    def _make_first_norm(self, norm: str, width: int) -> None:
        self.bn1 = None

    def _make_end(self, table: Architecture, norm: str, *, complete: bool) -> None:
        if complete:
            self.bn = make_norm(norm, table.channels[-1])
            self.relu = nn.ReLU(inplace=True)

    def conv_norm_pairs(self) -> list[tuple[str, str]]:
        return []

    def stage_modules(self, stage: str) -> list[str]:
        if stage == "stem":
            return [name for name in ("conv1", "maxpool") if name in self._modules]
        modules = super().stage_modules(stage)
        return [*modules, "bn", "relu"] if stage == self.table.stages[-1] else modules

    def stages(self) -> Iterator[tuple[str, Callable[[Tensor], Tensor]]]:
        for stage, run in super().stages():
            yield stage, (self.run_end if stage == self.table.stages[-1] else run)

    def run_end(self, x: Tensor) -> Tensor:
        """Compute the last stage, with the norm and the ReLU behind it."""
        return self.relu(self.bn(getattr(self, f"layer{len(self.table.stages)}")(x)))

    def run_stem(self, images: Tensor) -> Tensor:
        x = self.conv1(images)
        return self.maxpool(x) if hasattr(self, "maxpool") else x


def with_shortcut(name: str, table: Architecture, shortcut: str | None) -> Architecture:
    """Return the table's entry `name` with another of the paper's options; None leaves it as it is.

    Raises:
        ArchitectureError: no such option, or a plain net.
    """
    if shortcut is None:
        return table
    if shortcut not in SHORTCUTS:
        raise ArchitectureError(f"{name}: shortcut must be one of {', '.join(SHORTCUTS)}, not {shortcut!r}")
    if table.shortcut is None:
        raise ArchitectureError(f"{name}: a plain net has no shortcuts")
    return replace(table, shortcut=shortcut)
