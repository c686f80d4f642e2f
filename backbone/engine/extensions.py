"""Code of the user's own: modules of `--import`, and config keys that they add."""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from collections.abc import Callable, Iterable
from typing import Any

from ..common.errors import ConfigError

# What a module defines to add config keys: a function that takes the unfrozen config of the defaults.
EXTEND = "extend_config"
_extensions: dict[str, Callable[[Any], object]] = {}


def import_modules(names: Iterable[str]) -> None:
    """Import modules by name, from the working directory or among the installed packages.

    A module registers what it brings while it is imported: backbones and heads in detectron2's registries, data sets in
    its DatasetCatalog, hooks, transforms, loggers. A function `extend_config(config)` in it adds config keys.

    Raises:
        ConfigError: there is no such module, or it cannot be imported.
    """
    # Behind everything else: a file here must not stand in for an installed package.
    if (here := os.getcwd()) not in sys.path:
        sys.path.append(here)
    for name in names:
        if name.endswith(".py") or "/" in name:
            raise ConfigError(f"--import {name}: write a module, as in `import`: {_as_module(name)}")
        try:
            module = importlib.import_module(name)
        except (Exception, SystemExit) as error:
            raise ConfigError(f"--import {name}: {_what_failed(error, name)}") from None
        if callable(extend := getattr(module, EXTEND, None)):
            extend_config(extend)


def _as_module(path: str) -> str:
    return path.removesuffix(".py").strip("./").replace("/", ".")


def _what_failed(error: BaseException, name: str) -> str:
    if isinstance(error, ModuleNotFoundError) and error.name and f"{name}.".startswith(f"{error.name}."):
        return f"no such module in {os.getcwd()} or among the installed packages"
    # The innermost line of the user's own; a SyntaxError has it in itself.
    if isinstance(error, SyntaxError):
        return f"{error.filename}, line {error.lineno}: {error.msg}"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "importlib" not in frame.filename]
    own = [frame for frame in frames if frame.filename != __file__]
    where = f"{own[-1].filename}, line {own[-1].lineno}: " if own else ""
    return f"{where}{type(error).__name__}: {error}"


def extend_config(extend: Callable[[Any], object]) -> None:
    """Let `extend(config)` add keys to the default config of every task, from now on in this process."""
    _extensions[f"{extend.__module__}.{extend.__qualname__}"] = extend


def add_keys(config: Any) -> Any:
    """Add the keys of all extensions to an unfrozen config of defaults; return it.

    Raises:
        ConfigError: an extension fails.
    """
    for name, extend in _extensions.items():
        try:
            extend(config)
        except Exception as error:
            raise ConfigError(f"{name}: {type(error).__name__}: {error}") from None
    return config
