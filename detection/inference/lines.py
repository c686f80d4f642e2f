"""Results as JSON Lines, written while a run goes on, and what is made of them at its end; never all in memory.

Each process of a run appends to a part of its own. A killed run leaves its parts; the next one keeps their whole lines.
"""

from __future__ import annotations

import heapq
import json
import re
from array import array
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from backbone import RunError
from backbone.common.files import json_text, remove_leftovers, write_json, write_whole, writing

LINES = "detections.jsonl"
PART, PARTS = "detections.part{}.jsonl", "detections.part*.jsonl"
# What an unfinished run is of.
STATE = "unfinished.json"
# As each line begins.
BEGINNING = re.compile(rb'\{"id": (\d+), ')

Line = dict[str, Any]


class Unfinished:
    """The parts of a run in its output folder.

    Attributes:
        done: the ids whose lines are there, sorted, int64.
    """

    def __init__(self, output: Path, facts: dict[str, Any], *, overwrite: bool) -> None:
        """Begin a run, or go on with that of the same `facts`.

        Args:
            output: a folder that exists.
            facts: plain values by the words that a message calls them.
            overwrite: throw away what another run has left unfinished.

        Raises:
            RunError: an unfinished run of other facts is there; or the folder cannot be written.
        """
        self.output = output
        self.done = np.empty(0, np.int64)
        former = None if overwrite else _state_of(output)
        with writing(output):
            if (output / STATE).exists():
                remove_leftovers(output)
            if former is None:
                self._remove()
                write_json(output / STATE, facts)
                return
            found = array("q")
            for part in self._parts():
                found.extend(_whole_lines(part))
            if other := next((name for name in facts if former.get(name) != facts[name]), None):
                if found:
                    raise RunError(
                        f"{output}: holds an unfinished run with another {other} ({former.get(other)}, now "
                        f"{facts[other]}); --overwrite starts anew, or name another folder"
                    )
                self._remove()
                write_json(output / STATE, facts)
            self.done = np.unique(np.asarray(found, np.int64))

    def next_part(self) -> int:
        """Return the first number that no part has."""
        return 1 + max((int(re.findall(r"\d+", part.name)[-1]) for part in self._parts()), default=-1)

    def lines(self, place: Callable[[int], Any]) -> Iterator[bytes]:
        """Yield the lines of all parts, sorted by `place` of their ids."""
        return heapq.merge(*map(_raw_lines, self._parts()), key=lambda line: place(_id_of(line)))

    def merge(self, place: Callable[[int], Any]) -> None:
        """Write the lines of all parts into LINES, sorted by `place` of their ids."""

        def write(temporary: Path) -> None:
            with temporary.open("wb") as file:
                file.writelines(self.lines(place))

        write_whole(self.output / LINES, write)

    def finish(self) -> None:
        """Take away what marks the run as unfinished."""
        with writing(self.output):
            self._remove()

    def _parts(self) -> list[Path]:
        return sorted(
            path for path in self.output.glob(PARTS) if re.fullmatch(r"detections\.part\d+\.jsonl", path.name)
        )

    def _remove(self) -> None:
        # The state last: parts without it are nobody's.
        for path in (*self._parts(), self.output / STATE):
            path.unlink(missing_ok=True)


class PartWriter:
    """Appends lines to a part; each is handed to the system at once, so a killed process loses none."""

    def __init__(self, output: Path, number: int) -> None:
        self.path = output / PART.format(number)
        with writing(self.path):
            self.file = self.path.open("ab", buffering=0)

    def write(self, line: Line) -> None:
        """Append a line, whose first key is the id."""
        left = memoryview(json_text(line).encode() + b"\n")
        with writing(self.path):
            while left:  # where the disk is nearly full, less may be taken
                left = left[self.file.write(left) :]

    def close(self) -> None:
        self.file.close()


def read_detections(output: Path) -> Iterator[Line]:
    """Yield the lines of LINES that have detections, in order."""
    for line in _raw_lines(output / LINES):
        values = json.loads(line)
        if "detections" in values:
            yield values


def summary(lines: Iterable[bytes], least_score: float) -> tuple[int, int, int, int, str]:
    """Return the numbers of images, detections, detections of at least a score, and errors, and the first error."""
    images, detections, sure, errors, first = 0, 0, 0, 0, ""
    for line in map(json.loads, lines):
        if "error" in line:
            errors, first = errors + 1, first or line["error"]
            continue
        scores = [found["score"] or 0 for found in line["detections"]]
        images, detections = images + 1, detections + len(scores)
        sure += sum(score >= least_score for score in scores)
    return images, detections, sure, errors, first


def coco_records(line: Line) -> list[dict[str, Any]]:
    """Return the detections of a line in COCO's results form."""
    return [
        {"image_id": line["id"], **{key: value for key, value in found.items() if key != "class"}}
        for found in line["detections"]
    ]


def write_coco(output: Path, categories: list[dict[str, Any]]) -> None:
    """Write predictions.json, in COCO's results form, and images.json, with the images and categories of its ids."""
    records = (record for line in read_detections(output) for record in coco_records(line))
    write_list(output / "predictions.json", records)
    images = ({key: line[key] for key in line if key != "detections"} for line in read_detections(output))
    write_list(
        output / "images.json", images, before='{"images": [', after=f'], "categories": {json_text(categories)}}}'
    )


def write_list(path: Path, values: Iterator[Any], *, before: str = "[", after: str = "]") -> None:
    """Write a JSON file with a list, a value a line, that is never whole in memory."""

    def write(temporary: Path) -> None:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(before)
            for number, value in enumerate(values):
                file.write(f"{',' if number else ''}\n{json_text(value)}")
            file.write(f"\n{after}\n")

    write_whole(path, write)


def _state_of(output: Path) -> dict[str, Any] | None:
    try:
        state = json.loads((output / STATE).read_bytes())
    except (OSError, ValueError):
        return None
    return state if isinstance(state, dict) else None


def _whole_lines(part: Path) -> Iterator[int]:
    """Yield the id of each line; the part is cut behind the last whole one."""
    end = 0
    with part.open("r+b") as file:
        for line in file:
            if not line.endswith(b"\n") or not BEGINNING.match(line) or not _is_json(line):
                file.truncate(end)
                return
            end += len(line)
            yield _id_of(line)


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return False
    return True


def _raw_lines(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        yield from file


def _id_of(line: bytes) -> int:
    return int(BEGINNING.match(line).group(1))
