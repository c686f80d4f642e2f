"""Detectors on the networks of `backbone`, built on detectron2. The only package that imports detectron2."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from backbone import __version__

from .compat import close_gaps, require_detectron2

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from detectron2.config import CfgNode

    from backbone.engine.hooks import Hook

    from .data.sets import DetectionSet
    from .engine.training import GivenSet, TrainingRun
    from .inference.detector import Detector

__all__ = ["__version__", "get_config", "load", "register", "train"]

# Before any module of this package imports detectron2. Imports nothing itself.
close_gaps()


def register() -> None:
    """Put our backbones, with and without FPN, and heads into detectron2's registries, and our data sets into its
    DatasetCatalog. Harmless when repeated.

    Raises:
        RunError: detectron2 is not installed.
    """
    require_detectron2()
    from .data.catalog import catalog_sets
    from .data.registered import register_sets
    from .modeling import register_all

    register_all()
    register_sets(catalog_sets(), _load_set)


def _load_set(name: str) -> tuple[DetectionSet, dict[str, Any]]:
    # Not at registration: it brings in the whole engine.
    from .engine.catalog_sets import load_named

    return load_named(name)


def get_config(
    path_or_name: str | Path, overrides: Sequence[object] = (), extend: Callable[[CfgNode], object] | None = None
) -> CfgNode:
    """Return the frozen detectron2 config of a YAML file, with numbers that detectron2's own trainer takes too: the
    loader workers of each process, and for a SOLVER.CHECKPOINT_PERIOD of 0 the length of the training.

    Args:
        path_or_name: a path, or a bare file name that is then looked for in configs/;
            `detectron2:COCO-Detection/faster_rcnn_R_50_C4_1x` and its like are those of detectron2's model zoo.
        overrides: KEY, VALUE, KEY, VALUE, ...; they win over the file.
        extend: adds keys of one's own to the unfrozen defaults. All configs of this process have them from then on, so
            that checkpoints with such keys are read.

    Raises:
        ConfigError: no such file, unsafe or broken YAML, or an unknown key or value; the message names the nearest.
        RunError: detectron2 is not installed.
    """
    register()
    from .config import load_config
    from .config.detectron2_config import for_default_trainer

    if extend is not None:
        from backbone.engine.extensions import extend_config

        extend_config(extend)
    return for_default_trainer(load_config(path_or_name, overrides))


def load(
    path_or_name: str | Path,
    device: str | None = None,
    precision: str = "float32",
    engine: str | None = None,
    *,
    config: str | Path | None = None,
    overrides: Sequence[object] = (),
) -> Detector:
    """Return a trained detector, to be called with images.

    `detector("street.jpg")` takes a path, a PIL image, an array, a tensor or a list of them, and returns `Detections`:
    boxes (N, 4) XYXY in absolute pixels, scores, labels, class_names, masks, draw(), save(path), to_coco().

    Args:
        path_or_name: a checkpoint of tools/train_net.py or the run folder that it is in, a file of detectron2, a name
            such as `detectron2:COCO-Detection/faster_rcnn_R_50_FPN_3x`, or a URL; or an .onnx or .xml file of
            tools/export_detector.py.
        device: "cpu", "cuda" or "cuda:1"; a GPU by default, if there is one.
        precision: "float32", "bfloat16" or "float16", as TEST.PRECISION. ONNX Runtime has "float32" alone.
        engine: what computes it: "torch", and of exported files "onnxruntime" (.onnx) or "openvino" (.xml, .onnx); by
            default what the suffix asks for.
        config: for weights of detectron2 that no config of its zoo describes, as of `get_config`.
        overrides: KEY, VALUE, ... such as "TEST.FLIP", True.

    Raises:
        WeightsError: no such weights, or they carry no config and classes.
        ConfigError: an unknown engine or precision, or a config or override that is wrong.
        ExportError: the engine of an exported file is not installed, or does not take it.
        RunError: the device is not there, or detectron2 is not installed.
    """
    register()
    from .inference.opening import load

    return load(path_or_name, device, precision, engine, config=config, overrides=overrides)


def train(
    config: str | Path,
    *,
    train: GivenSet | None = None,
    val: GivenSet | None = None,
    split: float | None = None,
    epochs: float | None = None,
    output_dir: str | Path | None = None,
    weights: str | Path | None = None,
    overrides: Sequence[object] = (),
    hooks: Sequence[Hook] = (),
    transforms: Sequence[Callable[..., Any]] = (),
    device: str | None = None,
    seed: int | None = None,
    processes: int | None = None,
    resume: bool = False,
    overwrite: bool = False,
    **keys: object,
) -> TrainingRun:
    """Train a detector, as tools/train_net.py does, and return the run: `metrics`, `detector`, `folder`.

    Args:
        config: a path, or the name of a file in configs/.
        train: the training set: a path in any form of docs/own_data.md, (JSON file, image folder), or the name of a
            known set or several; by default the config's. The classes follow from it.
        val: the test set, likewise; without it, the part for it in `train`, if there is one.
        split: in place of val, the share of the training images that is held out.
        epochs: passes over the training set, in place of the config's schedule.
        output_dir: the run folder; output/<config> by default.
        weights: what training starts from: a path, a name or a URL.
        overrides: KEY, VALUE, KEY, VALUE, ...
        hooks: called before and after run, step and evaluation; see `backbone.engine.hooks`.
        transforms: of the training samples, behind those of the config: transforms of torchvision.transforms.v2, or
            functions of a sample and its generator; see `detection.data.transforms.register_transform`.
        device: "cpu" or "cuda"; a GPU by default, if there is one.
        processes: that share the batch, one a GPU. Hooks and transforms must be picklable then.
        resume: go on with the run in the folder; overwrite: throw it away. Without either, it is refused.
        keys: config keys with __ for the dots: SOLVER__BASE_LR=0.01.

    Raises:
        UserError: of the kind that is wrong: ConfigError, DataError, WeightsError or RunError.
    """
    register()
    from .engine.training import train as run_training

    flags = {"weights": None if weights is None else str(weights), "device": device, "seed": seed, "split": split}
    return run_training(
        config,
        train=train,
        val=val,
        epochs=epochs,
        output_dir=output_dir,
        overrides=overrides,
        hooks=hooks,
        transforms=transforms,
        processes=processes,
        flags={**flags, "resume": resume, "overwrite": overwrite},
        keys=keys,
    )
