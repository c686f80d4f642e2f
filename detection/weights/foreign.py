"""Whole detectors of other projects: what a layout has to say of one, and whose a file's tensors are.

A layout knows the names of one project's detectors, reads them as ours, and gives ours back under its names.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from detectron2.config import CfgNode
from torch import Tensor

from backbone import WeightsError
from backbone.engine.starting_weights import StartingWeights

from ..config.names import is_retinanet, kind_of
from .keys import WEIGHT_KEYS

RENAMED, SAME, LEFT_OUT = "renamed", "as it is", "left out"
# Rows of a tensor for other classes or another order.
Change = Callable[[Tensor], Tensor]


@dataclass
class Translation:
    """The tensors of a detector under the names of another project, and what became of each.

    Attributes:
        tensors: by their new names.
        steps: former name -> its new name, or None where it is left out, and what was done in words.
    """

    tensors: dict[str, Tensor] = field(default_factory=dict)
    steps: dict[str, tuple[str | None, str]] = field(default_factory=dict)

    def put(self, former: str, name: str, tensor: Tensor, how: str = "") -> None:
        """Add a tensor under its new name; `how` says what was computed, if anything.

        Raises:
            WeightsError: another has the name already.
        """
        if name in self.tensors:
            raise WeightsError(f"two tensors for {name}, the second is {former}")
        self.tensors[name] = tensor
        self.steps[former] = (name, how or (SAME if former == name else RENAMED))

    def leave(self, former: str, why: str) -> None:
        self.steps[former] = (None, f"{LEFT_OUT}: {why}")

    def then(self, after: Translation) -> Translation:
        """Return this translation and, of what it gives, `after`."""
        steps: dict[str, tuple[str | None, str]] = {}
        for former, (name, how) in self.steps.items():
            last, then = after.steps.get(name, (None, LEFT_OUT)) if name is not None else (None, "")
            said = [words for words in (how, then) if words and words not in (RENAMED, SAME)]
            steps[former] = (last, "; ".join(said) or (SAME if former == last else RENAMED))
        return Translation(after.tensors, steps)

    def rows(self) -> list[tuple[str, str, int, str]]:
        """Return (former name, new name, tensors, what was done), digits as *; first what is not simply as it is."""
        counts: Counter[tuple[str, str, str]] = Counter()
        for former, (name, how) in self.steps.items():
            counts[_pattern(former), _pattern(name) if name else "-", how] += 1
        same = sum(number for (*_, how), number in counts.items() if how == SAME)
        rows = [(former, name, number, how) for (former, name, how), number in counts.items() if how != SAME]
        return rows + [("all others" if rows else "all", "the same names", same, SAME)] * bool(same)


def _pattern(name: str) -> str:
    """Return the layer's name, the numbers in it as *."""
    return re.sub(r"(?<=[a-z._])\d+(?=\.|$)", "*", name.rpartition(".")[0] or name)


@dataclass(frozen=True)
class ForeignDetector(StartingWeights):
    """A detector of another project, its tensors by our names.

    Attributes:
        config: ours, unfrozen, of that detector; None where the project has no usual one for such tensors.
        doubt: where it has several, which, in words.
        translation: from its names to ours.
        category_ids: of the classes; [] where nothing says.
    """

    config: CfgNode | None = None
    doubt: str = ""
    translation: Translation = field(default_factory=Translation)
    category_ids: list[int] = field(default_factory=list)

    def wanted(self, given: Collection[str]) -> dict[str, Any]:
        """See `StartingWeights.wanted`."""
        return {
            key: value for key, value in super().wanted(given).items() if key in WEIGHT_KEYS.all or key not in given
        }


def check_kind(weights: StartingWeights, config: CfgNode) -> None:
    """Raise WeightsError where the one is a RetinaNet of another project and the other an R-CNN."""
    theirs = weights.config if isinstance(weights, ForeignDetector) else None
    if theirs is not None and is_retinanet(theirs) != is_retinanet(config):
        raise WeightsError(
            f"{weights.source}: {kind_of(theirs)} of {weights.project}, but the config is of {kind_of(config)}; take a "
            f"config of {kind_of(theirs)} with --config"
        )


class DetectorLayout(ABC):
    """The detectors of one project.

    Attributes:
        project: as in messages, in names of weights and behind --to.
        suffixes: of the files that it is written to.
    """

    project: str
    suffixes: tuple[str, ...] = (".pth",)

    def refuse_name(self, source: str) -> None:  # noqa: B027  (not every project has a zoo)
        """Raise ConfigError for a name in this project's zoo whose detector has no counterpart here."""

    @abstractmethod
    def recognise(self, names: Collection[str]) -> bool:
        """Whether tensors of these names are a detector's of this project, or half of one."""

    @abstractmethod
    def read(self, content: Any, tensors: Mapping[str, Tensor], source: str) -> ForeignDetector:
        """Return a detector by our names.

        Args:
            content: of the whole file; tensors: of the detector in it, by its names.

        Raises:
            WeightsError: it has no counterpart here, or a tensor is missing that decides its form.
        """

    @abstractmethod
    def write(
        self, tensors: Mapping[str, Tensor], config: CfgNode, category_ids: Sequence[int], source: str
    ) -> Translation:
        """Return the tensors of our detector by the names of this project.

        Raises:
            ConfigError: a detector of this config cannot be one of this project's; it says why.
        """
