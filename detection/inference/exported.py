"""Exported files of detectors, run by other engines where the model would stand."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.modeling.postprocessing import detector_postprocess
from detectron2.structures import Boxes, Instances
from torch import Tensor, nn

from backbone import ConfigError, ExportError, RunError, WeightsError
from backbone.engine.config import get, merge, merge_overrides, parse_yaml, put
from backbone.exporting.onnx_file import onnx_session, session_metadata
from backbone.exporting.openvino_file import open_openvino
from backbone.exporting.quiet import last_line, require

from ..config import check, default_config
from ..config.methods import METHODS
from ..config.names import classes_key
from .detector import Detector

# What runs a file: from the input by its name to the outputs by theirs.
Run = Callable[[Mapping[str, np.ndarray]], Mapping[str, np.ndarray]]
# By what may run it, its own engine first. OpenVINO reads ONNX too.
ENGINES_OF = {".onnx": ("onnxruntime", "openvino"), ".xml": ("openvino",)}
OPENVINO_PRECISIONS = {"float32": "f32", "bfloat16": "bf16", "float16": "f16"}
# Config keys that are not part of the graph.
OPEN_KEYS = ("DATALOADER.NUM_WORKERS", "INPUT.EXACT_RESIZE", "INPUT.MAX_SIZE_TEST", "INPUT.MIN_SIZE_TEST")
OPEN_SECTIONS = ("TEST.EVAL_", "TEST.BATCH_SIZE")


class ExportedModel(nn.Module):
    """A file where detectron2's model would stand: samples in, a list of {"instances": Instances} out."""

    def __init__(self, run: Run, metadata: Mapping[str, Any], where: str) -> None:
        super().__init__()
        self.run, self.metadata, self.where = run, metadata, where
        self.batches, self.pastes = metadata["input"].get("layout") == "NCHW", "paste_size" in metadata
        # Its device says where images go.
        self.place = nn.Parameter(torch.empty(0), requires_grad=False)

    def forward(self, samples: Sequence[Mapping[str, Any]]) -> list[dict[str, Instances]]:
        """Detect on each sample of `TestTransform`; boxes, and pasted masks, are in pixels of its file.

        Where the file takes several images at once, it gets those of one size together; where it pastes masks, those
        whose files have one size too.

        Raises:
            ExportError: the engine fails.
        """
        sizes = {(*sample["image"].shape, *(_size(sample) if self.pastes else ())) for sample in samples}
        if not self.batches or len(sizes) > 1:
            return [found for sample in samples for found in self._detect([sample])]
        return self._detect(samples)

    def _detect(self, samples: Sequence[Mapping[str, Any]]) -> list[dict[str, Instances]]:
        images = torch.stack([sample["image"] for sample in samples])
        try:
            values = self.run(inputs_of(self.metadata, images, _size(samples[0])))
        except Exception as error:  # of engines have no common base
            raise ExportError(f"{self.where} fails: {last_line(error)}") from error
        return [
            {"instances": _in_file(found, sample, self.pastes)}
            for sample, found in zip(samples, by_image(values, len(samples)))
        ]


def inputs_of(metadata: Mapping[str, Any], images: Tensor, paste_size: tuple[int, int]) -> dict[str, np.ndarray]:
    """Return what a file takes, by name.

    Args:
        images: (N, 3, H, W); a single one, unless the file takes several.
        paste_size: height and width of the image that masks are pasted into, where the file does it.
    """
    asked = metadata["input"]
    images = (images if asked.get("layout") == "NCHW" else images[0]).to(getattr(torch, asked["dtype"]))
    sizes = {metadata["paste_size"]["name"]: np.array(paste_size)} if "paste_size" in metadata else {}
    return {asked["name"]: images.contiguous().numpy(), **sizes}


def by_image(values: Mapping[str, np.ndarray], number: int) -> list[dict[str, np.ndarray]]:
    """Return what a file gives for each of `number` images."""
    index = values.get("image_index")
    rest = {name: np.asarray(value) for name, value in values.items() if name != "image_index"}
    if index is None:
        return [rest]
    return [{name: value[index == image] for name, value in rest.items()} for image in range(number)]


def _in_file(values: Mapping[str, np.ndarray], sample: Mapping[str, Any], pasted: bool) -> Instances:
    """Return an image's objects in pixels of its file.

    Args:
        pasted: they are there, and their masks pasted.
    """
    found = {name: torch.from_numpy(value) for name, value in values.items()}
    instances = Instances(
        _size(sample) if pasted else tuple(sample["image"].shape[-2:]),
        pred_boxes=Boxes(found["boxes"]),
        scores=found["scores"],
        pred_classes=found["classes"],
        **({"pred_masks": found["masks"]} if "masks" in found else {}),
    )
    return instances if pasted else detector_postprocess(instances, *_size(sample))


def _size(sample: Mapping[str, Any]) -> tuple[int, int]:
    return sample["height"], sample["width"]


class ExportedDetector(Detector):
    """A detector whose model is a file."""

    @property
    def tested(self) -> nn.Module:
        """The model itself: a file is folded already."""
        return self.model


def open_exported(
    path: Path, engine: str, device: str | None, precision: str, overrides: Sequence[object] = ()
) -> ExportedDetector:
    """Open a file of tools/export_detector.py.

    Args:
        engine: one of ENGINES_OF its suffix.
        precision: what it computes in; OpenVINO alone has others than float32.
        overrides: KEY, VALUE, ... of what is not inside of the file, such as INPUT.MIN_SIZE_TEST.

    Raises:
        WeightsError: no such file, or no detector's.
        ExportError: the engine is not installed, or does not take the file.
        ConfigError, RunError: the file cannot be run as it is asked for.
    """
    if not path.is_file():
        raise WeightsError(f"{path}: no such file")
    if device not in (None, "cpu"):
        raise RunError(f"{path}: {engine} runs on the CPU here, not on {device}; a checkpoint (.pth) runs on a GPU")
    if precision != "float32" and (engine != "openvino" or precision not in OPENVINO_PRECISIONS):
        choice = ", ".join(OPENVINO_PRECISIONS) if engine == "openvino" else "float32 alone"
        raise ConfigError(f"{path}: {engine} computes in {choice}, not in {precision!r}")
    require((engine,), str(path))
    run, metadata = open_file(path, engine, precision)
    config, classes, ids = _described(metadata, str(path))
    trained = config.clone()
    given = merge_overrides(config, overrides)
    check(config, trained, set(given), "command line")
    if fixed := [key for key in given if key not in OPEN_KEYS and not key.startswith(OPEN_SECTIONS)]:
        raise ConfigError(f"{path}: {fixed[0]} is fixed in an exported file; run the checkpoint (.pth) with it")
    config.freeze()
    return ExportedDetector(ExportedModel(run, metadata, f"{path} in {engine}"), config, classes, ids)


def open_file(
    path: Path, engine: str, precision: str = "float32", outputs: Sequence[str] = ()
) -> tuple[Run, dict[str, Any]]:
    """Return what runs a file, and its metadata.

    Args:
        outputs: their names, by default those in the metadata.

    Raises:
        ExportError: the engine does not take the file.
    """
    return OPENERS[engine](path, precision, outputs)


def _open_onnxruntime(path: Path, precision: str, outputs: Sequence[str]) -> tuple[Run, dict[str, Any]]:
    session = onnx_session(path)
    names = [output.name for output in session.get_outputs()]
    return lambda inputs: dict(zip(names, session.run(names, inputs))), session_metadata(session)


def _open_openvino(path: Path, precision: str, outputs: Sequence[str]) -> tuple[Run, dict[str, Any]]:
    compiled, metadata = open_openvino(path, OPENVINO_PRECISIONS[precision])
    # OpenVINO gives a value the names of all that is equal to it.
    wanted = outputs or metadata.get("outputs", ())
    names = [next((name for name in wanted if name in output.get_names()), "") for output in compiled.outputs]

    def run(inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        values = compiled(inputs)
        return {name: values[index].copy() for index, name in enumerate(names)}

    return run, metadata


OPENERS: dict[str, Callable[[Path, str, Sequence[str]], tuple[Run, dict[str, Any]]]] = {
    "onnxruntime": _open_onnxruntime,
    "openvino": _open_openvino,
}


def _described(metadata: dict[str, Any], path: str) -> tuple[CfgNode, list[str], list[int]]:
    """Return config, classes and category ids from a file's metadata, and check them: a file may hold anything."""
    text, names, ids = (metadata.get(key) for key in ("config", "classes", "category_ids"))
    given = metadata.get("input")
    sound = isinstance(text, str) and isinstance(given, dict) and isinstance(given.get("name"), str)
    if not sound or given.get("dtype") not in ("float32", "uint8"):
        raise WeightsError(f"{path}: does not say what it detects; write it with tools/export_detector.py")
    pasting = metadata.get("paste_size")
    if "paste_size" in metadata and not (isinstance(pasting, dict) and isinstance(pasting.get("name"), str)):
        raise WeightsError(f"{path}: does not say which image its masks are in; write it with tools/export_detector.py")
    config = default_config()
    merge(config, parse_yaml(text, f"{path}, its config"), path)
    # The file is the plain test, whatever the checkpoint was tested with.
    plain = default_config()
    for key in METHODS:
        put(config, key, get(plain, key))
    config.MODEL.DEVICE = "cpu"
    lists = isinstance(names, list) and isinstance(ids, list)
    if not lists or not all(isinstance(n, str) for n in names) or not all(type(i) is int for i in ids):
        raise WeightsError(f"{path}: names no classes; write it with tools/export_detector.py")
    if not len(names) == len(ids) == get(config, classes_key(config)):
        raise WeightsError(f"{path}: names {len(names)} classes, its config has {get(config, classes_key(config))}")
    return config, names, ids
