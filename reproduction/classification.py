"""Tables 2, 3, 4 and 6 of the paper. Rows and figures are read from the configs that reproduce them (PAPER.ROWS)."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import cache
from typing import Any

from backbone.classification import load_config
from backbone.classification.session import FREE_KEYS as PRETRAINING_FREE_KEYS
from backbone.common.errors import ConfigError
from backbone.engine.config import CONFIG_FOLDER
from backbone.engine.resume import FREE_KEYS

from .rows import Figure, Kind, Panel, Row, Step, Table

CAPTIONS = {
    "2": "top-1 error on ImageNet validation, 10 crops",
    "3": "error on ImageNet validation, 10 crops",
    "4": "error of single models on ImageNet validation, fully convolutional, averaged over five scales",
    "6": "error on the CIFAR-10 test set",
}
CURVES_NOTE = (
    "Bold: test error ({tests}), at each evaluation. Thin and dashed: training error on the batches as they were "
    "augmented, averaged over neighbouring log lines. Dotted: the learning rate drops. Level and dashed: the paper's "
    "figure, where it is of the same test."
)
# Rows that a table's figures show beside its own: the paper gives their curves only.
CURVES_OF = {"6": "Fig. 6"}
# Trainings that the paper made several times: how often, and what it says of them.
BEST_OF = {"cifar10_resnet110": (5, "best of 5; 6.61 ± 0.16")}
FAMILIES = ("VGG", "plain", "ResNet")
# Configs on ImageNet that are no classifiers'.
OTHER_TASKS = ("imagenet_det_", "imagenet_loc_")
METRICS = (("top-1 error %", "top1_error"), ("top-5 error %", "top5_error"))
NAME = re.compile(r"(?P<family>[A-Za-z]+)-(?P<depth>\d+)\s*(?P<option>\w*)")

# The number of classes follows from the data, and PAPER cites without changing anything.
KIND = Kind(
    tool="pretrain.py",
    load=load_config,
    free_keys=frozenset(FREE_KEYS | PRETRAINING_FREE_KEYS | {"MODEL.NUM_CLASSES", "PAPER.ROWS"}),
    telling_keys=frozenset({"TEST.DENSE_SIDES"}),
    root_key="DATA.ROOT",
)


def classification_table(number: str) -> Table:
    """Return Table 2, 3, 4 or 6.

    Raises:
        ConfigError: no config names a row of that table.
    """
    own = _rows(number)
    if not own:
        raise ConfigError(f"no config in configs/ names a row of Table {number} in PAPER.ROWS")
    rows = (*own, *(_rows(CURVES_OF[number]) if number in CURVES_OF else ()))
    tests = ", ".join(sorted({row.curves["test"].split("/")[0] for row in rows}))
    note = CURVES_NOTE.format(tests=tests)
    return Table(number, CAPTIONS[number], rows, _drawings(number, rows), curves_note=note, curves_axis="error (%)")


def _rows(table: str) -> tuple[Row, ...]:
    found = [
        _row(file, config, cited)
        for file, config in _configs().items()
        for cited in config.PAPER.ROWS
        if str(cited[0]) == table
    ]
    return tuple(sorted(found, key=lambda row: _order(row.name)))


@cache
def _configs() -> dict[str, Any]:
    paths = [path for kind in ("imagenet_*", "cifar10_*") for path in sorted(CONFIG_FOLDER.glob(f"{kind}.yaml"))]
    return {path.name: load_config(path) for path in paths if not path.name.startswith(OTHER_TASKS)}


def _row(file: str, config: Any, cited: Any) -> Row:
    table, name, protocol, *values = cited
    train = Step(file.removesuffix(".yaml"), ("--config", file))
    # The first figure stands in the table even where the paper gives a curve alone.
    figures = tuple(
        Figure(heading, float(value) or None, (protocol, key), of_images=True)
        for index, ((heading, key), value) in enumerate(zip(METRICS, values))
        if value or index == 0
    )
    test = Step(
        f"{train.folder}_{protocol}", ("--config", file, "--eval-only", "--protocol", protocol), weights_of=train.folder
    )
    family, member = _parts(name)
    return Row(
        name=name,
        config=file,
        kind=KIND,
        train=train,
        figures=figures,
        repeats=_repeats(train),
        best_of=BEST_OF[train.folder][1] if train.folder in BEST_OF else "",
        tests=(test,),
        curves={"train": "train_error", "test": f"{config.TEST.PROTOCOL}/top1_error"},
        family=family,
        member=member,
    )


def _repeats(train: Step) -> tuple[Step, ...]:
    """Return the trainings of the further seeds of a row that the paper ran several times."""
    seeds = range(1, BEST_OF[train.folder][0]) if train.folder in BEST_OF else ()
    return tuple(replace(train, folder=f"{train.folder}_seed{seed}", overrides=("SEED", str(seed))) for seed in seeds)


def _parts(name: str) -> tuple[str, str]:
    """Return ("ResNet", "34 A") of "ResNet-34 A"."""
    match = NAME.fullmatch(name)
    return (match["family"], f"{match['depth']} {match['option']}".strip()) if match else (name, "")


def _order(name: str) -> tuple[Any, ...]:
    match = NAME.fullmatch(name)
    if match is None:
        return (len(FAMILIES), 0, name)
    family = FAMILIES.index(match["family"]) if match["family"] in FAMILIES else len(FAMILIES)
    return (family, int(match["depth"]), match["option"])


def _drawings(number: str, rows: tuple[Row, ...]) -> dict[str, tuple[Panel, ...]]:
    plain = tuple(row.name for row in rows if row.family != "ResNet")
    residual = tuple(row.name for row in rows if row.family == "ResNet")
    if number != "6":
        figure = "Fig. 4" if number == "2" else "Curves as in Fig. 4"
        panels = (Panel("plain", plain, optional=True), Panel("ResNet", residual))
        return {f"{figure}: plain against residual networks": panels}
    ends, deepest = ("plain-20", "plain-56"), ("ResNet-110", "ResNet-1202")
    return {
        "Fig. 1: training and test error of plain networks, shallow and deep": (
            Panel("training error", ends, ("train",)),
            Panel("test error", ends, ("test",)),
        ),
        "Fig. 6: plain against residual networks": (
            Panel("plain", plain),
            Panel("ResNet", tuple(name for name in residual if name != "ResNet-1202")),
            Panel("ResNet-110 and 1202", deepest, optional=True),
        ),
    }
