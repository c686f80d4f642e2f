"""Other libraries while a file is written: installed or not, and silent."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import re
import warnings
from collections.abc import Iterable, Iterator

from ..common.commands import pip_line
from ..common.errors import ExportError


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep warnings and log lines of libraries from the terminal; what matters comes back as an exception or a note."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def is_installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def require(packages: Iterable[str], what: str) -> None:
    """Raise ExportError, with the line that installs them, unless all `packages` are there."""
    missing = [name for name in packages if not is_installed(name)]
    if missing:
        names = " ".join(missing)
        raise ExportError(f"{what} needs {names}: pip install {names}, or {pip_line('export')}")


def first_line(error: BaseException) -> str:
    """Return the first line of an exception's text that says something, with the exception's kind."""
    lines = _lines(error)
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def last_line(error: BaseException) -> str:
    """Return the last line of an exception's text: runtimes tell the cause after the way to it."""
    return (_lines(error) or [type(error).__name__])[-1]


def _lines(error: BaseException) -> list[str]:
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(error))  # colours
    return [line.strip()[:200].rstrip(".") for line in text.splitlines() if line.strip()]
