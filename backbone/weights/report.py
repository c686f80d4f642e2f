"""What comes of comparing a file's tensors with a network's."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor, nn

from ..common.errors import WeightsError
from ..common.preprocessing import Preprocessing
from ..common.text import count, table
from ..networks.plain import plain_names
from .weight_metadata import WeightMetadata

SHOWN = 3


@dataclass
class LoadReport:
    """What a file brought.

    Attributes:
        source: the file.
        loaded: names, in the network, that the file filled.
        missing: names that the network has and the file has not.
        unexpected: names that the file has and the network has not.
        mismatched: {name: (shape in the file, shape in the network)}.
        left_out: names in the file that are no part of the network, such as other heads.
        kind: of the file: "torch", "safetensors", "pickle", "npz" or "caffemodel".
        layout: of the names in it; None for an unknown one.
        weight_metadata: what is known of the weights beside their shapes.
        notes: what was set on the network, or left as it was, in words.
    """

    source: str
    loaded: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    mismatched: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)
    kind: str | None = None
    layout: str | None = None
    weight_metadata: WeightMetadata = field(default_factory=WeightMetadata)
    notes: list[str] = field(default_factory=list)

    @property
    def fits(self) -> bool:
        return not (self.missing or self.unexpected or self.mismatched)

    @property
    def preprocessing(self) -> Preprocessing | None:
        """What the images must go through; None where nothing is known."""
        return self.weight_metadata.preprocessing

    def problems(self) -> str:
        """Return the differences in one line."""
        parts = []
        if self.missing:
            parts.append(f"{len(self.missing)} missing ({_some(self.missing)})")
        if self.mismatched:
            shown = [f"{name} {list(a)} for {list(b)}" for name, (a, b) in self.mismatched.items()]
            parts.append(f"{len(shown)} of another shape ({_some(shown)})")
        if self.unexpected:
            parts.append(f"{len(self.unexpected)} not in the network ({_some(self.unexpected)})")
        return "; ".join(parts)

    def table(self) -> str:
        """Return every missing, extra and wrongly shaped name as a Markdown table; "" where all fits."""
        rows = [(name, "missing", "-", "yes") for name in self.missing]
        rows += [(name, "extra", "yes", "-") for name in self.unexpected]
        rows += [(name, "shape", str(list(a)), str(list(b))) for name, (a, b) in self.mismatched.items()]
        return table(rows, ("name", "problem", "in the file", "in the network")) if rows else ""

    def __str__(self) -> str:
        what = [f"{self.kind} file"] if self.kind else []
        if self.kind:
            what.append(f"{self.layout} layout" if self.layout else "names of no known layout")
        parts = [", ".join([*what, f"{count(len(self.loaded), 'tensor')} loaded"])]
        if self.kind:
            parts.append(str(self.weight_metadata))
        parts += self.notes + ([] if self.fits else [self.problems()])
        return f"{self.source}: {'; '.join(parts)}"


class MisfitError(WeightsError):
    """Weights that do not fit the network; `report.table()` lists every name that is missing, extra or misshapen.

    Attributes:
        problem: what does not fit; hint: how to mend it from Python, "" where that is not known.
    """

    def __init__(self, problem: str, report: LoadReport, hint: str = "") -> None:
        super().__init__("; ".join(filter(None, (problem, hint))))
        self.report = report
        self.problem = problem
        self.hint = hint


def _some(names: list[str], shown: int = SHOWN) -> str:
    return ", ".join(names[:shown]) + (", ..." if len(names) > shown else "")


def match(network: nn.Module, tensors: dict[str, Tensor], source: str) -> LoadReport:
    """Compare `tensors` with the network's state by its `plain_names`, without changing anything."""
    own = network.state_dict()
    state = {plain: own[name] for plain, name in plain_names(network).items()}
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
