"""What is common to the files that other projects load as their own detectors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor, nn

from backbone import WeightsError
from backbone.common.files import write_whole
from backbone.weights import find_state_dict, read_file

from ..inference.detector import Detector
from ..weights.foreign import Translation


@dataclass(frozen=True)
class Written:
    """What was written.

    Attributes:
        tensors: how many.
        translation: from our names.
        says: how the other project loads it, a line each.
        notes: what is left out, in words.
        checked: how the file was checked before it was kept.
    """

    tensors: int
    translation: Translation
    says: list[str]
    notes: list[str] = field(default_factory=list)
    checked: str = "loaded strictly by its own model"


def state_of(detector: Detector) -> dict[str, Tensor]:
    """Return the detector's tensors on the CPU."""
    return {name: value.detach().cpu().contiguous() for name, value in detector.model.state_dict().items()}


def check_target(target: Path, suffixes: tuple[str, ...], project: str, beside: Path, *, overwrite: bool) -> None:
    """Raise WeightsError for another suffix, or where one of both files exists without `overwrite`."""
    if target.suffix not in suffixes:
        raise WeightsError(f"{target}: a detector for {project} is written as {' or '.join(suffixes)}")
    for path in (target, beside):
        if path.exists() and not overwrite:
            raise WeightsError(f"{path}: exists already; --force writes over it")


def write_checked(target: Path, write: Callable[[Path], None], stock: nn.Module, project: str) -> None:
    """Write a file whole, and keep it if the project's own model `stock` takes every tensor of it.

    Raises:
        WeightsError: it does not fit; nothing is kept.
        RunError: it cannot be written.
    """

    def write_and_check(temporary: Path) -> None:
        write(temporary)
        try:
            stock.load_state_dict(find_state_dict(read_file(temporary)[0], str(target)))
        except RuntimeError as error:
            reason = str(error).splitlines()[-1].strip()
            raise WeightsError(f"{target}: not kept, it does not fit {project}'s own detector: {reason}") from None

    write_whole(target, write_and_check)
