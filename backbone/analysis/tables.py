"""Reports of networks as tables and as values for JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from ..common.text import table
from .network import NetworkReport

MIB = 2**20


def _mib(value: int | None) -> float | None:
    return None if value is None else value / MIB


def _counts(of: Any) -> list[float]:
    """Layers, parameters, multiply-adds and activations as the tables show them."""
    return [of("layers"), of("parameters") / 1e6, of("macs") / 1e9, of("activations") / 1e6]


def network_table(report: NetworkReport, effective: Mapping[str, float] | None = None) -> str:
    """Return one network's stages and totals, and a line about its memory.

    Args:
        effective: sides of effective receptive fields, of `measure_effective_fields`.
    """
    kinds = list(report.training)
    header = ["stage", "output", "stride", "layers", "params M", "GMACs", "activations M", "field"]
    header += ([] if effective is None else ["effective"]) + [f"kept {kind} MiB" for kind in kinds]
    rows = []
    for stage in report.stages:
        row = [stage.name, "x".join(map(str, stage.output)), stage.stride, *_counts(vars(stage).get), stage.field]
        row += [] if effective is None else [effective.get(stage.name)]
        rows.append(row + [_mib(stage.kept[kind]) for kind in kinds])
    total = ["total", "", None, *_counts(report.total), None, *([] if effective is None else [None])]
    rows.append(total + [_mib(report.kept(kind)) for kind in kinds])
    return table(rows, header, digits=3) + "\n\n" + _memory_line(report)


def _memory_line(report: NetworkReport) -> str:
    training = [
        f"training {kind} {value / MIB:.1f}" if value is not None else f"training {kind} needs larger images or batches"
        for kind, value in report.training.items()
    ]
    return f"MiB: weights {report.weights / MIB:.1f}, inference {report.inference / MIB:.1f}, {', '.join(training)}"


def summary_table(reports: Sequence[NetworkReport]) -> str:
    """Return one line for each network."""
    header = ["network", "input", "layers", "params M", "GMACs", "activations M", "field"]
    header += ["weights MiB", "inference MiB", "training bn MiB", "frozen_bn MiB"]
    rows = []
    for report in reports:
        memory = (report.weights, report.inference, report.training["bn"], report.training["frozen_bn"])
        size = "x".join(map(str, report.input_size))
        rows.append([report.name, size, *_counts(report.total), report.field, *map(_mib, memory)])
    return table(rows, header, digits=3)


def to_json(report: NetworkReport, effective: Mapping[str, float] | None = None) -> dict[str, Any]:
    """Return everything the report knows as plain values; bytes and plain counts, not millions."""
    values = asdict(report)
    kinds = list(report.training)
    values["total"] = {name: report.total(name) for name in ("layers", "parameters", "macs", "activations")}
    values["total"] |= {"field": report.field, "kept": {kind: report.kept(kind) for kind in kinds}}
    values["inference"] = report.inference
    for stage in values["stages"]:
        if effective is not None:
            stage["effective_field"] = effective.get(stage["name"])
    return values
