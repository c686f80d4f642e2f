"""Loading weights into a network: find the tensors in the file, give them our names, compare, copy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ..errors import WeightsError
from ..text import count
from .files import read_file

# Keys under which training tools put the state dict, and prefixes that wrappers put before every name.
CONTAINERS = ("state_dict", "model", "model_state_dict", "model_state", "net")
PREFIXES = ("module.", "model.", "backbone.", "bottom_up.")
SHOWN = 8


@dataclass
class LoadReport:
    """What a file brought.

    Attributes:
        source: the file.
        loaded: names, in the network, that the file filled.
        missing: names that the network has and the file has not.
        unexpected: names that the file has and the network has not.
        mismatched: {name: (shape in the file, shape in the network)}.
    """

    source: str
    loaded: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    mismatched: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = field(default_factory=dict)

    @property
    def fits(self) -> bool:
        return not (self.missing or self.unexpected or self.mismatched)

    def problems(self) -> str:
        """Return the differences in one line."""
        parts = []
        if self.missing:
            parts.append(f"{len(self.missing)} missing ({_some(self.missing)})")
        if self.mismatched:
            shown = [f"{name} {list(a)} for {list(b)}" for name, (a, b) in self.mismatched.items()]
            parts.append(f"{len(shown)} of another shape ({_some(shown, 3)})")
        if self.unexpected:
            parts.append(f"{len(self.unexpected)} not in the network ({_some(self.unexpected)})")
        return "; ".join(parts)

    def __str__(self) -> str:
        text = f"{self.source}: {count(len(self.loaded), 'tensor')} loaded"
        return text if self.fits else f"{text}; {self.problems()}"


def _some(names: list[str], shown: int = 3) -> str:
    return ", ".join(names[:shown]) + (", ..." if len(names) > shown else "")


def find_state_dict(content: Any, source: str) -> dict[str, Tensor]:
    """Return the tensors of a file's content by name, without containers and wrapper prefixes.

    Raises:
        WeightsError: there are none.
    """
    while isinstance(content, Mapping):
        inner = next((content[key] for key in CONTAINERS if isinstance(content.get(key), Mapping)), None)
        if inner is None:
            break
        content = inner
    tensors = {}
    if isinstance(content, Mapping):
        tensors = {
            name: value for name, value in content.items() if isinstance(value, Tensor) and isinstance(name, str)
        }
    if not tensors:
        raise WeightsError(f"{source}: holds no named tensors; expected a state dict")
    return tensors


def strip_prefixes(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Take off what wrappers put before every name: `module.` (DDP), `model.` (Lightning), `backbone.` (detectors)."""
    changed = True
    while changed:
        changed = False
        for prefix in PREFIXES:
            if all(name.startswith(prefix) for name in tensors):
                tensors = {name[len(prefix) :]: value for name, value in tensors.items()}
                changed = True
    return tensors


def match(network: nn.Module, tensors: dict[str, Tensor], source: str) -> LoadReport:
    """Compare `tensors` with the network's state, without changing anything."""
    state = network.state_dict()
    report = LoadReport(source)
    for name, value in state.items():
        if name not in tensors:
            if not name.endswith("num_batches_tracked"):
                report.missing.append(name)
        elif tensors[name].shape != value.shape:
            report.mismatched[name] = (tuple(tensors[name].shape), tuple(value.shape))
        else:
            report.loaded.append(name)
    report.unexpected = [name for name in tensors if name not in state and not name.endswith("num_batches_tracked")]
    return report


def load_weights(network: nn.Module, path: str | Path, *, strict: bool = True) -> LoadReport:
    """Load a weights file into `network`.

    Args:
        network: of `backbone.create`; stages and a classifier that it was built without may be in the file.
        strict: every tensor of the network must be in the file, with its shape, and no unknown one beside them.

    Raises:
        WeightsError: the file cannot be read, or it does not fit and `strict` is set; nothing is changed then.
    """
    content, _ = read_file(path)
    tensors = strip_prefixes(find_state_dict(content, str(path)))
    report = match(network, tensors, str(path))
    report.unexpected = [name for name in report.unexpected if not _left_out(network, name)]
    if not report.loaded or (strict and not report.fits):
        raise WeightsError(
            f"{path}: does not fit {getattr(network, 'architecture', 'the network')}: {report.problems()}"
        )
    network.load_state_dict({name: tensors[name] for name in report.loaded}, strict=False)
    return report


def _left_out(network: nn.Module, name: str) -> bool:
    """Whether `name` belongs to a stage or classifier that the network was built without."""
    top = name.split(".")[0]
    return top in ("layer1", "layer2", "layer3", "layer4", "fc") and not hasattr(network, top)
