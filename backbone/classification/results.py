"""What a classification run leaves at its end: results.json, a table, and a backbone file."""

from __future__ import annotations

import csv
import io
import logging
from pathlib import Path
from typing import Any

from ..common.commands import as_typed
from ..common.files import write_text
from ..common.text import table
from ..engine.config import get
from ..engine.record import LOGGER
from ..engine.results import say_where, write_backbone, write_results, write_table
from .config import TEST_KEYS
from .data import LabelledImages
from .mistakes import Looker, mistakes_page
from .plan import paper_row
from .task import ClassificationTask
from .testing import Errors

log = logging.getLogger(LOGGER)
CONFUSION, MISTAKES = "confusion.csv", "mistakes.html"
CLASSES = 20  # rows of results.md's table


def results_table(results: dict[str, dict[str, Any]], config: Any) -> str:
    """Return top-1 and top-5 error in per cent by protocol, the paper's beside those of its protocol.

    The paper's figures, and images that could not be read, have columns where there are any. The latter count neither
    as right nor as wrong.
    """
    unread = any(values["left_out"] for values in results.values())
    paper = bool(config.PAPER.ROWS)
    rows = []
    for protocol, values in results.items():
        figures = next((row[3:] for row in config.PAPER.ROWS if row[2] == protocol), (0, 0))
        rows.append(
            (
                protocol,
                f"{100 * values['top1_error']:.2f}",
                f"{100 * values['top5_error']:.2f}" if "top5_error" in values else "-",
                *((f"{figure:.2f}" if figure else "-") for figure in figures if paper),
                f"{values['images']:,}",
                *([f"{len(values['left_out']):,}"] if unread else []),
            )
        )
    headings = ["protocol", "top-1 error %", "top-5 error %"]
    headings += [*(["paper top-1 %", "paper top-5 %"] if paper else []), "images"]
    headings += ["left out"] if unread else []
    return table(rows, headings)


def classes_table(errors: Errors) -> str:
    """Return the accuracy of each class; of many, the lowest."""
    found = sorted(errors.per_class().items(), key=lambda item: item[1]["accuracy"])
    rows = [(name, 100 * values["accuracy"], values["images"]) for name, values in found[:CLASSES]]
    return table(rows, ("class" if len(found) <= CLASSES else "worst classes", "accuracy %", "images"))


def report(
    results: dict[str, dict[str, Any]], config: Any, errors: dict[str, Errors], *, extra: dict[str, Any]
) -> None:
    """Write results.json and results.md into OUTPUT_DIR; print the table and where they are."""
    paper = [list(row) for row in config.PAPER.ROWS]
    record = {
        name: {**values, "per_class": errors[name].per_class()} if name in errors else values
        for name, values in results.items()
    }
    write_results(config, {**record, **extra, "network": config.MODEL.NAME, "paper": paper})
    if results:
        text = results_table(results, config)
        text += "".join(f"\n\n{classes_table(errors[name])}" for name in list(results)[:1] if name in errors)
        write_table(config, text + "".join(f"\n\nPaper: {paper_row(row)}" for row in paper))
    say_where(config, "" if results else "nothing was tested")


def write_mistakes(errors: Errors, images: LabelledImages, looker: Looker, config: Any) -> None:
    """Write the confusion matrix as CSV, and the page of mistakes, into OUTPUT_DIR."""
    folder = Path(config.OUTPUT_DIR)
    buffer = io.StringIO()
    rows = zip(errors.classes, errors.confusion.tolist())
    csv.writer(buffer).writerows([["class \\ taken for", *errors.classes], *([name, *row] for name, row in rows)])
    write_text(folder / CONFUSION, buffer.getvalue())
    name = folder.resolve().name
    write_text(folder / MISTAKES, mistakes_page(name, errors, images, looker, config.TEST.MISTAKES))
    log.info("mistakes     %s, %s", folder / MISTAKES, folder / CONFUSION)


def write_classifier(task: ClassificationTask, results: dict[str, dict[str, Any]], config: Any) -> None:
    """Write the weights as a file that detectors start from, with all that belongs to them."""
    facts, kept = task.metadata(), ("top1_error", "top5_error")
    tested = {name: {key: values[key] for key in kept if key in values} for name, values in results.items()}
    metadata = {
        "bn_statistics": facts["bn_statistics"],
        "classes": facts["classes"],
        "results": tested,
        "trained_on": config.DATA.NAME,
        "test": {key: get(config, key) for key in TEST_KEYS},
    }
    hint = f" ({as_typed('tools/train_net.py')} --weights takes it)"
    write_backbone(task.network(), config, metadata, hint)
