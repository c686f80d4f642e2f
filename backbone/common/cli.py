"""What every command line shares: one clear line and status 2 for a user's mistake, help that shows an example."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import sys
import time
import traceback
import types
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
        sys.exit(_mistake(as_typed(f"{message} (--help shows the usage)"), program=self.prog))


def run(main: Callable[[], int | None]) -> NoReturn:
    """Run a command line's `main` and exit: 0, or with one line for a UserError (its status) or a package that is not
    installed (2).

    A defect keeps its traceback (1).
    """
    signal.signal(signal.SIGINT, _interrupt)
    try:
        with patient_output():
            status = main()
    except UserError as error:
        # What is wrong with the command line is wrong in every process; the first on each machine says it.
        quiet = os.environ.get("LOCAL_RANK", "0") != "0" if error.quiet is None else error.quiet
        status = _mistake(str(error), error.status, quiet=quiet)
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
    except Exception:
        if not _has_peers():
            raise
        traceback.print_exc()
        status = 1
    leave(status)


def leave(status: int | None) -> NoReturn:
    """Exit; of several processes at once, as the interpreter's own end can wait for minutes on one that is gone."""
    if _has_peers():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status or 0)
    sys.exit(status)


def _mistake(message: str, status: int = 2, *, program: str | None = None, quiet: bool = False) -> int:
    line = printable(f"{program or _program()}: error: {' '.join(message.split())}", LONGEST_LINE)
    _tell_torchrun(line)
    if not quiet:
        print(line, file=sys.stderr)
    return status


def _program() -> str:
    return os.path.basename(sys.argv[0])


def _has_peers() -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and torch.distributed.is_available() and torch.distributed.is_initialized()


def _interrupt(_signum: int, frame: types.FrameType | None) -> None:
    """Raise KeyboardInterrupt; inside an import end at once, where an extension would make other errors of it."""
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            os.write(2, f"{_program()}: interrupted\n".encode())
            os._exit(130)
        frame = frame.f_back
    raise KeyboardInterrupt


def _tell_torchrun(line: str) -> None:
    """Leave the line where torchrun's report shows it, in the form of torch.distributed.elastic's ErrorHandler."""
    path = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if path:
        about = {"py_callstack": line, "timestamp": str(int(time.time()))}
        with contextlib.suppress(OSError), open(path, "w", encoding="utf-8") as file:
            json.dump({"message": {"message": line, "extraInfo": about}}, file)
