"""What a row of a table is: the commands that make it, and where its figures are read.

Nothing here knows of classification: other tables are other lists of rows.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from backbone.common.errors import ConfigError
from backbone.common.pages.chart import Curve
from backbone.common.text import nearest

NOT_RUN, UNFINISHED, UNTESTED, DONE = "not run", "unfinished", "untested", "done"
FOR_SERVER = "for the evaluation server"


@dataclass(frozen=True)
class Kind:
    """What all runs of one tool share.

    Attributes:
        tool: file in tools/ that trains and tests.
        load: (config name, KEY VALUE overrides) -> frozen config.
        free_keys: config keys that a resumed run may have otherwise.
        telling_keys: those of them that a report names all the same, since they decide what is measured.
        root_key: config key of --data-root.
        weights_key: config key of the initial weights; "" where runs begin without.
    """

    tool: str
    load: Callable[[str, Sequence[object]], Any]
    free_keys: Collection[str]
    telling_keys: Collection[str]
    root_key: str
    weights_key: str = ""


@dataclass(frozen=True)
class Figure:
    """One number of a row.

    Attributes:
        name: heading of its column, with its unit.
        paper: the paper's value, None where it gives none.
        path: keys that lead to the measured value in results.json, a share.
        of_images: a share of the test images, whose number gives its interval.
    """

    name: str
    paper: float | None
    path: tuple[str, ...]
    of_images: bool = False


@dataclass(frozen=True)
class Step:
    """One command that leaves results.json in a folder of its own.

    Attributes:
        folder: its name beside the other runs; steps of two rows with the same name are the same step.
        arguments: beside those of folder, data, device and overrides.
        weights_of: for a test, the folder of the training whose final weights are tested; None for a training.
        config: of a training, file name in configs/ ("": the row's own).
        overrides: KEY VALUE pairs, behind the user's.
        starts_from: for a training, the folder of the one whose final weights it starts from.
        network: for a training, the architecture whose pretrained weights it starts from.
        weights_in: (config key, folders) of keys that take the final weights of other trainings.
        networks_in: (config key, architecture) of keys that take the pretrained weights of an architecture.
    """

    folder: str
    arguments: tuple[str, ...]
    weights_of: str | None = None
    config: str = ""
    overrides: tuple[str, ...] = ()
    starts_from: str | None = None
    network: str = ""
    weights_in: tuple[tuple[str, tuple[str, ...]], ...] = ()
    networks_in: tuple[tuple[str, str], ...] = ()

    @property
    def needs(self) -> tuple[str, ...]:
        """Folders of the trainings that must have ended before it."""
        first = self.weights_of or self.starts_from
        return (*((first,) if first else ()), *(folder for _, folders in self.weights_in for folder in folders))


@dataclass(frozen=True)
class Row:
    """A row of a table.

    Attributes:
        config: file name in configs/.
        family, member: what the curves are told apart by: panel ("ResNet") and colour ("34 A").
        before: further trainings that the row needs, run before its own.
        repeats: its training again, with other seeds; the best run has the row's figure.
        best_of: what the paper says of its own runs, as "best of 5; 6.61 ± 0.16".
        tests: run, after the training, for those figures that it has not left itself.
        test_only: the row's figures are those of its tests; its training is another row's, with figures of its own.
        alias: a shorter name, that rows of one table may share.
        data: the same for rows on the same data: if that is missing for one, the others are not begun either.
        server: where figures come from an evaluation server alone, what it takes, as a path in the run folder.
        curves: name of a curve ("train", "test") -> its key in metrics.jsonl.
    """

    name: str
    config: str
    kind: Kind
    train: Step
    figures: tuple[Figure, ...]
    before: tuple[Step, ...] = ()
    repeats: tuple[Step, ...] = ()
    best_of: str = ""
    tests: tuple[Step, ...] = ()
    test_only: bool = False
    data: str = ""
    alias: str = ""
    server: str = ""
    curves: dict[str, str] = field(default_factory=dict)
    family: str = ""
    member: str = ""

    @property
    def stem(self) -> str:
        """The config's name without its suffix."""
        return Path(self.config).stem

    @property
    def trainings(self) -> tuple[Step, ...]:
        """All trainings, in the order in which they run."""
        return (*self.before, self.train, *self.repeats)

    @property
    def result_folder(self) -> str:
        """Name of the folder with what was detected or classified."""
        return self.tests[-1].folder if self.test_only else self.train.folder

    def config_of(self, step: Step) -> str:
        """Return the file name of a step's config."""
        return step.config or self.config

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
class Record:
    """A row, and what was measured of it.

    Attributes:
        state: NOT_RUN, UNFINISHED, UNTESTED (trained, a figure lacks), FOR_SERVER (tested; an evaluation server has
            its figures) or DONE.
        measured: {name of a figure: share}; of a row that is not DONE, those that are there.
        seeds: the first figure of the row's own training and of those of its repeats that have ended.
        drops: iterations at which the learning rate dropped.
        images: test images behind the first measured figure, or in what an evaluation server takes.
        iteration: steps done, as far as the run folder says.
        schedule_share: training images of the run's schedule over those of the config's.
        data: its data root.
        weights: what the run began with; "" for random weights.
        changes: "KEY value (config: value)" for all that the run had otherwise than its config file.
        made: results that the figures were read from, for device, versions and date; empty before there are any.
        failure: why the command of this row failed just now, else "".
    """

    row: Row
    folder: Path
    state: str = NOT_RUN
    measured: dict[str, float] = field(default_factory=dict)
    seeds: tuple[float, ...] = ()
    drops: tuple[int, ...] = ()
    images: int | None = None
    iteration: int = 0
    total: int = 0
    schedule_share: float | None = None
    seed: int | None = None
    data: str = ""
    weights: str = ""
    changes: tuple[str, ...] = ()
    curves: dict[str, Curve] = field(default_factory=dict)
    made: dict[str, Any] = field(default_factory=dict)
    failure: str = ""


@dataclass(frozen=True)
class Details:
    """What a report shows beside the figures.

    Attributes:
        tables: (title, rows, header), in Markdown and on the page.
        sections: (title, HTML), on the page.
        style: CSS of the sections.
    """

    tables: tuple[tuple[str, list[list[str]], list[str]], ...] = ()
    sections: tuple[tuple[str, str], ...] = ()
    style: str = ""


NO_DETAILS = Details()


@dataclass(frozen=True)
class Table:
    """A table of the paper.

    Attributes:
        drawings: the paper's figures that are drawn from the same runs, {caption: panels}.
        curves_note: what the curves show, in a sentence.
        curves_axis: what they show, as their vertical axis says it; they are drawn in per cent.
        details: makes what the report shows beside the figures from the records and the folder of the runs.
    """

    number: str
    caption: str
    rows: tuple[Row, ...]
    drawings: dict[str, tuple[Panel, ...]] = field(default_factory=dict)
    curves_note: str = ""
    curves_axis: str = "%"
    details: Callable[[Sequence[Record], Path], Details] | None = None


def choose(table: Table, names: Sequence[str]) -> tuple[Row, ...]:
    """Return the rows of these names (as in the table, or of their configs) in the table's order; all for none.

    Raises:
        ConfigError: there is no such row; the nearest is named.
    """
    if not names:
        return table.rows
    known: dict[str, list[Row]] = defaultdict(list)
    for row in table.rows:
        for spelling in {spelling.lower() for spelling in (row.name, row.alias, row.config, row.stem) if spelling}:
            known[spelling].append(row)
    chosen = set()
    for name in names:
        found = known.get(name.strip().lower())
        if found is None:
            spellings = [spelling for row in table.rows for spelling in (row.name, row.stem)]
            raise ConfigError(f"--rows {name}: no such row in Table {table.number}{nearest(name, spellings)}")
        chosen |= {row.name for row in found}
    return tuple(row for row in table.rows if row.name in chosen)
