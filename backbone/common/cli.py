"""What every command line shares: one clear line and status 2 for a user's mistake, help that shows an example."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from typing import NoReturn

from .commands import as_typed, how_to_install
from .errors import UserError
from .output import patient_output
from .text import nearest, printable

LONGEST_LINE = 2000  # characters of an error


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose errors are one line, and name the nearest flag."""

    def __init__(self, description: str, example: str) -> None:
        super().__init__(
            description=description,
            epilog=f"example:\n  {example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    def format_help(self) -> str:
        return as_typed(super().format_help())

    def error(self, message: str) -> NoReturn:
        prefix = "unrecognized arguments: "
        if message.startswith(prefix):
            flags = [flag for action in self._actions for flag in action.option_strings]
            first = message[len(prefix) :].split()[0]
            message = f"unknown argument {first!r}" + (nearest(first, flags) if first.startswith("-") else "")
        sys.exit(_mistake(as_typed(f"{message} (--help shows the usage)"), self.prog))


def run(main: Callable[[], int | None]) -> NoReturn:
    """Run a command line's `main` and exit: 0, or 2 with one line for a UserError or a package that is not installed.

    A defect keeps its traceback (1).
    """
    try:
        with patient_output():
            status = main()
    except UserError as error:
        status = _mistake(str(error))
    except ModuleNotFoundError as error:
        mend = how_to_install(error.name)
        if mend is None:
            raise
        status = _mistake(mend)
    except OSError as error:
        # Of a file that only this user's disk knows: a name too long, no permission, a disk that went away.
        if error.filename is None or not error.strerror:
            raise
        status = _mistake(f"{os.fsdecode(error.filename)}: {error.strerror}")
    except KeyboardInterrupt:
        print(f"{_program()}: interrupted", file=sys.stderr)
        status = 130
    sys.exit(status)


def _mistake(message: str, program: str | None = None) -> int:
    line = f"{program or _program()}: error: {' '.join(message.split())}"
    print(printable(line, LONGEST_LINE), file=sys.stderr)
    return 2


def _program() -> str:
    return os.path.basename(sys.argv[0])
