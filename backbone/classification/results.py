"""What a classification run leaves at its end: results.json, a table, and a backbone file."""

from __future__ import annotations

from typing import Any

from ..common.commands import as_typed
from ..common.text import table
from ..engine.results import say_where, write_backbone, write_results, write_table
from .plan import paper_row
from .task import ClassificationTask


def results_table(results: dict[str, dict[str, Any]], config: Any) -> str:
    """Return top-1 and top-5 error in per cent by protocol, the paper's beside those of its protocol.

    Images that could not be read have a column where there are any; they count neither as right nor as wrong.
    """
    unread = any(values["left_out"] for values in results.values())
    rows = []
    for protocol, values in results.items():
        figures = next((row[3:] for row in config.PAPER.ROWS if row[2] == protocol), (0, 0))
        rows.append(
            (
                protocol,
                f"{100 * values['top1_error']:.2f}",
                f"{100 * values['top5_error']:.2f}" if "top5_error" in values else "-",
                *(f"{figure:.2f}" if figure else "-" for figure in figures),
                f"{values['images']:,}",
                *([f"{len(values['left_out']):,}"] if unread else []),
            )
        )
    headings = ["protocol", "top-1 error %", "top-5 error %", "paper top-1 %", "paper top-5 %", "images"]
    headings += ["left out"] if unread else []
    return table(rows, headings)


def report(results: dict[str, dict[str, Any]], config: Any, *, extra: dict[str, Any]) -> None:
    """Write results.json and results.md into OUTPUT_DIR; print the table and where they are."""
    paper = [list(row) for row in config.PAPER.ROWS]
    write_results(config, {**results, **extra, "network": config.MODEL.NAME, "paper": paper})
    if results:
        text = results_table(results, config)
        write_table(config, text + "".join(f"\n\nPaper: {paper_row(row)}" for row in paper))
    say_where(config, "" if results else "nothing was tested")


def write_classifier(task: ClassificationTask, results: dict[str, dict[str, Any]], config: Any) -> None:
    """Write the weights as a file that detectors start from, with all that belongs to them."""
    facts, kept = task.metadata(), ("top1_error", "top5_error")
    tested = {name: {key: values[key] for key in kept if key in values} for name, values in results.items()}
    metadata = {
        "bn_statistics": facts["bn_statistics"],
        "classes": facts["classes"],
        "results": tested,
        "trained_on": config.DATA.NAME,
    }
    hint = f" ({as_typed('tools/train_net.py')} --weights takes it)"
    write_backbone(task.network(), config, metadata, hint)
