#!/usr/bin/env python3
"""Find a learning rate for a training, of any task: the loss is watched while the rate grows from step to step.

Takes the flags of the command that trains with the config. Nothing of the training is kept.
"""

from __future__ import annotations

import importlib
import math
import sys
from argparse import ArgumentParser
from pathlib import Path

from backbone.common.cli import Parser, run
from backbone.common.errors import ConfigError
from backbone.engine.arguments import start
from backbone.engine.config import TOOLS, tool_of

EXAMPLE = "tools/find_lr.py --config finetune_faster_rcnn_r50_fpn.yaml --train street/train --val street/val"
ZOO = "detectron2:"


def make_parser(tool: str) -> Parser:
    """Return the parser of the tool that trains, with the flags of the sweep."""
    package = f"{__package__}." if __package__ else ""
    parser = importlib.import_module(package + Path(tool).stem).make_parser()
    parser.description, parser.epilog = __doc__, f"example:\n  {EXAMPLE}"
    sweep = parser.add_argument_group("the sweep")
    sweep.add_argument("--from", dest="low", type=float, default=1e-6, metavar="RATE", help="lowest rate (1e-6)")
    sweep.add_argument("--to", dest="high", type=float, default=1.0, metavar="RATE", help="highest rate (1)")
    sweep.add_argument("--steps", type=int, default=100, metavar="N", help="training steps (100)")
    return parser


def tool_of_command_line() -> str:
    """Return the tool whose config --config names."""
    peek = ArgumentParser(add_help=False, allow_abbrev=False)
    peek.add_argument("--config", default="")
    config = peek.parse_known_args()[0].config
    return tool_of(config) if config and not config.startswith(ZOO) and "--help" not in sys.argv else TOOLS[0]


def main() -> None:
    tool = tool_of_command_line()
    arguments = make_parser(tool).parse_intermixed_args()
    given = [flag for flag in ("resume", "overwrite", "eval_only", "plan", "draw", "seeds") if getattr(arguments, flag)]
    if given:
        raise ConfigError(f"--{given[0].replace('_', '-')} is of a training; a search for its rate goes without")
    if not (0 < arguments.low < arguments.high < math.inf and arguments.steps >= 10):
        raise ConfigError("--from and --to are two rates above 0 in order, and --steps is 10 or more")
    from backbone.engine.rate_sweep import Sweep

    arguments.sweep = Sweep(arguments.low, arguments.high, arguments.steps)
    start(arguments, Path(tool).name)


if __name__ == "__main__":
    run(main)
