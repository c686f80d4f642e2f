"""Tables 7 to 12 of the paper. Rows and figures are read from the configs that reproduce them (PAPER.ROWS)."""

from __future__ import annotations

from functools import cache, partial
from typing import Any

import detection
from backbone.common.errors import ConfigError
from backbone.engine.config import CONFIG_FOLDER
from backbone.engine.resume import FREE_KEYS
from detection.config.methods import METHOD_KEYS
from detection.engine.session import FREE_KEYS as DETECTION_FREE_KEYS
from detection.weights.keys import WEIGHT_KEYS

from .details import details
from .rows import Figure, Kind, Row, Step, Table

CAPTIONS = {
    "7": "mAP of Faster R-CNN on PASCAL VOC",
    "8": "mAP of Faster R-CNN on COCO val",
    "9": "mAP of Faster R-CNN with ResNet-101 and the improvements of Appendix B on COCO",
    "10": "mAP and AP of each class on the PASCAL VOC 2007 test set",
    "11": "mAP and AP of each class on the PASCAL VOC 2012 test set",
    "12": "mAP of Faster R-CNN with ResNet-101 and the improvements of Table 9 on ImageNet DET",
}
# The sets that a row is tested on, as PAPER.ROWS has them, in the order of the tables -> short name.
DATA = {
    "voc 07 test": "07 test",
    "voc 12 test": "12 test",
    "coco val": "val",
    "coco test-dev": "test-dev",
    "imagenet det val2": "val2",
    "imagenet det test": "test",
}
# Sets whose annotations stay with an evaluation server -> what it takes, in the run folder.
SERVER = {
    "voc 12 test": "results/VOC2012/Main",
    "coco test-dev": "detections_test-dev2015_{folder}_results.json",
    "imagenet det test": "detections_imagenet_det_test.txt",
}
# Data that a config is tested on beside its own DATASETS.TEST -> the set.
OTHER_SETS = {"imagenet det test": "imagenet_det_test"}
ORDER = (
    *("VGG-16", "ResNet-101", "baseline", "+ box refinement", "+ context", "+ multi-scale testing"),
    *("single model", "ensemble"),
    *("baseline VGG-16", "baseline ResNet-101", "baseline+++ ResNet-101"),
)
COCO_TRAINVAL = "coco_paper_r101_context_trainval"
# Configs that test the weights of another.
TRAINED_BY = {
    "coco_paper_r101_refinement": "coco_paper_r101",
    "coco_paper_r101_multiscale": "coco_paper_r101_context",
    "coco_paper_r101_multiscale_trainval": COCO_TRAINVAL,
    "coco_paper_r101_ensemble_trainval": COCO_TRAINVAL,
    "imagenet_det_r101_ensemble": "imagenet_det_r101",
}
# Configs that start from another's weights.
STARTS_FROM = {"voc_paper_r101_from_coco_07": COCO_TRAINVAL, "voc_paper_r101_from_coco_12": COCO_TRAINVAL}
# Seeds of the further networks of an ensemble.
ENSEMBLES = {"coco_paper_r101_ensemble_trainval": (1, 2), "imagenet_det_r101_ensemble": (1, 2)}

# What the weights decide, and what they are, is said apart; classes follow from the data.
KIND = Kind(
    tool="train_net.py",
    load=detection.get_config,
    free_keys=frozenset(
        {*FREE_KEYS, *DETECTION_FREE_KEYS, *WEIGHT_KEYS.all, "MODEL.WEIGHTS", "MODEL.ROI_HEADS.NUM_CLASSES"}
    ),
    telling_keys=frozenset({*METHOD_KEYS, *WEIGHT_KEYS.all}),
    root_key="DATASETS.ROOT",
    weights_key="MODEL.WEIGHTS",
)


def detection_table(number: str) -> Table:
    """Return one of Tables 7 to 12.

    Raises:
        ConfigError: no config names a row of that table.
        RunError: detectron2 is not installed.
    """
    cited: dict[tuple[str, str, str], dict[str, float]] = {}
    for stem, config in _configs().items():
        for table, name, data, metric, value in config.PAPER.ROWS:
            if str(table) == number:
                cited.setdefault((data, name, stem), {})[metric] = float(value)
    if not cited:
        raise ConfigError(f"no config in configs/ names a row of Table {number} in PAPER.ROWS")
    several = len({data for data, _, _ in cited}) > 1
    keys = sorted(cited, key=lambda key: (list(DATA).index(key[0]), ORDER.index(key[1])))
    rows = tuple(_row(*key, cited[key], name_data=several) for key in keys)
    return Table(number, CAPTIONS[number], rows, details=partial(details, number=number))


@cache
def _configs() -> dict[str, Any]:
    paths = sorted(
        path
        for pattern in ("coco_paper_*", "voc_paper_*", "imagenet_det_*")
        for path in CONFIG_FOLDER.glob(f"{pattern}.yaml")
    )
    return {path.stem: detection.get_config(path) for path in paths}


def _row(data: str, name: str, stem: str, figures: dict[str, float], *, name_data: bool) -> Row:
    full = f"{name}, {DATA[data]}" if name_data else name
    other = OTHER_SETS.get(data, "")
    test_only = stem in TRAINED_BY or bool(other)
    train = training(TRAINED_BY.get(stem, stem))
    seeds = [training(TRAINED_BY.get(stem, stem), seed) for seed in ENSEMBLES.get(stem, ())]
    first = [training(STARTS_FROM[stem])] if stem in STARTS_FROM else []
    return Row(
        name=full,
        config=f"{stem}.yaml",
        kind=KIND,
        train=train,
        figures=tuple(Figure(f"{metric} %", value, ("bbox", metric)) for metric, value in figures.items()),
        before=(*first, *seeds),
        tests=(_test(stem, train, seeds, other),) if test_only else (),
        test_only=test_only,
        alias=name,
        # Rows need different sets: what one lacks, another may do without.
        data=full,
        server=SERVER.get(data, "").format(folder=stem),
    )


def training(stem: str, seed: int | None = None) -> Step:
    """Return the training of a config; with a seed, one more of it, in a folder of its own."""
    file = f"{stem}.yaml"
    start = STARTS_FROM.get(stem)
    return Step(
        stem if seed is None else f"{stem}_seed{seed}",
        ("--config", file),
        config=file,
        overrides=() if seed is None else ("SEED", str(seed)),
        starts_from=start,
        network="" if start else _configs()[stem].MODEL.BACKBONE.NAME,
    )


def _test(stem: str, train: Step, others: list[Step], tested_on: str = "") -> Step:
    """Return the test of a training, with those of `others` as an ensemble; `tested_on`, on another set."""
    ensemble = (("TEST.ENSEMBLE", tuple(other.folder for other in others)),) if others else ()
    arguments = ("--config", f"{stem}.yaml", "--eval-only")
    overrides = ("DATASETS.TEST", str((tested_on,))) if tested_on else ()
    folder = f"{stem}_test" if tested_on else stem
    return Step(folder, arguments, weights_of=train.folder, overrides=overrides, weights_in=ensemble)
