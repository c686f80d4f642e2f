"""ResNet backbones for detection and segmentation. Needs torch and torchvision only.

A name below is imported when it is first used (PEP 562): a command line's --help, and a module here that computes
without torch, must not wait for torch.
"""

from __future__ import annotations

import importlib
import warnings
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from .classification.classifier import Classifier
    from .classification.training import GivenSet, TrainingRun
    from .common.errors import ArchitectureError, ConfigError, DataError, ExportError, RunError, UserError, WeightsError
    from .engine.hooks import Hook
    from .exporting import ExportReport, export
    from .networks import (
        ARCHITECTURES,
        Backbone,
        FeatureInfo,
        FoldedBackbone,
        FrozenBatchNorm2d,
        fold,
        freeze_bn,
        freeze_norm,
        layer_decay_groups,
        network_class,
        unfreeze_norm,
    )
    from .networks.precise_bn import BNReport, recompute_bn
    from .weights import (
        LoadReport,
        MisfitError,
        Preprocessing,
        WeightMetadata,
        load_weights,
        read_weight_metadata,
        save_weights,
    )

__all__ = [
    "ARCHITECTURES",
    "ArchitectureError",
    "BNReport",
    "Backbone",
    "ConfigError",
    "DataError",
    "ExportError",
    "ExportReport",
    "FeatureInfo",
    "FoldedBackbone",
    "FrozenBatchNorm2d",
    "LoadReport",
    "MisfitError",
    "Preprocessing",
    "RunError",
    "WeightMetadata",
    "UserError",
    "WeightsError",
    "create",
    "export",
    "fold",
    "freeze_bn",
    "freeze_norm",
    "layer_decay_groups",
    "list_backbones",
    "load_classifier",
    "load_weights",
    "network_class",
    "read_weight_metadata",
    "recompute_bn",
    "save_weights",
    "train",
    "unfreeze_norm",
]

__version__ = "0.1.0"

# The modules that define the names of __all__, the quickest to import first.
_HOMES = ("common.errors", "networks", "weights", "exporting", "networks.precise_bn")
_ROOMS = ("common", "networks", "weights", "exporting")


def create(name: str, *, weights: str | Path | None = None, part: str | None = None, **keywords) -> Backbone:
    """Build a network, with `weights` if they are given, else with random ones (He initialisation).

    Args:
        name: one of `list_backbones()`.
        weights: a file that `load_weights` reads; what it leaves open of the network is a warning.
        part: which of several networks in that file, as in `load_weights`.
        keywords: those of the network's class: `ResNet`, `PreActResNet` or `VGG` in `backbone.networks`.

    Raises:
        ArchitectureError: unknown name or keyword, or a value that the network cannot take.
        WeightsError: the weights do not fit.
    """
    from . import networks

    net = networks.create(name, **keywords)
    if weights is not None:
        from .weights import load_weights, open_weights
        from .weights.weight_metadata import doubts

        weights = open_weights(weights, part=part)
        report = load_weights(net, weights)
        for note in filter(None, [*doubts(net, report.weight_metadata), "" if part else weights.chosen]):
            # There is no report to hand over.
            warnings.warn(f"{report.source}: {note}", stacklevel=2)
    return net


def list_backbones() -> list[str]:
    """Return the names that `create` takes, in alphabetical order."""
    from .networks import ARCHITECTURES

    return sorted(ARCHITECTURES)


def load_classifier(
    path_or_name: str | Path,
    device: str | None = None,
    precision: str = "float32",
    *,
    part: str | None = None,
    classes: Sequence[str] | None = None,
    overrides: Sequence[object] = (),
) -> Classifier:
    """Return a trained classifier, to be called with images. It needs the packages of the extra `detection`.

    `classifier("street.jpg")` takes a path, a PIL image, an array, a tensor or a list of them, and returns `Guesses`:
    scores and labels, the likeliest first, class_names, top(5), heat() (Grad-CAM), draw(), save(path).

    Args:
        path_or_name: a checkpoint of tools/pretrain.py or the run folder that it is in, its backbone.safetensors, or
            weights of another project with a classifier: a file, a URL or a name such as `torchvision:resnet50`.
        device: "cpu", "cuda" or "cuda:1"; a GPU by default, if there is one.
        precision: "float32", "bfloat16" or "float16" where it is safe.
        part: which of several networks in the file, as in `load_weights`.
        classes: names in the order of the network; by default those in the file, else ImageNet's for 1,000.
        overrides: KEY, VALUE, ... such as "TEST.PROTOCOL", "10crop".

    Raises:
        WeightsError: no such weights, of another task, or without a classifier.
        ConfigError: an unknown precision, or a wrong override.
        RunError: the device is not there.
    """
    load = _of_classification("classifier").load_classifier
    return load(path_or_name, device, precision, part=part, classes=classes, overrides=overrides)


def train(
    config: str | Path,
    *,
    train: GivenSet | None = None,
    val: GivenSet | None = None,
    split: float | None = None,
    epochs: float | None = None,
    data_root: str | Path | None = None,
    output_dir: str | Path | None = None,
    weights: str | Path | None = None,
    overrides: Sequence[object] = (),
    hooks: Sequence[Hook] = (),
    device: str | None = None,
    seed: int | None = None,
    processes: int | None = None,
    resume: bool = False,
    overwrite: bool = False,
    **keys: object,
) -> TrainingRun:
    """Train a classifier, as tools/pretrain.py does, and return the run: `metrics`, `classifier`, `folder`.

    It needs the packages of the extra `detection`.

    Args:
        config: a path, or the name of a file in configs/.
        train: images of your own: a folder of class folders, tar shards, a CSV, or (CSV, image folder); by default
            the config's set below `data_root`. The classes follow from it.
        val: the test set, likewise; without it, the part for it in `train`, else a share that is held out.
        split: that share.
        epochs: passes over the training set, in place of the config's schedule.
        output_dir: the run folder; output/<config> by default.
        weights: what training starts from: a path, a name or a URL.
        overrides: KEY, VALUE, KEY, VALUE, ...
        hooks: called before and after run, step and evaluation; see `backbone.engine.hooks`.
        device: "cpu" or "cuda"; a GPU by default, if there is one.
        processes: that share the batch, one a GPU. Hooks must be picklable then.
        resume: go on with the run in the folder; overwrite: throw it away. Without either, it is refused.
        keys: config keys with __ for the dots: SOLVER__BASE_LR=0.01.

    Raises:
        UserError: of the kind that is wrong: ConfigError, DataError, WeightsError or RunError.
    """
    flags = {"weights": None if weights is None else str(weights), "device": device, "seed": seed, "split": split}
    root = None if data_root is None else str(data_root)
    return _of_classification("training").train(
        config,
        train=train,
        val=val,
        epochs=epochs,
        output_dir=output_dir,
        overrides=overrides,
        hooks=hooks,
        processes=processes,
        flags={**flags, "data_root": root, "resume": resume, "overwrite": overwrite},
        keys=keys,
    )


def _of_classification(module: str) -> Any:
    """Import a module of backbone/classification; raises RunError with the line that installs what it lacks."""
    try:
        return importlib.import_module(f".classification.{module}", __name__)
    except ModuleNotFoundError as error:
        from .common.commands import how_to_install
        from .common.errors import RunError

        line = how_to_install(error.name)
        if line is None:
            raise
        raise RunError(line) from None


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_ROOMS})


# Hidden from type checkers: for them the imports above stand, and a misspelt name is a mistake.
if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        if name in _ROOMS:
            return importlib.import_module(f".{name}", __name__)
        if name in __all__:
            for home in _HOMES:
                module = importlib.import_module(f".{home}", __name__)
                if hasattr(module, name):
                    globals()[name] = getattr(module, name)
                    return globals()[name]
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
