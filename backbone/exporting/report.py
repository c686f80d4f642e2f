"""What an export did."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class ExportReport:
    """What `export` wrote.

    Attributes:
        files: {file: bytes}, the one asked for first.
        format: "ONNX", "torch.export", "TorchScript" or "OpenVINO"; of weights alone the layout of their names.
        runtime: what ran the file to compare it, with its version.
        differences: {shape of images: {stage: largest difference over the largest value of the network's stage}}.
        exporter, opset: of files that came through ONNX.
        metadata: as it stands in the file.
        notes: what the user should know, in words.
    """

    files: dict[Path, int]
    format: str
    runtime: str
    differences: dict[str, dict[str, float]]
    metadata: dict[str, Any]
    exporter: str | None = None
    opset: int | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def path(self) -> Path:
        return next(iter(self.files))

    @property
    def largest_difference(self) -> float:
        return max(value for stages in self.differences.values() for value in stages.values())

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {
            "path": str(self.path),
            "files": {str(path): size for path, size in self.files.items()},
            "format": self.format,
            "exporter": self.exporter,
            "opset": self.opset,
            "runtime": self.runtime,
            "differences": self.differences,
            "largest_difference": self.largest_difference,
            "metadata": self.metadata,
            "notes": self.notes,
        }
