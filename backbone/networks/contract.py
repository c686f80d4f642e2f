"""The one contract of every network: a dict of stages out, with channels and strides known beforehand."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..common.errors import ArchitectureError
from .conv_norm import maps_made
from .norm import hold_norm, release_norm, statistics_kept


@dataclass(frozen=True)
class FeatureInfo:
    """What a stage gives: `channels`, and `stride` in input pixels a feature cell (0 for `logits`, which has none)."""

    channels: int
    stride: int


class Backbone(nn.Module):
    """Base of every network.

    A subclass builds its modules, then calls `self.finish(...)`. It implements what raises NotImplementedError here;
    with a `forward` of its own that torch.jit.script knows, it needs no `scripted`. Its children stand in the order in
    which they run, as torchvision's do.

    Attributes:
        architecture: name in the table of architectures.
        feature_info: {stage: FeatureInfo} for every stage that is built, in order of depth; `logits`, where there is a
            classifier, is the last.
        out_features: the stages that `forward` returns, in order of depth; others may be set, of those that are built.
        checkpointing: in training, keep each block's (VGG: each stage's) input alone and run it again in the backward
            pass.
        freeze_at: number of frozen stages; see `freeze`.
        built_names: names of the weights of convolutions and linear layers, as the network was built.
        preprocessing: what the loaded weights expect of the images (a `backbone.Preprocessing`), or None.
    """

    # No annotations: torch.jit.script reads them, and knows no types of ours.
    preprocessing = None
    freeze_at = 0
    # torch.jit.script compiles every other property.
    __jit_unused_properties__ = ("out_features", "checkpointing", "stage_names", "size_divisibility", "in_chans")

    def finish(self, *, out_features: Sequence[str], freeze_at: int, checkpointing: bool) -> None:
        """Set outputs, frozen stages and checkpointing once the modules are built."""
        self.out_features = out_features
        self._note_names()
        self.checkpointing = checkpointing
        self.freeze(freeze_at)

    def _note_names(self) -> None:
        self.built_names = frozenset(
            f"{name}.weight" for name, module in self.named_modules() if isinstance(module, (nn.Conv2d, nn.Linear))
        )

    @property
    def out_features(self) -> tuple[str, ...]:
        return self._out_features

    @out_features.setter
    def out_features(self, wanted: Iterable[str]) -> None:
        built = tuple(self.feature_info)
        names = wanted if isinstance(wanted, str) else tuple(wanted)
        if isinstance(names, str) or not names or not set(names) <= set(built):
            raise ArchitectureError(
                f"{self.architecture}: out_features {names!r} must list some of the stages that are built: "
                + ", ".join(built)
            )
        self._out_features = tuple(name for name in built if name in names)
        self._ends = {self.stage_modules(stage)[-1]: stage for stage in self._out_features}

    @property
    def checkpointing(self) -> bool:
        return self._checkpointing

    @checkpointing.setter
    def checkpointing(self, wanted: bool) -> None:
        self._checkpointing = bool(wanted)
        for module in self.modules():
            if module is not self and hasattr(module, "checkpointing"):
                module.checkpointing = self._checkpointing

    @property
    def stage_names(self) -> list[str]:
        """Stages that are built, in order of depth, without `logits`."""
        return [name for name in self.feature_info if name != "logits"]

    @property
    def in_chans(self) -> int:
        """Channels of the images: those that the first convolution takes."""
        return first_convolution(self)[1].in_channels

    @property
    def size_divisibility(self) -> int:
        """Height and width of the input need no padding to any multiple: every stage takes any size."""
        return 0

    def stage_modules(self, stage: str) -> list[str]:
        """Names of the modules that compute `stage`, in the order in which they run."""
        raise NotImplementedError

    def conv_norm_pairs(self) -> list[tuple[str, str]]:
        """Names of the convolutions among the children and of the norms behind them; see `fold`."""
        return []

    def stages(self) -> Iterator[tuple[str, Callable[[Tensor], Tensor]]]:
        """Yield every stage that is built with what computes it from the stage before it (the first: from the images).

        What computes a stage is its module, where it has one.
        """
        raise NotImplementedError

    def dense_logits(self, images: Tensor, crop: int) -> Tensor:
        """Classify whole images by the network in fully convolutional form.

        The classifier slides, cell by cell, over the last map in windows as large as the map of a `crop` x `crop` image
        (a side of the map that is smaller is taken whole).

        Args:
            images: (N, 3, H, W), any size, preprocessed as for `forward`.

        Returns:
            (N, classes): scores before the softmax, averaged over all positions of the window.

        Raises:
            ArchitectureError: the network does not give logits.
        """
        if "logits" not in self.out_features:
            raise ArchitectureError(f"{self.architecture}: gives no logits; create it with num_classes")
        x = images
        for stage, run in self.stages():
            if stage != "logits":
                x = run(x)
        return self.fully_convolutional(x, crop)

    def fully_convolutional(self, x: Tensor, crop: int) -> Tensor:
        """Return `dense_logits` from the output of the last stage."""
        raise NotImplementedError

    def reset_classifier(self, num_classes: int) -> None:
        """Give the network a new classifier, or one where it had none; 0 takes it away.

        VGG keeps its fc6 and fc7 under a new one. What else `out_features` lists stays; where the logits were alone
        and are taken away, the last stage takes their place.

        Raises:
            ArchitectureError: below 0, or the stage before the classifier was not built.
        """
        if type(num_classes) is not int or num_classes < 0:
            raise ArchitectureError(f"{self.architecture}: num_classes must be 0 or more, not {num_classes!r}")
        had, before = "logits" in self.feature_info, set(self.modules())
        kept = tuple(stage for stage in self.out_features if stage != "logits")
        if had and num_classes:
            self.set_submodule(*self._last_layer(num_classes))
            self.feature_info["logits"] = FeatureInfo(num_classes, 0)
        elif had:
            self._drop_classifier()
            del self.feature_info["logits"]
            self.out_features = kept or self.stage_names[-1:]
        elif num_classes:
            if self.table.stages[-1] not in self.feature_info:
                raise ArchitectureError(
                    f"{self.architecture}: a classifier needs {self.table.stages[-1]}, which is not built; list it in "
                    "out_features"
                )
            self._add_classifier(num_classes)
            self.out_features = (*kept, "logits")
        weight = first_convolution(self)[1].weight
        for module in set(self.modules()) - before:
            module.to(weight.device, weight.dtype).train(self.training)
        self._note_names()

    def _last_layer(self, num_classes: int) -> tuple[str, nn.Linear]:
        """Return a classifier's last layer, with its name in the network."""
        raise NotImplementedError

    def _add_classifier(self, num_classes: int) -> None:
        raise NotImplementedError

    def _drop_classifier(self) -> None:
        raise NotImplementedError

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Return patterns of the parameters' names by depth, as timm's optimizers read them.

        The stem comes first, then each block (`coarse`: each stage; of VGG each layer); all other names come last.
        """
        raise NotImplementedError

    def freeze(self, freeze_at: int) -> None:
        """Freeze the first `freeze_at` stages (1: stem, 2: stem and res2, ...): no gradients, BN as constants.

        Stages that an earlier call froze, and this one does not, train again with the norms that they had.

        Raises:
            ArchitectureError: freeze_at is not 0 to 5.
        """
        if not 0 <= freeze_at <= 5:
            raise ArchitectureError(f"{self.architecture}: freeze_at must be 0 to 5, not {freeze_at}")
        for index, stage in enumerate(self.stage_names[: max(freeze_at, self.freeze_at)]):
            frozen = index < freeze_at
            for name in self.stage_modules(stage):
                module = (hold_norm if frozen else release_norm)(self.get_submodule(name))
                self.set_submodule(name, module)
                module.requires_grad_(not frozen)
        self.freeze_at = freeze_at

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Compute the stages in `out_features`.

        Args:
            images: (N, 3, H, W), float, preprocessed as the weights ask.

        Returns:
            {stage: (N, channels, H / stride, W / stride)}, sizes rounded up, in order of depth; `logits` is
            (N, classes).
        """
        if torch.jit.is_scripting():
            return self.scripted(images)
        outputs = {}
        with maps_made(self):
            for stage, x in self.run(images):
                if stage in self.out_features:
                    outputs[stage] = x
        return outputs

    def scripted(self, images: Tensor) -> dict[str, Tensor]:
        """`forward` in the part of Python that torch.jit.script knows."""
        raise NotImplementedError

    def run(self, images: Tensor) -> Iterator[tuple[str, Tensor]]:
        """Yield one stage after the other and its output, up to the last in `out_features`."""
        x = images
        for stage, compute in self.stages():
            x = compute(x)
            yield stage, x
            if stage == self.out_features[-1]:
                return


def first_convolution(network: nn.Module) -> tuple[str, nn.Conv2d]:
    """Return the name and the module of the convolution that takes the images.

    Raises:
        ArchitectureError: the network has none.
    """
    found = next(((name, module) for name, module in network.named_modules() if isinstance(module, nn.Conv2d)), None)
    if found is None:
        raise ArchitectureError(f"{type(network).__name__}: no convolution in it")
    return found


def check_in_chans(name: str, in_chans: int) -> None:
    """Raise ArchitectureError unless `in_chans` is a number of channels."""
    if type(in_chans) is not int or in_chans < 1:
        raise ArchitectureError(f"{name}: in_chans must be a whole number of 1 or more, not {in_chans!r}")


def maybe_checkpoint(run: Callable[[Tensor], Tensor], x: Tensor, *, owner: nn.Module, checkpointing: bool) -> Tensor:
    """Return run(x), a computation of `owner`; with `checkpointing`, run again in the backward pass."""
    # torch.fx traces with stand-ins for tensors.
    if not (checkpointing and owner.training and torch.is_grad_enabled() and isinstance(x, Tensor)):
        return run(x)
    # The second run must not count its batch again in the running statistics of BN. A compiler, which takes no
    # contexts, writes each of them once.
    contexts = {} if torch.compiler.is_compiling() else {"context_fn": lambda: _contexts(owner)}
    return checkpoint(run, x, use_reentrant=False, **contexts)


def _contexts(owner: nn.Module) -> tuple[AbstractContextManager, AbstractContextManager]:
    return nullcontext(), statistics_kept(owner.modules())


def resolve_outputs(
    name: str,
    stages: Sequence[str],
    wanted: Sequence[str] | None,
    num_classes: int | None,
    *,
    default: Sequence[str],
) -> tuple[str, ...]:
    """Return the stages that a network shall give, in order of depth.

    Raises:
        ArchitectureError: one of them does not exist, there are none, or `num_classes` is not a number of classes.
    """
    if num_classes is not None and num_classes < 1:
        raise ArchitectureError(f"{name}: num_classes must be at least 1, not {num_classes}")
    known = (*stages, *(() if num_classes is None else ("logits",)))
    wanted = default if wanted is None else wanted
    wrong = [stage for stage in wanted if stage not in known]
    if wrong or isinstance(wanted, str) or not wanted:
        hint = "; logits needs num_classes" if "logits" in wrong else ""
        raise ArchitectureError(f"{name}: out_features {wanted!r} must list some of {', '.join(known)}{hint}")
    return tuple(stage for stage in known if stage in wanted)
