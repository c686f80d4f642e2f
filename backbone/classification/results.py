"""What a pretraining run leaves at its end: results.json, a table, and a backbone file."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch

from ..common.commands import as_typed
from ..common.environment import provenance
from ..common.files import write_json, write_text
from ..common.text import table
from ..engine import distributed
from ..engine.record import LOGGER, RESULTS
from ..weights import save_weights
from .plan import paper_row
from .task import ClassificationTask

log = logging.getLogger(LOGGER)
TABLE, BACKBONE = "results.md", "backbone.safetensors"


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
    folder = Path(config.OUTPUT_DIR)
    paper = [list(row) for row in config.PAPER.ROWS]
    record = {**results, **extra, "network": config.MODEL.NAME, "paper": paper}
    write_json(folder / RESULTS, {**record, **provenance(torch.device(config.MODEL.DEVICE))})
    if not results:
        log.info("results in %s (nothing was tested)", folder / RESULTS)
        return
    text = results_table(results, config)
    text += "".join(f"\n\nPaper: {paper_row(row)}" for row in paper)
    write_text(folder / TABLE, text + "\n")
    log.info("\n%s\n", text)
    log.info("results      %s, %s", folder / RESULTS, folder / TABLE)


def write_backbone(task: ClassificationTask, results: dict[str, dict[str, Any]], config: Any) -> Path | None:
    """Write the weights as a file that detectors start from, with all that belongs to them; in the main process."""
    if not distributed.is_main():
        return None
    path = Path(config.OUTPUT_DIR) / BACKBONE
    facts = task.metadata()
    kept = ("top1_error", "top5_error")
    tested = {name: {key: values[key] for key in kept if key in values} for name, values in results.items()}
    save_weights(
        task.network(),
        path,
        metadata={
            "bn_statistics": facts["bn_statistics"],
            "classes": facts["classes"],
            "results": tested,
            "trained_on": config.DATA.NAME,
            "iterations": config.SOLVER.MAX_ITER,
        },
    )
    log.info("backbone     %s (%s --weights takes it)", path, as_typed("tools/train_net.py"))
    return path
