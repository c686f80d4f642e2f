"""A trained detector as a file that detectron2 itself loads, with its config beside it."""

from __future__ import annotations

import pickle
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from torch import Tensor

from backbone import WeightsError
from backbone.common.files import checked_file, write_text, write_whole
from backbone.common.text import table
from backbone.weights import find_state_dict, read_file
from backbone.weights.save import AUTHOR

from ..config.detectron2_config import to_detectron2
from ..inference.detector import Detector
from ..weights.detectron2_names import to_theirs

SUFFIXES = (".pkl", ".pth")
COUNTER = ".num_batches_tracked"


@dataclass(frozen=True)
class Written:
    """What `write_detectron2` did.

    Attributes:
        config: detectron2's, the file beside the weights.
        tensors: how many were written.
        names: rows (our name, detectron2's, tensors), digits as *; those of one name in both projects are not renamed.
        notes: what is left out, in words.
    """

    config: Path
    tensors: int
    names: list[tuple[str, str, int]]
    notes: list[str]

    def table(self) -> str:
        """Return the names on both sides as a Markdown table."""
        return table(self.names, ("here", "detectron2", "tensors"))


def write_detectron2(detector: Detector, target: str | Path, *, overwrite: bool = False) -> Written:
    """Write a detector for detectron2's DefaultPredictor and DetectionCheckpointer, and detectron2's config beside it.

    The file is read back into detectron2's own model, every tensor of it, before it takes its name. It carries our
    config and the classes too, so that it loads here as it is.

    Args:
        target: .pkl (arrays, as in detectron2's model zoo) or .pth; the config gets its name with .yaml.

    Raises:
        WeightsError: another suffix, or one of both files exists without `overwrite`.
        ConfigError: detectron2 has no such network or head.
        RunError: a file cannot be written.
    """
    target = Path(target)
    beside = target.with_suffix(".yaml")
    if target.suffix not in SUFFIXES:
        raise WeightsError(f"{target}: a detector for detectron2 is written as {' or '.join(SUFFIXES)}")
    for path in (target, beside):
        if path.exists() and not overwrite:
            raise WeightsError(f"{path}: exists already; --force writes over it")
    theirs, idle = to_detectron2(detector.config, "its config")
    state = {name: value.detach().cpu().contiguous() for name, value in detector.model.state_dict().items()}
    renamed = dict(zip(state, to_theirs(state)))
    stock = _stock(theirs)
    lost = [name for name, new in renamed.items() if new not in stock.state_dict()]
    if unknown := [name for name in lost if not name.endswith(COUNTER)]:
        raise WeightsError(f"{target}: detectron2's detector has no place for {unknown[0]}; nothing is written")
    tensors = {new: state[name] for name, new in renamed.items() if name not in lost}

    def write_and_check(temporary: Path) -> None:
        _write(temporary, target.suffix, tensors, detector)
        try:
            stock.load_state_dict(find_state_dict(read_file(temporary)[0], str(target)))
        except RuntimeError as error:
            reason = str(error).splitlines()[-1].strip()
            raise WeightsError(f"{target}: not kept, it does not fit detectron2's own detector: {reason}") from None

    write_whole(target, write_and_check)
    theirs.MODEL.WEIGHTS = str(target)
    write_text(beside, theirs.dump())
    notes = [f"{key} is left out, detectron2 has no such test" for key in idle]
    if lost:
        notes.append(f"{len(lost)} counters of batches are left out, detectron2's norms have none")
    kept = {name: new for name, new in renamed.items() if name not in lost}
    return Written(beside, len(tensors), _rows(kept), notes)


def _stock(config: CfgNode) -> torch.nn.Module:
    """Return detectron2's own model of its config, with random weights."""
    config = config.clone()
    config.MODEL.DEVICE = "cpu"
    return build_model(config)


def _write(path: Path, suffix: str, tensors: Mapping[str, Tensor], detector: Detector) -> None:
    # Without "matching_heuristics": detectron2 takes every tensor by its name.
    facts = {
        "__author__": AUTHOR,
        "config": detector.config.dump(),
        "metadata": {"classes": list(detector.classes), "category_ids": list(detector.category_ids)},
    }
    with checked_file(path) as file:
        if suffix == ".pkl":
            arrays = {name: value.numpy() for name, value in tensors.items()}
            pickle.dump({"model": arrays, **facts}, file, protocol=4)
        else:
            torch.save({"model": dict(tensors), **facts}, file)


def _rows(names: Mapping[str, str]) -> list[tuple[str, str, int]]:
    counts = Counter(tuple(re.sub(r"(?<=[a-z.])\d+(?=\.)", "*", name) for name in pair) for pair in names.items())
    renamed = {(old, new): number for (old, new), number in counts.items() if old != new}
    rows = [(old.rpartition(".")[0], new.rpartition(".")[0], number) for (old, new), number in renamed.items()]
    joined: Counter[tuple[str, str]] = Counter()
    for old, new, number in rows:
        joined[old, new] += number
    as_they_are = sum(counts.values()) - sum(renamed.values())
    return [(*pair, number) for pair, number in joined.items()] + [("all others", "the same names", as_they_are)]
