"""Benchmark results as sections of a Markdown file, each written anew when it is measured anew."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from backbone.common.environment import provenance
from backbone.common.files import write_text
from backbone.common.text import table

TITLE = "# Results\n\nMeasured by the commands named with them. What was not measured is not here.\n"


@dataclass
class Section:
    """One benchmark's results.

    Attributes:
        name: of the benchmark; marks the section in the file.
        title: its heading.
        method: how it was measured, in a sentence or two.
        header, rows: the table.
        notes: sentences below the table.
        figures: the same for scripts.
    """

    name: str
    title: str
    method: str
    header: Sequence[str]
    rows: list[Sequence[object]]
    notes: list[str] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)

    def text(self, device: str) -> str:
        """Return the section as Markdown, with machine, versions, date and command."""
        made = provenance(device)
        versions = ", ".join(f"{name} {version}" for name, version in made["versions"].items())
        lines = [
            f"## {self.title}",
            f"{self.method}",
            table(self.rows, list(self.header)),
            *self.notes,
            f"{made['device']}; {versions}; {str(made['date'])[:10]}; `{made['command']}`",
        ]
        return "\n\n".join(lines)


def write_section(path: Path, section: Section, device: str) -> None:
    """Put the section into a Markdown file, in place of its former text or at the end."""
    before, after = f"<!-- {section.name} -->", f"<!-- end of {section.name} -->"
    block = f"{before}\n{section.text(device)}\n{after}"
    content = path.read_text(encoding="utf-8") if path.exists() else TITLE
    pattern = re.compile(re.escape(before) + ".*?" + re.escape(after), flags=re.DOTALL)
    if pattern.search(content):
        content = pattern.sub(lambda _: block, content)
    else:
        content = content.rstrip("\n") + "\n\n" + block + "\n"
    write_text(path, content)
