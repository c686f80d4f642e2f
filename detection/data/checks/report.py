"""What is said of the faults: the report for people, the one for scripts, the one line that stops a training run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict

from backbone.common.commands import as_typed
from backbone.common.errors import DataError
from backbone.common.text import count

from .kinds import ERROR, NOTICE, SEVERITIES, WARNING, Fault
from .structure import LISTS


def has_errors(faults: Sequence[Fault]) -> bool:
    """Whether the data is unfit for use."""
    return any(fault.severity == ERROR for fault in faults)


def raise_on_errors(faults: Sequence[Fault], source: str, *, flags: str | None = None) -> None:
    """Stop on data that is unfit for use.

    Args:
        source: the JSON file or what else has the annotations, for the message.
        flags: of tools/check_data.py, for this set; "" where it cannot read it.

    Raises:
        DataError: there are errors; the one line names the first, how many more there are, and what to do.
    """
    errors = [fault for fault in faults if fault.severity == ERROR]
    if not errors:
        return
    first, more = errors[0], sum(fault.count for fault in errors) - 1
    others = f" (and {count(more, 'more error')})" if more else ""
    flags = f"--json {source} --images FOLDER" if flags is None else flags
    whole = f"; run tools/check_data.py {flags} for the whole report" if flags else ""
    raise DataError(f"{source}: {first.kind}: {first.examples[0]}{others}; {first.mend}{whole}")


def warnings_line(faults: Sequence[Fault], flags: str) -> str:
    """Return one line on the warnings: how many there are, the first, and where to read on; "" without any.

    Args:
        flags: as of `raise_on_errors`.
    """
    found = [fault for fault in faults if fault.severity == WARNING]
    if not found:
        return ""
    number = sum(fault.count for fault in found)
    whole = f"; {as_typed('tools/check_data.py')} {flags}" if flags else ""
    first = f"{found[0].kind} first ({found[0].examples[0]})"
    return f"{count(number, 'warning')} of the data check, {first}{whole}"


def counts_of(data: object) -> dict[str, int]:
    """Return how many images, annotations and categories there are; 0 for a list that is not there."""
    lists = {name: data.get(name) if isinstance(data, dict) else None for name in LISTS}
    return {name: len(values) if isinstance(values, list) else 0 for name, values in lists.items()}


def without_masks(counts: Mapping[str, int], faults: Sequence[Fault]) -> bool:
    """Whether there are annotations, and none has a mask: then the data is of use for boxes alone."""
    absent = sum(fault.count for fault in faults if fault.kind == "missing-segmentation")
    return 0 < counts.get("annotations", 0) <= absent


def verdict(faults: Sequence[Fault], counts: Mapping[str, int]) -> str:
    """Return the last line of a report: whether the data is fit for use, and the number of faults of each severity."""
    tally = {severity: sum(fault.count for fault in faults if fault.severity == severity) for severity in SEVERITIES}
    counted = ", ".join(count(tally[severity], severity) for severity in (ERROR, WARNING, NOTICE))
    boxes_alone = " (boxes alone: no object has a mask)" if without_masks(counts, faults) else ""
    return f"{'NOT fit for use' if has_errors(faults) else 'fit for use'}{boxes_alone}: {counted}"


def as_text(counts: Mapping[str, int], faults: Sequence[Fault], *, heading: str) -> str:
    """Return the report for people: a heading, a block a fault, the verdict."""
    sizes = ", ".join(
        count(number, name[:-1] if name != "categories" else "category", name) for name, number in counts.items()
    )
    return "\n".join([f"{heading}: {sizes}", *map(_block, faults), "", f"verdict: {verdict(faults, counts)}"])


def _block(fault: Fault) -> str:
    lines = ["", f"{fault.severity} {fault.kind}: {fault.count:,}", f"    mend: {fault.mend}"]
    lines += [f"    - {example}" for example in fault.examples]
    if fault.count > len(fault.examples):
        lines.append(f"    - and {fault.count - len(fault.examples):,} more")
    return "\n".join(lines)


def as_record(counts: Mapping[str, int], faults: Sequence[Fault]) -> dict:
    """Return the report for scripts, ready for JSON."""
    fit = not has_errors(faults)
    uses = {"boxes": fit, "masks": fit and not without_masks(counts, faults)}
    return {"counts": dict(counts), "fit": fit, "uses": uses, "faults": [asdict(fault) for fault in faults]}
