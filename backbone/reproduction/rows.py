"""What a row of a table is: the commands that make it, and where its figures are read.

Nothing here knows of classification: other tables are other lists of rows.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from ..text import nearest


@dataclass(frozen=True)
class Kind:
    """What all runs of one tool share.

    Attributes:
        tool: file in tools/ that trains and tests.
        load: (config name, KEY VALUE overrides) -> frozen config.
        free_keys: config keys that a resumed run may have otherwise.
        telling_keys: those of them that a report names all the same, since they decide what is measured.
        root_key: config key of --data-root.
    """

    tool: str
    load: Callable[[str, Sequence[object]], Any]
    free_keys: Collection[str]
    telling_keys: Collection[str]
    root_key: str


@dataclass(frozen=True)
class Figure:
    """One number of a row.

    Attributes:
        name: heading of its column, with its unit.
        paper: the paper's value, None where it gives none.
        path: keys that lead to the measured value in results.json, a share.
        lower_is_better: of errors.
    """

    name: str
    paper: float | None
    path: tuple[str, ...]
    lower_is_better: bool = True


@dataclass(frozen=True)
class Step:
    """One command that leaves results.json in a folder of its own.

    Attributes:
        folder: its name beside the other runs; steps of two rows with the same name are the same step.
        arguments: beside those of folder, data, device and overrides.
        weights_of: for a test, the folder of the training whose final weights are tested; None for a training.
    """

    folder: str
    arguments: tuple[str, ...]
    weights_of: str | None = None


@dataclass(frozen=True)
class Row:
    """A row of a table.

    Attributes:
        config: file name in configs/.
        family, member: what the curves are told apart by: panel ("ResNet") and colour ("34 A").
        tests: run, after the training, for those figures that it has not left itself.
        curves: name of a curve ("train", "test") -> its key in metrics.jsonl.
    """

    name: str
    config: str
    kind: Kind
    train: Step
    figures: tuple[Figure, ...]
    tests: tuple[Step, ...] = ()
    curves: dict[str, str] = field(default_factory=dict)
    family: str = ""
    member: str = ""

    @property
    def stem(self) -> str:
        """The config's name without its suffix."""
        return Path(self.config).stem

    @property
    def paper_only_curve(self) -> bool:
        """Whether the paper draws this row without giving a figure."""
        return all(figure.paper is None for figure in self.figures)


@dataclass(frozen=True)
class Panel:
    """One drawing of curves.

    Attributes:
        curves: which of a row's curves it shows.
        rows: names of the rows.
        optional: left out, not shown empty, where none of its rows has a curve.
    """

    title: str
    rows: tuple[str, ...]
    curves: tuple[str, ...] = ("train", "test")
    optional: bool = False


@dataclass(frozen=True)
class Table:
    """A table of the paper.

    Attributes:
        drawings: the paper's figures that are drawn from the same runs, {caption: panels}.
        curves_note: what the curves show, in a sentence.
    """

    number: str
    caption: str
    rows: tuple[Row, ...]
    drawings: dict[str, tuple[Panel, ...]] = field(default_factory=dict)
    curves_note: str = ""


def choose(table: Table, names: Sequence[str]) -> tuple[Row, ...]:
    """Return the rows of these names (as in the table, or of their configs) in the table's order; all for none.

    Raises:
        ConfigError: there is no such row; the nearest is named.
    """
    if not names:
        return table.rows
    known = {spelling.lower(): row for row in table.rows for spelling in (row.name, row.config, row.stem)}
    chosen = set()
    for name in names:
        row = known.get(name.strip().lower())
        if row is None:
            spellings = [spelling for row in table.rows for spelling in (row.name, row.stem)]
            raise ConfigError(f"--rows {name}: no such row in Table {table.number}{nearest(name, spellings)}")
        chosen.add(row.name)
    return tuple(row for row in table.rows if row.name in chosen)
