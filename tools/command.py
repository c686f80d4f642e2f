#!/usr/bin/env python3
"""One command for all tools: `resnet-detection train ...` is tools/train_net.py."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import NoReturn

from backbone.common.cli import run
from backbone.common.commands import COMMANDS, PROGRAM, as_typed
from backbone.common.errors import UserError
from backbone.common.text import nearest


def usage() -> str:
    """Return the list of the subcommands."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {command.summary}" for name, command in COMMANDS.items()]
    return "\n".join(
        (
            f"usage: {PROGRAM} COMMAND ... | --help | --version",
            "\nResNet backbones for detection and segmentation.\n\ncommands:",
            *lines,
            f"\n{PROGRAM} COMMAND --help shows the flags of one command.",
        )
    )


def start() -> int | None:
    """Run the subcommand that the first argument names.

    Raises:
        UserError: there is none of that name.
    """
    sys.argv[0] = PROGRAM
    if len(sys.argv) < 2:
        raise UserError("give a command (--help lists them)")
    name = sys.argv[1]
    if name in ("-h", "--help"):
        print(usage())
        return 0
    if name == "--version":
        from backbone import __version__

        print(f"{PROGRAM} {__version__}")
        return 0
    if name not in COMMANDS:
        raise UserError(f"unknown command {name!r}{nearest(name, COMMANDS)} (--help lists them)")
    # The subcommand sees the command line that tools/NAME.py sees, under the name that was typed.
    sys.argv = [f"{PROGRAM} {name}", *sys.argv[2:]]
    if not __package__:
        # Started as a file: the tools stand beside it.
        sys.path.insert(0, str(Path(__file__).parent))
    package = f"{__package__}." if __package__ else ""
    module = importlib.import_module(package + COMMANDS[name].module)
    module.__doc__ = as_typed(module.__doc__)
    return module.main()


def main() -> NoReturn:
    """Run the command line."""
    run(start)


if __name__ == "__main__":
    main()
