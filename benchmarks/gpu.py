"""All that a person with a GPU runs to know everything, in less than nine minutes: `make gpu`.

Tests that other machines skip, then the benchmarks against the peers. Each part is a process of its own with a limit:
one that fails costs the others nothing, and one that is stopped keeps the tables that it had finished. What is measured
goes into docs/results.md at once, and a summary says what falls short of the goals. `--rehearse` runs every line on a
CPU at a small size, the compiler switched off.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
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
LEAST = 15.0  # seconds that are of use to a part
ENDING = 10.0  # seconds that a part has to end when it is stopped: pytest names what has failed
TRAINING, MEMORY, INFERENCE = 1.3, 0.85, 1.5  # against detectron2
PEER = 1.0  # against the best peer
COMPILED = ("--detectors", "r50_fpn")  # each takes a minute to compile


@dataclass(frozen=True)
class Part:
    """One part of the run.

    Attributes:
        command: after the interpreter; for `{json}` and `{results}` the files stand that it writes.
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
    """Return the parts, the tests first and then the most telling."""
    tiny = ("--size", "64", "96", "--rounds", "1", "--batch", "1", "--regions", "16")
    drawn = () if data_root is None else ("--data-root", data_root)
    files = ("--json", "{json}", "--write", "{results}")
    common = ("tools/benchmark.py", "--device", device, *files, *(tiny if rehearse else ("--rounds", "5")))
    plain, compiled = ("--no-compile", *drawn, "detectors", "--detectors"), ("--compile", *drawn, "detectors")
    # Many CPUs take a minute for a step in bfloat16: once is enough there.
    both, mixed = ((), "bfloat16") if not rehearse else (("--precision", "float32"), "float32")
    tests = ("-m", "pytest", "-q", "--no-header", "-rfE", "-p", "no:cacheprovider", "tests/gpu")
    # Of the other files, what a machine without a GPU skips.
    folder = "tests/backbone/classification"
    others = (
        f"{folder}/test_training_step.py::test_no_step_waits_for_the_gpu",
        f"{folder}/test_augment.py::test_the_same_on_a_gpu",
    )
    backbones = ("--no-exports", "--backbone", "resnet50", "--no-compile", "inference")
    return [
        Part("tests", (*tests, *others), 150),
        Part("detectors r50_fpn", (*common, "--seconds", "12", *plain, "r50_fpn"), 80),
        Part("pretraining", (*common, "--seconds", "6", "--no-compile", "pretraining"), 80),
        Part("detectors others", (*common, "--seconds", "8", *both, *plain, "r101_c4", "r101_fpn", "r50_c4"), 160),
        Part("pretraining compiled", (*common, "--seconds", "6", "--compile", "pretraining"), 130),
        Part("detectors compiled", (*common, "--seconds", "8", "--precision", mixed, *compiled, *COMPILED), 80),
        Part("backbones", (*common, "--seconds", "8", *backbones), 40),
    ]


def detectors(figures: dict[str, Any]) -> Iterator[Finding]:
    """Yield the best of our forms of each precision, against detectron2 in the same one."""
    for section, found in figures.items():
        _, name, _device, *form = section.split("-")
        name = " ".join([name, *form])
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


def start(part: Part, results: Path, figures: Path, device: str, **streams: Any) -> subprocess.Popen:
    """Start the process of a part."""
    words = [{"{json}": str(figures), "{results}": str(results)}.get(word, word) for word in part.command]
    paths = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    rehearsal = {"GPU_REHEARSAL": "1", "TORCH_COMPILE_DISABLE": "1"} if device == "cpu" else {}
    environment = {**os.environ, "PYTHONPATH": paths, **rehearsal}
    return subprocess.Popen([sys.executable, *words], cwd=ROOT, env=environment, **streams)


def run_part(part: Part, results: Path, folder: Path, limit: float, device: str) -> tuple[str, list[Finding]]:
    """Run a part; return how it ended, in words, and the findings among what it has written."""
    file = folder / "figures.json"
    file.unlink(missing_ok=True)
    began = time.monotonic()
    process = start(part, results, file, device)
    try:
        status = process.wait(limit)
        state = "done" if status == 0 else f"FAILED with status {status}"
    except subprocess.TimeoutExpired:
        state = f"STOPPED after its {limit:.0f} seconds"
    finally:
        end(process)
    read = READERS.get(part.name.split()[0])
    findings = list(read(json.loads(file.read_text()))) if read and file.is_file() else []
    return f"{state}, {duration(time.monotonic() - began)}", findings


def end(process: subprocess.Popen, grace: float = ENDING) -> None:
    """End a process that still runs, and all that it has started, which would use the GPU under the next part."""
    if process.poll() is not None:
        return
    started = _descendants(process.pid)
    process.send_signal(signal.SIGINT)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(grace)
    process.kill()
    for one in started:
        with contextlib.suppress(ProcessLookupError):
            os.kill(one, signal.SIGKILL)
    process.wait()


def _descendants(process: int) -> list[int]:
    """Return the processes that one has started, and theirs."""
    parents = {}
    for file in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has ended
            parents[int(file.parent.name)] = int(file.read_text().rpartition(")")[2].split()[1])
    found = [process]
    for one in found:
        found += [child for child, parent in parents.items() if parent == one]
    return found[1:]


@contextlib.contextmanager
def compilers(chosen: list[Part], folder: Path, limit: float, device: str) -> Iterator[None]:
    """Fill the compiler's cache, beside a part that is not timed, with what later parts compile."""
    until = time.monotonic() + limit
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    own = [part for part in chosen if "--compile" in part.command]
    running = [start(part, folder / f"{part.name}.md", folder / f"{part.name}.json", device, **quiet) for part in own]
    try:
        yield
        for process in running:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, until - time.monotonic()))
    finally:
        for process in running:
            end(process, grace=0.0)


def main() -> None:
    parser = Parser(__doc__.splitlines()[0], "python -m benchmarks.gpu")
    parser.add_argument("--rehearse", action="store_true", help="on the CPU at a small size")
    parser.add_argument(
        "--results",
        type=Path,
        default=ROOT / "docs" / "results.md",
        metavar="FILE",
        help="whose sections are written anew (default: docs/results.md); a rehearsal writes into a copy",
    )
    parser.add_argument("--data-root", metavar="DIR", help="that holds coco (else drawn images)")
    parser.add_argument("--only", nargs="+", metavar="PART", help="parts whose names begin so")
    parser.add_argument(
        "--budget", type=float, default=BUDGET, metavar="S", help=f"seconds in all (default: {BUDGET:g})"
    )
    arguments = parser.parse_args()
    import torch

    if not (arguments.rehearse or torch.cuda.is_available()):
        parser.error("torch sees no GPU; --rehearse runs every line on the CPU")
    device = "cpu" if arguments.rehearse else "cuda"
    sys.exit(report(arguments, device))


def report(arguments: argparse.Namespace, device: str) -> int:
    """Run the parts while the budget lasts and print the summary; return 1 where a part failed."""
    began, lines, findings, failed = time.monotonic(), [], [], False
    chosen = parts(device, rehearse=arguments.rehearse, data_root=arguments.data_root)
    if arguments.only:
        chosen = [part for part in chosen if part.name.startswith(tuple(arguments.only))]
    with tempfile.TemporaryDirectory() as name:
        folder, results = Path(name), arguments.results
        if arguments.rehearse:
            results = folder / "results.md"
            shutil.copy(arguments.results, results)
        for part in chosen:
            left = arguments.budget - ENDING - (time.monotonic() - began)
            if left < LEAST:
                lines.append(f"{part.name}: not run, the time was over")
                continue
            limit = left if arguments.rehearse else min(part.limit, left)
            print(f"== {part.name} (at most {limit:.0f} s)", flush=True)
            timed = part.name != "tests"
            with contextlib.nullcontext() if timed else compilers(chosen, folder, limit, device):
                state, found = run_part(part, results, folder, limit, device)
            failed |= not state.startswith("done")
            lines.append(f"{part.name}: {state}")
            findings += found
    print("\n== summary", *lines, *findings, sep="\n")
    short = sum(not finding.met for finding in findings)
    print(f"{len(findings)} figures, {short} short of their goal; {duration(time.monotonic() - began)} in all")
    return int(failed)


if __name__ == "__main__":
    run(main)
