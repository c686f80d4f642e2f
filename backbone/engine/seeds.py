"""One training with several seeds, one after the other: `--seeds 0 1 2`."""

from __future__ import annotations

import subprocess
import sys
from argparse import Namespace
from pathlib import Path

from ..common.commands import command_line
from ..common.errors import ConfigError, ProcessError
from ..common.files import write_json
from ..common.text import table
from .comparison import FinishedRun, read_run, spread
from .processes import by_torchrun
from .record import CONFIG
from .session import default_output

TABLE = "seeds.json"


def take_seeds(arguments: Namespace) -> list[int]:
    """Return the seeds of the flag; words behind them are put back before the KEY VALUE pairs.

    Raises:
        ConfigError: there is none, one stands twice, or a flag excludes them.
    """
    words = list(arguments.seeds)
    seeds = []
    while words and words[0].isdecimal():
        seeds.append(int(words.pop(0)))
    arguments.overrides = [*words, *arguments.overrides]
    if not seeds or len(set(seeds)) < len(seeds):
        raise ConfigError(f"--seeds needs different whole numbers, such as --seeds 0 1 2, not {arguments.seeds}")
    others = ("--eval-only", arguments.eval_only), ("--plan", arguments.plan), ("--draw", arguments.draw is not None)
    for flag, given in (*others, ("--seed", arguments.seed is not None)):
        if given:
            raise ConfigError(f"--seeds goes without {flag}")
    if by_torchrun():
        raise ConfigError("--seeds starts its runs itself: use --num-gpus or --num-processes in place of torchrun")
    return seeds


def run_seeds(arguments: Namespace, tool: str) -> None:
    """Train with each seed in a process of its own, then print each figure's mean and deviation, and write seeds.json.

    Args:
        tool: the command's file in tools/.

    Raises:
        ConfigError: the seeds cannot be used.
        ProcessError: a training failed, which has said why; with its status.
    """
    seeds = take_seeds(arguments)
    root = Path(arguments.output_dir or default_output(arguments.config, eval_only=False))
    runs: list[FinishedRun] = []
    for seed in seeds:
        folder = root / f"seed{seed}"
        words = without_seeds(sys.argv[1:], begun=(folder / CONFIG).is_file())
        done = subprocess.run([*command_line(tool), *words, "--seed", str(seed), "--output-dir", str(folder)])
        if done.returncode:
            raise _failure(seed, done.returncode)
        runs.append(read_run(folder, folder.name))
    header, rows = spread(runs)
    write_json(root / TABLE, [dict(zip(header, row)) for row in rows])
    sys.stdout.write(f"\n{table(rows, header, digits=4)}\n\nmean and deviation in {root / TABLE}\n")


def _failure(seed: int, status: int) -> ProcessError:
    """Return the error of a training that ended with `status`, the negative number of the signal that killed it."""
    error = ProcessError(f"the training with seed {seed} ended with {status}; --resume goes on")
    error.status = status if status > 0 else 128 - status
    # A killed one has said nothing.
    error.quiet = status > 0
    return error


def without_seeds(words: list[str], *, begun: bool) -> list[str]:
    """Return the command line without --seeds and its numbers, and without --resume where no run has begun."""
    found, skipping = [], False
    for word in words:
        skipping = word == "--seeds" or (skipping and word.isdecimal())
        if not (skipping or word.startswith("--seeds=")) and (begun or word != "--resume"):
            found.append(word)
    return found
