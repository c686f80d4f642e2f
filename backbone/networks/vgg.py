"""VGG-16 (Simonyan & Zisserman, arXiv 1409.1556), the baseline backbone of the paper's detectors."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..common.errors import ArchitectureError
from .architectures import Architecture, named_architecture
from .contract import Backbone, FeatureInfo, check_in_chans, maybe_checkpoint, resolve_outputs
from .conv_norm import ConvNorms, run_layers
from .initialise import initialise
from .norm import check_norm, make_norm

FC_WIDTH = 4096


class Features(ConvNorms):
    """The convolutions of all stages in turn, with the poolings between them.

    Attributes:
        spans: {stage: (index of its first layer, index behind its last)}; the pooling before a stage belongs to it.
        checkpointing: in training, keep each stage's input alone and run the stage again in the backward pass.
    """

    checkpointing = False

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__(*layers)
        self.spans: dict[str, tuple[int, int]] = {}

    def forward(
        self, x: Tensor, ends: dict[str, str] | None = None, outputs: dict[str, Tensor] | None = None
    ) -> Tensor:
        """Run the layers; with `ends`, {"features.<index of a layer>": stage}, put these stages into `outputs`."""
        if torch.jit.is_scripting():
            for index, layer in enumerate(self):
                x = layer(x)
                name = "features." + str(index)
                if ends is not None and outputs is not None and name in ends:
                    outputs[ends[name]] = x
            return x
        for stage in self.spans:
            x = self.run_stage(stage, x)
            if ends is not None and stage in ends.values():
                outputs[stage] = x
                if len(outputs) == len(ends):
                    return x
        behind = max((end for _, end in self.spans.values()), default=0)
        return run_layers(list(self)[behind:], x)

    def run_stage(self, stage: str, x: Tensor) -> Tensor:
        """Compute one stage from the output of the stage before it."""
        layers = list(self)[slice(*self.spans[stage])]
        return maybe_checkpoint(partial(run_layers, layers), x, owner=self, checkpointing=self.checkpointing)


class VGG(Backbone):
    """Stages conv1 (stride 1) .. conv5 (16), each before its pooling, and `logits` with `num_classes`.

    Module names are torchvision's: features.0, features.2, ..., classifier.0 (fc6), classifier.3 (fc7), classifier.6.

    Args:
        name: "vgg16", or "vgg16_bn" with BN after each convolution; or an Architecture of one's own.
        out_features: stages that `forward` returns; by default conv3..conv5, and logits where there are classes.
        norm: of vgg16_bn.
        freeze_at: number of stages without gradients; Faster R-CNN freezes 2, conv1 and conv2.
        num_classes: adds pooling, fc6, fc7 with dropout, and the classifier, unless `out_features` leaves out logits.
        dropout: probability behind fc6 and fc7.
        checkpointing: keep each stage's input alone in training, and run the stage again in the backward pass.
        in_chans: channels of the images.

    Raises:
        ArchitectureError: a keyword has a value that this network cannot take.
    """

    def __init__(
        self,
        name: str | Architecture,
        *,
        out_features: Sequence[str] | None = None,
        norm: str = "bn",
        freeze_at: int = 0,
        num_classes: int | None = None,
        dropout: float = 0.5,
        checkpointing: bool = False,
        in_chans: int = 3,
    ) -> None:
        super().__init__()
        check_norm(norm)
        name, table = named_architecture(name, ("vgg",))
        check_in_chans(name, in_chans)
        if not 0 <= dropout < 1:
            raise ArchitectureError(f"{name}: dropout must be 0 to 1, not {dropout}")
        default = (*table.stages[2:], *(() if num_classes is None else ("logits",)))
        out_features = resolve_outputs(name, table.stages, out_features, num_classes, default=default)
        self.architecture = name
        self.ceil_pool = False
        self.feature_info = {}
        self.table = table
        self.features = Features()
        needed = len(table.stages) if "logits" in out_features else 1 + table.stages.index(out_features[-1])
        channels, self.dropout = in_chans, dropout
        for index, stage in enumerate(table.stages[:needed]):
            start = len(self.features)
            if index:
                self.features.append(nn.MaxPool2d(2, 2))
            for _ in range(table.blocks[index]):
                self.features.append(nn.Conv2d(channels, table.widths[index], 3, padding=1))
                channels = table.widths[index]
                if table.batch_norm:
                    self.features.append(make_norm(norm, channels))
                self.features.append(nn.ReLU(inplace=True))
            self.features.spans[stage] = (start, len(self.features))
            self.feature_info[stage] = FeatureInfo(channels, 2**index)
        if "logits" in out_features:
            self._add_classifier(num_classes)
        initialise(self)
        self.finish(out_features=out_features, freeze_at=freeze_at, checkpointing=checkpointing)

    def _add_classifier(self, num_classes: int) -> None:
        self.features.append(nn.MaxPool2d(2, 2))
        self.avgpool = nn.AdaptiveAvgPool2d(7)
        self.classifier = make_fc_layers(self.table.channels[-1], dropout=self.dropout)
        self.classifier.append(self._last_layer(num_classes)[1])
        self.feature_info["logits"] = FeatureInfo(num_classes, 0)

    def _last_layer(self, num_classes: int) -> tuple[str, nn.Linear]:
        return "classifier.6", nn.Linear(FC_WIDTH, num_classes)

    def _drop_classifier(self) -> None:
        del self.avgpool, self.classifier, self.features[-1]

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        return {"stem": r"^features\.0\.", "blocks": r"^features\.(\d+)"}

    def stage_modules(self, stage: str) -> list[str]:
        if stage == "logits":
            return ["avgpool", "classifier"]
        return [f"features.{index}" for index in range(*self.features.spans[stage])]

    def stages(self) -> Iterator[tuple[str, Callable[[Tensor], Tensor]]]:
        for stage in self.stage_names:
            yield stage, partial(self.features.run_stage, stage)
        if "logits" in self.feature_info:
            yield "logits", lambda x: self.classify(self.features[-1](x))

    def classify(self, x: Tensor) -> Tensor:
        """Return the logits (N, classes) of the last pooling's output."""
        return self.classifier(self.avgpool(x).flatten(1))

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        outputs: dict[str, Tensor] = {}
        x = self.features(images, self._ends, outputs)
        # torch.jit.script needs to know beforehand whether there is a classifier.
        if hasattr(self, "classifier"):  # noqa: SIM102
            if "classifier" in self._ends:
                outputs["logits"] = self.classify(x)
        return outputs

    def fully_convolutional(self, x: Tensor, crop: int) -> Tensor:
        """Run fc6 as a convolution with the window as its kernel, 7 x 7 for crops of 224, and fc7 as a 1x1 convolution.

        The last layer is linear: it takes the mean over the positions instead, and gives the mean of their scores.
        """
        x = self.features[-1](x)
        window = crop // 2 ** len(self.features.spans)
        fc6, fc7 = self.classifier[0], self.classifier[3]
        kernel = _kernel_of(fc6, min(window, x.shape[-2]), min(window, x.shape[-1]))
        x = F.relu(F.conv2d(x, kernel, fc6.bias))
        x = F.relu(F.conv2d(x, fc7.weight[:, :, None, None], fc7.bias))
        return self.classifier[6](x.mean((2, 3)))


def _kernel_of(fc6: nn.Linear, height: int, width: int) -> Tensor:
    """Return fc6 as a (4096, channels, height, width) kernel, the pooling of that window to 7 x 7 included."""
    kernel = fc6.weight.view(len(fc6.weight), -1, 7, 7)
    if (height, width) == (7, 7):
        return kernel
    cells = (torch.eye(side, dtype=kernel.dtype, device=kernel.device) for side in (height, width))
    rows, columns = (F.adaptive_avg_pool1d(eye, 7) for eye in cells)
    return torch.einsum("ocpq,ip,jq->ocij", kernel, rows, columns)


def make_fc_layers(channels: int, *, dropout: float = 0.5) -> nn.Sequential:
    """Return fc6 and fc7 on a 7 x 7 map of `channels`, flattened: in the classifier and in Fast R-CNN's head alike."""
    return nn.Sequential(
        nn.Linear(channels * 7 * 7, FC_WIDTH),
        nn.ReLU(inplace=True),
        nn.Dropout(dropout),
        nn.Linear(FC_WIDTH, FC_WIDTH),
        nn.ReLU(inplace=True),
        nn.Dropout(dropout),
    )
