"""What detectron2 0.6 needs on today's libraries, closed in this one place before detectron2 is imported.

Each gap is looked for, not told from a version: the official main branch also calls itself 0.6 and has closed some.
"""

from __future__ import annotations

import importlib.abc
import importlib.util
import random
import sys
import types
import warnings
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from pathlib import Path

import PIL.Image

from backbone.common.errors import RunError

# What detectron2's report of the environment asks the compiled part; its default_setup prints that report.
ANSWERS = {
    "get_compiler_version": lambda: "not compiled",
    "get_cuda_version": lambda: "not compiled",
    "has_cuda": lambda: False,
}
# Of torch.ops.detectron2, which the compiled part registers.
OPERATORS = ("box_iou_rotated", "nms_rotated", "roi_align_rotated_forward", "roi_align_rotated_backward")
# Of detectron2/export/api.py.
CAFFE2_NAMES = ("add_export_config", "export_caffe2_model", "Caffe2Model", "export_onnx_model", "Caffe2Tracer")


class _NotCompiledError(RunError, AttributeError):
    """Pickle and torch.compile ask every module for a name, and take an AttributeError for a no."""


class _MissingExtension(types.ModuleType):
    """Stands in for `detectron2._C`. Faster and Mask R-CNN never call it; what does gets a clear error."""

    def __getattr__(self, name: str):
        if name.startswith("__"):
            raise AttributeError(name)
        if name in ANSWERS:
            return ANSWERS[name]
        raise not_compiled(name)


def not_compiled(name: str) -> RunError:
    """Return the error of what needs detectron2's compiled part."""
    return _NotCompiledError(
        f"detectron2's compiled part is not installed, and {name} needs it; "
        "run `python tools/install_detectron2.py --from-source --force`"
    )


class _PlainEvaluation(types.ModuleType):
    """Stands in for `detectron2.evaluation.fast_eval_api`, whose C++ is the same evaluation as pycocotools', faster."""

    def __getattr__(self, name: str):
        if name != "COCOeval_opt":
            raise AttributeError(name)
        from pycocotools.cocoeval import COCOeval

        return COCOeval


class _NoCaffe2(types.ModuleType):
    """Stands in for `detectron2.export.api`, which imports Caffe2; `from .api import *` finds nothing in it."""

    __all__: tuple[str, ...] = ()

    def __getattr__(self, name: str):
        return refuse_caffe2(name)


def refuse_caffe2(name: str) -> object:
    """Stand in for the `__getattr__` of a module whose names need Caffe2."""
    if name not in CAFFE2_NAMES:
        raise AttributeError(name)
    raise RunError(
        f"detectron2.export.{name} needs Caffe2, which PyTorch 2 has not; tools/export_detector.py writes ONNX"
    )


class SetSampler(random.Random):
    """A generator that draws from sets too, as Python's did before 3.11."""

    def sample(self, population, k: int, **keywords):
        return super().sample(tuple(population) if isinstance(population, set) else population, k, **keywords)


def _let_sets_be_sampled(module: types.ModuleType) -> None:
    """detectron2/data/common.py: a MapDataset draws a stand-in for an element from a set of indices."""
    plain = module.MapDataset.__init__

    def init(self, *arguments, **keywords) -> None:
        plain(self, *arguments, **keywords)
        state = self._rng.getstate()
        self._rng = SetSampler()
        self._rng.setstate(state)

    module.MapDataset.__init__ = init


def _name_missing_operators(module: types.ModuleType) -> None:
    """detectron2/layers: what it calls as torch.ops.detectron2.* comes with the compiled part."""
    import torch

    for name in OPERATORS:
        if not hasattr(torch.ops.detectron2, name):

            def missing(*_: object, name: str = name, **__: object) -> None:
                raise not_compiled(name)

            setattr(torch.ops.detectron2, name, missing)


def _name_caffe2(module: types.ModuleType) -> None:
    module.__getattr__ = refuse_caffe2


class _AfterImport(importlib.abc.MetaPathFinder):
    """Runs a function on a module as soon as it is imported.

    Args:
        fixes: by the module's name.
    """

    def __init__(self, fixes: dict[str, Callable[[types.ModuleType], None]]) -> None:
        self.fixes = fixes

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        fix = self.fixes.pop(name, None)
        spec = importlib.util.find_spec(name) if fix is not None else None
        if spec is None or spec.loader is None:
            return None
        run = spec.loader.exec_module

        def exec_module(module: types.ModuleType) -> None:
            run(module)
            fix(module)

        spec.loader.exec_module = exec_module
        return spec


def detectron2_folder() -> Path | None:
    """Return where detectron2 is installed, without importing it, or None."""
    spec = importlib.util.find_spec("detectron2")
    locations = list(spec.submodule_search_locations or []) if spec else []
    return Path(locations[0]) if locations else None


def has_compiled_part() -> bool:
    folder = detectron2_folder()
    return folder is not None and any(folder.glob("_C.*"))


def close_gaps() -> None:
    """Make `import detectron2` work where it is installed; a second call does nothing."""
    if detectron2_folder() is None:
        return
    # layers/deform_conv.py and evaluation/fast_eval_api.py import the compiled part at their top.
    if "detectron2._C" not in sys.modules and not has_compiled_part():
        sys.modules["detectron2._C"] = _MissingExtension("detectron2._C")
    compiled = has_compiled_part()
    stand_ins = {"detectron2.evaluation.fast_eval_api": None if compiled else _PlainEvaluation}
    fixes = {"detectron2.data.common": _let_sets_be_sampled}
    fixes |= {} if compiled else {"detectron2.layers": _name_missing_operators}
    if importlib.util.find_spec("caffe2") is None:
        stand_ins["detectron2.export.api"] = _NoCaffe2
        fixes["detectron2.export"] = _name_caffe2
    for name, kind in stand_ins.items():
        if kind is not None and name not in sys.modules:
            sys.modules[name] = kind(name)
    if not any(isinstance(finder, _AfterImport) for finder in sys.meta_path):
        sys.meta_path.insert(0, _AfterImport({name: fix for name, fix in fixes.items() if name not in sys.modules}))
    # modeling/anchor_generator.py calls torch.meshgrid without `indexing`; its default is the one that is meant.
    warnings.filterwarnings("ignore", message="torch.meshgrid", category=UserWarning)
    # data/transforms/transform.py takes it as a default argument; it went with Pillow 10.
    if not hasattr(PIL.Image, "LINEAR"):
        PIL.Image.LINEAR = PIL.Image.BILINEAR


def require_detectron2() -> None:
    """Raise RunError unless detectron2 is installed."""
    if detectron2_folder() is None:
        raise RunError("detectron2 is not installed; run `python tools/install_detectron2.py`")
