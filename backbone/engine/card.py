"""README.md of a run folder: a model card that can be published with the weights."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..common.files import write_text
from ..common.text import some, table
from ..common.waiting import duration
from . import checkpoint
from .comparison import FinishedRun, figure_names, read_run

CARD = "README.md"
# The first line: another's README.md in the folder is left alone.
MARK = "<!-- Written from the files of this run folder. -->"
PLACEHOLDER = "the licence of your data"
# What the data's owners say, by a part of the set's name.
LICENCES = {
    "coco": "COCO: annotations CC BY 4.0, images under Flickr's terms of use",
    "voc": "PASCAL VOC: images under Flickr's terms of use",
    "imagenet": "ImageNet: non-commercial research",
    "cifar": "CIFAR: no licence stated by its authors",
    "mini": "the built-in set: Apache-2.0, as this project",
}
_LOAD = {
    "detection": """import detection

detector = detection.load("{file}")
result = detector("street.jpg")
print(result.class_names, result.scores)
result.save("out.jpg")""",
    "classification": """import backbone

classifier = backbone.load_classifier("{file}")
result = classifier("street.jpg")
print(result.top(5))
result.save("out.jpg")""",
}


def write_card(folder: Path, task: str, classes: Sequence[str]) -> None:
    """Write README.md from what the run folder holds; the run has its results. A README.md of another's stays."""
    path = folder / CARD
    if os.path.lexists(path) and not (path.is_file() and path.read_bytes().startswith(MARK.encode())):
        return
    write_text(path, card(read_run(folder, folder.resolve().name), task, classes, folder))


def card(run: FinishedRun, task: str, classes: Sequence[str], folder: Path) -> str:
    """Return the card as Markdown; `task` is as `TaskRun.task_name`."""
    network = str(run.config.get("MODEL.BACKBONE.NAME") or run.config.get("MODEL.NAME"))
    kinds = (run.config.get(f"MODEL.{key}") for key in ("META_ARCHITECTURE", "HEAD.NAME", "KIND"))
    architecture = next(filter(None, kinds), "classifier")
    best = checkpoint.BEST if (folder / checkpoint.BEST).is_file() else checkpoint.FINAL
    sets = _sets(run.config)
    parts = [
        MARK,
        f"# {run.name}",
        f"{network} ({architecture}), {task}, {len(classes)} classes: {some(list(classes), 20)}.",
        "## Results",
        _results(run),
        "## Data",
        *(f"- {line}" for line in [f"trained on {sets[0]}", f"tested on {sets[1]}"]),
        "## Training",
        _training(run),
    ]
    if task in _LOAD:
        parts += ["## Use", f"```python\n{_LOAD[task].format(file=best)}\n```"]
    parts += ["## Licence", _licence(sets)]
    return "\n\n".join(parts).replace("\n\n- tested", "\n- tested") + "\n"


def _results(run: FinishedRun) -> str:
    rows = [[name, run.figures[name]] for name in figure_names([run], most=12)]
    if not rows:
        return "Not tested."
    return "Of the last evaluation; figures but losses are fractions.\n\n" + table(rows, ["figure", "value"], digits=4)


def _sets(config: dict[str, Any]) -> tuple[str, str]:
    """Return what it was trained and tested on."""
    names = [config.get("DATASETS.TRAIN"), config.get("DATASETS.TEST")]
    if any(names):
        return tuple(some([Path(str(name)).name for name in found or ["nothing"]]) for found in names)
    name = config.get("DATA.NAME", "own data")
    # A place of one's own is a path of this machine.
    train, val = (Path(str(config.get(f"DATA.{part}", part.lower()))).name for part in ("TRAIN", "VAL"))
    # CIFAR's parts are its own, whatever the keys say.
    val = "test" if name.startswith("cifar") else val
    share = config.get("DATA.SPLIT")
    return f"{name}, {train}", f"{share:g} of {train}, held out" if share else f"{name}, {val}"


def _training(run: FinishedRun) -> str:
    config, results = run.config, run.results
    start = Path(str(config.get("MODEL.WEIGHTS") or "")).name or "random weights"
    took = duration(float(results.get("seconds", 0)))
    versions = ", ".join(f"{name} {version}" for name, version in (results.get("versions") or {}).items())
    return (
        f"{results.get('iteration', run.iteration):,} iterations of {config.get('SOLVER.IMS_PER_BATCH')} images from "
        f"{start}, learning rate {config.get('SOLVER.BASE_LR')}, seed {config.get('SEED')}; {took} on "
        f"{results.get('device', 'an unknown device')}, {str(results.get('date', ''))[:10]}. {versions}. `config.yaml` "
        "has every key."
    )


def _licence(sets: tuple[str, str]) -> str:
    known = [line for part, line in LICENCES.items() if part in sets[0].lower()]
    data = "; ".join(known) or PLACEHOLDER
    return f"The weights follow from their data and from the weights that they started from. Data: {data}."
