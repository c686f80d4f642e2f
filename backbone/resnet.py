"""ResNet (He et al., "Deep Residual Learning for Image Recognition", Table 1), and its plain counterpart."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from .architectures import Architecture, find_architecture
from .blocks import BLOCKS
from .contract import Backbone, FeatureInfo
from .conv_norm import conv_norm
from .errors import ArchitectureError
from .norm import check_norm, make_norm

STEM_WIDTH = 64
STEM_STRIDE = 4
OUTPUT_STRIDES = (32, 16, 8)


def make_stage(
    architecture: Architecture,
    index: int,
    *,
    norm: str,
    stride_in_1x1: bool = False,
    stride: int | None = None,
    dilation_before: int = 1,
    dilation: int = 1,
) -> nn.Sequential:
    """Build the blocks of one stage; `index` 0 is res2.

    Args:
        stride: of the first block; by default 1 for res2 and 2 for the others.
        dilation_before: dilation up to the layer whose stride the dilation stands in for.
        dilation: dilation of the 3x3 convolutions behind that layer.

    Returns:
        The blocks; takes (N, channels of the stage before, H, W).
    """
    block = BLOCKS[architecture.block]
    inputs = STEM_WIDTH if index == 0 else architecture.channels[index - 1]
    stride = (1 if index == 0 else 2) if stride is None else stride
    blocks = []
    for position in range(architecture.blocks[index]):
        first = position == 0
        blocks.append(
            block(
                inputs if first else architecture.channels[index],
                architecture.widths[index],
                architecture.channels[index],
                stride=stride if first else 1,
                dilations=(dilation_before if first else dilation, dilation),
                norm=norm,
                shortcut=architecture.shortcut,
                stride_in_1x1=stride_in_1x1,
                groups=architecture.groups,
                base_width=architecture.base_width,
            )
        )
    return nn.Sequential(*blocks)


class ResNet(Backbone):
    """Stages stem (stride 4), res2 (4), res3 (8), res4 (16), res5 (32), and `logits` with `num_classes`.

    Module names are torchvision's: conv1, bn1, layer1..layer4, fc. Stages deeper than the deepest output are not built.

    Args:
        name: key of the table of architectures.
        out_features: stages that `forward` returns; by default res2..res5, and logits where there are classes.
        norm: "bn", "frozen_bn", "sync_bn" or "gn".
        freeze_at: number of stages without gradients: 0 none, 1 stem, 2 stem and res2, ...; their BN is frozen too.
        stride_in_1x1: a bottleneck's stride stands in its first 1x1 convolution (paper, Caffe), else in its 3x3.
        num_classes: adds global average pooling and a linear classifier.
        output_stride: 32, 16 or 8; dilation stands in for the strides left out.
        checkpointing: keep each block's input alone in training, and run the block again in the backward pass.

    Raises:
        ArchitectureError: a keyword has a value that this network cannot take.
    """

    def __init__(
        self,
        name: str,
        *,
        out_features: Sequence[str] | None = None,
        norm: str = "bn",
        freeze_at: int = 0,
        stride_in_1x1: bool = False,
        num_classes: int | None = None,
        output_stride: int = 32,
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        check_norm(norm)
        table = find_architecture(name)
        if output_stride not in OUTPUT_STRIDES:
            raise ArchitectureError(f"{name}: output_stride must be one of {OUTPUT_STRIDES}, not {output_stride}")
        if num_classes is not None and num_classes < 1:
            raise ArchitectureError(f"{name}: num_classes must be at least 1, not {num_classes}")
        out_features = self._settle_outputs(name, table, out_features, num_classes)

        self.architecture = name
        self.stride_in_1x1 = stride_in_1x1 and table.block == "bottleneck"
        self.feature_info = {"stem": FeatureInfo(STEM_WIDTH, STEM_STRIDE)}
        self.conv1 = nn.Conv2d(3, STEM_WIDTH, 7, stride=2, padding=3, bias=False)
        self.bn1 = make_norm(norm, STEM_WIDTH)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)

        total_stride, dilation = STEM_STRIDE, 1
        for index, stage in enumerate(table.stages[: self._depth_needed(table, out_features)]):
            stride, dilation_before = (1 if index == 0 else 2), dilation
            if total_stride * stride > output_stride:
                stride, dilation = 1, dilation * stride
            total_stride *= stride
            blocks = make_stage(
                table,
                index,
                norm=norm,
                stride_in_1x1=stride_in_1x1,
                stride=stride,
                dilation_before=dilation_before,
                dilation=dilation,
            )
            self.add_module(f"layer{index + 1}", blocks)
            self.feature_info[stage] = FeatureInfo(table.channels[index], total_stride)
        if num_classes is not None:
            self.avgpool = nn.AdaptiveAvgPool2d(1)
            self.fc = nn.Linear(table.channels[-1], num_classes)
            self.feature_info["logits"] = FeatureInfo(num_classes, 0)

        initialise(self)
        self.finish(out_features=out_features, freeze_at=freeze_at, checkpointing=checkpointing)

    @staticmethod
    def _settle_outputs(
        name: str, table: Architecture, out_features: Sequence[str] | None, num_classes: int | None
    ) -> tuple[str, ...]:
        known = ("stem", *table.stages, *(() if num_classes is None else ("logits",)))
        if out_features is None:
            return known[1:]
        wrong = [stage for stage in out_features if stage not in known]
        if wrong or isinstance(out_features, str) or not out_features:
            hint = "; logits needs num_classes" if "logits" in wrong else ""
            raise ArchitectureError(f"{name}: out_features {out_features!r} must list some of {', '.join(known)}{hint}")
        return tuple(out_features)

    @staticmethod
    def _depth_needed(table: Architecture, out_features: Sequence[str]) -> int:
        if "logits" in out_features:
            return len(table.stages)
        return max((table.stages.index(stage) + 1 for stage in out_features if stage in table.stages), default=0)

    def stage_modules(self, stage: str) -> list[str]:
        if stage == "stem":
            return ["conv1", "bn1"]
        return ["fc"] if stage == "logits" else [f"layer{int(stage[3:]) - 1}"]

    def run_stage(self, stage: str, x: Tensor) -> Tensor:
        if stage == "stem":
            return self.maxpool(self.relu(conv_norm(self.conv1, self.bn1, x)))
        if stage == "logits":
            return self.fc(self.avgpool(x).flatten(1))
        return self.run_blocks(self.get_submodule(self.stage_modules(stage)[0]), x)


def initialise(network: nn.Module) -> None:
    """He initialisation of every convolution (fan out, ReLU), as the paper and torchvision have it."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
