"""What detectron2 0.6 needs on today's libraries, closed in this one place before detectron2 is imported.

Each gap is looked for, not told from a version: the official main branch also calls itself 0.6 and has closed some.
"""

from __future__ import annotations

import importlib.util
import sys
import types
import warnings
from pathlib import Path

import PIL.Image

from backbone.common.errors import RunError

# What detectron2's report of the environment asks the compiled part; its default_setup prints that report.
ANSWERS = {
    "get_compiler_version": lambda: "not compiled",
    "get_cuda_version": lambda: "not compiled",
    "has_cuda": lambda: False,
}


class _MissingExtension(types.ModuleType):
    """Stands in for `detectron2._C`. Faster and Mask R-CNN never call it; what does gets a clear error."""

    def __getattr__(self, name: str):
        if name.startswith("__"):
            raise AttributeError(name)
        if name in ANSWERS:
            return ANSWERS[name]
        raise RunError(
            f"detectron2's compiled part is not installed, and {name} needs it; "
            "run `python tools/install_detectron2.py --from-source --force`"
        )


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
    # modeling/anchor_generator.py calls torch.meshgrid without `indexing`; its default is the one that is meant.
    warnings.filterwarnings("ignore", message="torch.meshgrid", category=UserWarning)
    # data/transforms/transform.py takes it as a default argument; it went with Pillow 10.
    if not hasattr(PIL.Image, "LINEAR"):
        PIL.Image.LINEAR = PIL.Image.BILINEAR


def require_detectron2() -> None:
    """Raise RunError unless detectron2 is installed."""
    if detectron2_folder() is None:
        raise RunError("detectron2 is not installed; run `python tools/install_detectron2.py`")
