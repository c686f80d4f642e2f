"""All that a person with a GPU runs to know everything, in less than nine minutes: `make gpu`.

Tests that other machines skip, then the benchmarks against the peers. Each part is a process of its own with a limit:
one that fails costs the others nothing. What it measured goes into docs/results.md, and a summary says what falls short
of the goals. `--rehearse` runs every line on a CPU at a small size.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backbone.common.cli import Parser, run
from backbone.common.waiting import duration

ROOT = Path(__file__).resolve().parents[1]
BUDGET = 520.0  # seconds, for a limit of nine minutes with the start of Python in it
TRAINING, MEMORY, INFERENCE = 1.3, 0.85, 1.5  # against detectron2
PEER = 1.0  # against the best peer


@dataclass(frozen=True)
class Part:
    """One part of the run.

    Attributes:
        command: after the interpreter; benchmarks write `{json}`.
        limit: seconds.
    """

    name: str
    command: tuple[str, ...]
    limit: float


@dataclass(frozen=True)
class Finding:
    """A figure beside its goal."""

    what: str
    value: float
    goal: float
    at_most: bool = False

    @property
    def met(self) -> bool:
        return self.value <= self.goal if self.at_most else self.value >= self.goal

    def __str__(self) -> str:
        sign = "at most" if self.at_most else "at least"
        return f"{'met  ' if self.met else 'SHORT'}  {self.what}: {self.value:.2f} ({sign} {self.goal:g})"


def parts(device: str, *, rehearse: bool, data_root: str | None) -> list[Part]:
    """Return the parts, the most telling first."""
    tiny = ("--size", "64", "96", "--rounds", "1", "--batch", "1", "--regions", "16")
    small = tiny if rehearse else ("--rounds", "5")
    drawn = () if data_root is None else ("--data-root", data_root)
    common = ("tools/benchmark.py", "--device", device, "--json", "{json}", "--write", "{results}", *small)
    found = []
    for name, limit in (("r50_fpn", 130), ("r101_c4", 60), ("r101_fpn", 60), ("r50_c4", 60)):
        # Compiling takes a minute: once is enough.
        form = "--compile" if name == "r50_fpn" and not rehearse else "--no-compile"
        found.append(Part(f"detectors {name}", (*common, "detectors", "--detectors", name, form, *drawn), limit))
    form = "--no-compile" if rehearse else "--compile"
    found.append(Part("pretraining", (*common, form, "pretraining"), 130))
    backbones = ("--no-exports", "--backbone", "resnet50", "--no-compile", "inference")
    found.append(Part("backbones", (*common, *backbones), 60))
    tests = ("-m", "pytest", "-q", "--no-header", "-p", "no:cacheprovider", "tests/gpu")
    others = ("tests/backbone/classification/test_training_step.py", "tests/backbone/classification/test_augment.py")
    found.insert(1, Part("tests", (*tests, *others, "-m", "not slow"), 150))
    return found


def detectors(figures: dict[str, Any]) -> Iterator[Finding]:
    """Yield the best of our forms of each precision, against detectron2 in the same one."""
    for section, found in figures.items():
        name = section.removeprefix("detectors-").rpartition("-")[0]
        for phase, goal in (("training", TRAINING), ("inference", INFERENCE)):
            for precision in ("float32", "bfloat16"):
                ours = {k: v for k, v in found[phase].items() if k.startswith("ours") and k.endswith(precision)}
                if not ours:
                    continue
                label = max(ours, key=lambda key: ours[key]["times_detectron2"])
                best = ours[label]
                yield Finding(f"{name} {phase}, {label}, times detectron2", best["times_detectron2"], goal)
                if phase == "training" and best["bytes_of_detectron2"]:
                    yield Finding(f"{name} memory, {label}", best["bytes_of_detectron2"], MEMORY, at_most=True)


def pretraining(figures: dict[str, Any]) -> Iterator[Finding]:
    """Yield our images a second over those of the best peer, by precision and form."""
    for section, found in figures.items():
        if "cifar" in section:
            for form, one in found.items():
                if form != "plain":
                    yield Finding(f"CIFAR ResNet-20, {form}, times plain", one["times_plain"], 1.0)
            continue
        for setting, loops in found.items():
            peers = [one["images_per_second"] for name, one in loops.items() if name != "ours"]
            if "ours" in loops and peers:
                ratio = loops["ours"]["images_per_second"] / max(peers)
                yield Finding(f"ResNet-50 training, {setting}, times the best peer", ratio, PEER)


READERS: dict[str, Callable[[dict[str, Any]], Iterator[Finding]]] = {"detectors": detectors, "pretraining": pretraining}


def run_part(part: Part, results: Path, folder: Path, limit: float, device: str) -> tuple[str, list[Finding]]:
    """Run a part; return how it ended, in words, and its findings."""
    file = folder / "figures.json"
    file.unlink(missing_ok=True)
    words = [word.format(json=file, results=results) for word in part.command]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    if device == "cpu":
        environment["GPU_REHEARSAL"] = "1"
    began = time.monotonic()
    try:
        done = subprocess.run([sys.executable, *words], cwd=ROOT, env=environment, timeout=limit, check=False)
        state = "done" if done.returncode == 0 else f"FAILED with status {done.returncode}"
    except subprocess.TimeoutExpired:
        state = f"STOPPED after its {limit:.0f} seconds"
    read = READERS.get(part.name.split()[0])
    findings = list(read(json.loads(file.read_text()))) if read and file.is_file() else []
    return f"{state}, {duration(time.monotonic() - began)}", findings


def main() -> None:
    parser = Parser(__doc__.splitlines()[0], "python -m benchmarks.gpu")
    parser.add_argument("--rehearse", action="store_true", help="on the CPU at a small size")
    parser.add_argument("--results", type=Path, default=ROOT / "docs" / "results.md", metavar="FILE")
    parser.add_argument("--data-root", metavar="DIR", help="that holds coco (else drawn images)")
    parser.add_argument("--only", nargs="+", metavar="PART", help="parts whose names begin so")
    parser.add_argument("--budget", type=float, default=BUDGET, metavar="S", help="seconds in all (default: 520)")
    arguments = parser.parse_args()
    import torch

    if not (arguments.rehearse or torch.cuda.is_available()):
        parser.error("torch sees no GPU; --rehearse runs every line on the CPU")
    device = "cpu" if arguments.rehearse else "cuda"
    sys.exit(report(arguments, device))


def report(arguments: argparse.Namespace, device: str) -> int:
    """Run the parts while the budget lasts and print the summary; return 1 where a part failed."""
    began, lines, findings, failed = time.monotonic(), [], [], False
    with tempfile.TemporaryDirectory() as folder:
        results = Path(folder) / "results.md" if arguments.rehearse else arguments.results
        for part in parts(device, rehearse=arguments.rehearse, data_root=arguments.data_root):
            if arguments.only and not part.name.startswith(tuple(arguments.only)):
                continue
            left = arguments.budget - (time.monotonic() - began)
            if left < 15:
                lines.append(f"{part.name}: not run, the time was over")
                continue
            limit = arguments.budget if arguments.rehearse else min(part.limit, left)
            print(f"== {part.name} (at most {limit:.0f} s)", flush=True)
            state, found = run_part(part, results, Path(folder), limit, device)
            failed |= not state.startswith("done")
            lines.append(f"{part.name}: {state}")
            findings += found
    print("\n== summary", *lines, *findings, sep="\n")
    short = sum(not finding.met for finding in findings)
    print(f"{len(findings)} figures, {short} short of their goal; {duration(time.monotonic() - began)} in all")
    return int(failed)


if __name__ == "__main__":
    run(main)
