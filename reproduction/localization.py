"""Tables 13 and 14 of the paper. Rows and figures are read from the configs that reproduce them (PAPER.ROWS)."""

from __future__ import annotations

from functools import cache
from typing import Any

from backbone.common.errors import ConfigError
from backbone.engine.config import CONFIG_FOLDER
from backbone.engine.resume import FREE_KEYS
from backbone.localization import load_config
from backbone.localization.session import FREE_KEYS as LOCALIZATION_FREE_KEYS
from backbone.localization.session import SUBMISSION
from backbone.localization.weights import WEIGHT_KEYS

from .rows import Figure, Kind, Row, Step, Table

CAPTIONS = {
    "13": "localisation error on ImageNet validation",
    "14": "top-5 localisation error on ImageNet LOC",
}
RPN, RCNN, ENSEMBLE = "imagenet_loc_rpn_r101", "imagenet_loc_rcnn_r101", "imagenet_loc_ensemble"
# Config -> the one whose weights it tests; in the order of the table.
TRAINED_BY = {RPN: RPN, f"{RPN}_dense": RPN, f"{RPN}_predicted": RPN, RCNN: RCNN, ENSEMBLE: RCNN}
# Seeds of the further networks of the ensemble.
SEEDS = (1, 2)
NETWORK = "resnet101"
KIND = Kind(
    tool="train_localization.py",
    load=load_config,
    free_keys=frozenset({*FREE_KEYS, *LOCALIZATION_FREE_KEYS, *WEIGHT_KEYS.all, "MODEL.WEIGHTS"}),
    telling_keys=frozenset({*WEIGHT_KEYS.all, "TEST.VIEWS", "TEST.DENSE_SIDES", "TEST.CLASSES"}),
    root_key="DATA.ROOT",
    weights_key="MODEL.WEIGHTS",
)


def localization_table(number: str) -> Table:
    """Return Table 13 or 14.

    Raises:
        ConfigError: no config names a row of that table.
    """
    rows = tuple(
        _row(stem, config, cited)
        for stem, config in _configs().items()
        for cited in config.PAPER.ROWS
        if str(cited[0]) == number
    )
    if not rows:
        raise ConfigError(f"no config in configs/ names a row of Table {number} in PAPER.ROWS")
    return Table(number, CAPTIONS[number], rows)


@cache
def _configs() -> dict[str, Any]:
    return {stem: load_config(CONFIG_FOLDER / f"{stem}.yaml") for stem in TRAINED_BY}


def _row(stem: str, config: Any, cited: Any) -> Row:
    number, name, data, metric, value = cited
    train = training(TRAINED_BY[stem])
    others = [training(kind, seed) for kind in (RPN, RCNN) for seed in SEEDS] if stem == ENSEMBLE else []
    first = [training(RPN)] if train.folder == RCNN else []
    test_only = train.folder != stem or data == "test"
    return Row(
        name=f"{name}, {data}" if number == "14" else name,
        config=f"{stem}.yaml",
        kind=KIND,
        train=train,
        figures=(Figure("localisation error %", float(value), ("loc", metric), of_images=True),),
        before=(*first, *others),
        tests=(_test(stem, train, config, data),) if test_only else (),
        test_only=test_only,
        alias=name,
        data=data,
        server=SUBMISSION if data == "test" else "",
    )


def training(stem: str, seed: int | None = None) -> Step:
    """Return the training of a config; with a seed, one more of it, in a folder of its own."""
    return Step(
        stem if seed is None else f"{stem}_seed{seed}",
        ("--config", f"{stem}.yaml"),
        config=f"{stem}.yaml",
        overrides=() if seed is None else ("SEED", str(seed)),
        network=NETWORK,
        weights_in=(("TEST.PROPOSERS", (RPN,)),) if stem == RCNN else (),
        networks_in=(("TEST.CLASSIFIERS", NETWORK),) if stem == RCNN else (),
    )


def _test(stem: str, train: Step, config: Any, data: str) -> Step:
    further = (("TEST.ENSEMBLE", RCNN, SEEDS), ("TEST.PROPOSERS", RPN, (None, *SEEDS))) if stem == ENSEMBLE else ()
    return Step(
        f"{stem}_test" if data == "test" else stem,
        ("--config", f"{stem}.yaml", "--eval-only"),
        weights_of=train.folder,
        overrides=("DATA.VAL", "test") if data == "test" else (),
        weights_in=tuple((key, tuple(training(kind, seed).folder for seed in seeds)) for key, kind, seeds in further),
        networks_in=(("TEST.CLASSIFIERS", NETWORK),) if config.TEST.CLASSES == "predicted" else (),
    )
