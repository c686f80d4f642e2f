"""YAML configs: safe, with bases, and with every unknown key or wrong type named.

Works on any yacs CfgNode, so detectors (detectron2's) and pretraining share it.
"""

from __future__ import annotations

import ast
import copy
import os
import reprlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from ..common.commands import CONFIGS
from ..common.errors import ConfigError
from ..common.nesting import check_nesting
from ..common.text import nearest

BASE_KEY = "_BASE_"
MISFIT: Any = object()
# In one file, and files that stand on one another; far above what a config needs.
MOST_VALUES, MOST_BASES = 100_000, 50
# Keys that the configs of one tool alone have.
KEYS_OF_TOOLS = {
    "tools/train_net.py": (
        "DATASETS",
        *(f"MODEL.{name}" for name in ("META_ARCHITECTURE", "BACKBONE", "RESNETS", "RPN")),
    ),
    "tools/train_segmentation.py": ("MODEL.OUTPUT_STRIDE", "MODEL.HEAD", "DATA.LABEL_FOLDER", "SOLVER.HEAD_LR_FACTOR"),
    "tools/train_localization.py": ("MODEL.KIND", "MODEL.ANCHOR_SIZES", "TEST.VIEWS", "TEST.CLASSES", "TEST.PROPOSERS"),
    "tools/pretrain.py": ("INPUT.CROP", "MODEL.SHORTCUT", "TEST.PROTOCOL", "DATA.VAL_SYNSETS"),
}
TOOLS = tuple(KEYS_OF_TOOLS)
CONFIG_FOLDER = CONFIGS


class _StrictLoader(yaml.SafeLoader):
    """SafeLoader that refuses a key given twice in one mapping."""

    def construct_mapping(self, node, deep=False):
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=deep)
            if isinstance(key, str) and key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key {key} is given twice", key_node.start_mark)
            if isinstance(key, str):
                seen.add(key)
        return super().construct_mapping(node, deep=deep)


def find_config(path_or_name: str | Path) -> Path:
    """Return the config file: the path itself, or the bare name in configs/.

    Raises:
        ConfigError: there is none; the message names the nearest.
    """
    path = Path(path_or_name)
    # os.path's test is false, where Path's may raise, for a name that is too long.
    if os.path.isfile(path):
        return path
    if path.parent == Path() and os.path.isfile(CONFIG_FOLDER / path):
        return CONFIG_FOLDER / path
    if path.parent == Path() and not path.suffix and os.path.isfile(CONFIG_FOLDER / f"{path}.yaml"):
        return CONFIG_FOLDER / f"{path}.yaml"
    known = [file.name for file in sorted(CONFIG_FOLDER.glob("*.yaml"))]
    raise ConfigError(f"no config file {str(path)!r} here or in configs/{nearest(path.name, known)}")


def read_yaml(path: Path) -> dict[str, Any]:
    """Read one YAML mapping, its bases merged in below it.

    Raises:
        ConfigError: unreadable, not YAML, not a mapping, a tag that would run code, or bases in a circle.
    """
    return _read_with_bases(path.resolve(), (), {})


def parse_yaml(text: str, source: str) -> dict[str, Any]:
    """Return the mapping that a YAML text holds.

    Raises:
        ConfigError: not YAML, not a mapping, a key given twice, or a tag that would run code.
    """
    try:
        # _StrictLoader is a SafeLoader: it builds plain values only.
        content = yaml.load(text, Loader=_StrictLoader)  # noqa: S506
        # Aliases make ten lines into more values than any machine holds, or a list that holds itself.
        check_nesting(content, most=MOST_VALUES)
    except yaml.constructor.ConstructorError as error:
        where = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        reason = error.problem or "unsafe YAML"
        if "could not determine a constructor" in reason:
            reason = f"refused, a tag that is not plain data ({reason.split('tag')[-1].strip()})"
        raise ConfigError(f"{source}{where}: {reason}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        # ValueError: a value that looks like a date or a number and is none, such as 2024-02-30.
        reason = " ".join(str(error).split())
        if "integer string conversion" in reason:
            reason = "a number of thousands of digits"
        raise ConfigError(f"{source}: not valid YAML: {reason}") from None
    if content is None:
        content = {}
    if not isinstance(content, dict):
        raise ConfigError(f"{source}: a config is a mapping of keys, this is a {type(content).__name__}")
    return content


def _read_with_bases(path: Path, above: tuple[Path, ...], done: dict[Path, dict[str, Any]]) -> dict[str, Any]:
    """Return a file's values over those of its bases; `done` holds files that were read on the way, each once."""
    if path in done:
        return copy.deepcopy(done[path])
    if path in above:
        raise ConfigError(f"{path}: {BASE_KEY} leads back to itself")
    if len(above) > MOST_BASES:
        raise ConfigError(f"{path}: more than {MOST_BASES} configs stand on one another by {BASE_KEY}")
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from None
    content = parse_yaml(text, str(path))
    bases = content.pop(BASE_KEY, [])
    bases = [bases] if isinstance(bases, str) else bases
    if not isinstance(bases, list) or not all(isinstance(base, str) for base in bases):
        raise ConfigError(f"{path}: {BASE_KEY} is {brief(bases)}, expected a file name or a list of them")
    merged: dict[str, Any] = {}
    for base in bases:
        # Beside the file, else among the shipped configs: a config of one's own stands on theirs wherever it lies.
        places = [folder / base for folder in (path.parent, CONFIG_FOLDER)]
        base_path = next((place for place in places if os.path.isfile(place)), None)
        if base_path is None:
            known = [file.name for folder in (path.parent, CONFIG_FOLDER) for file in folder.glob("*.yaml")]
            raise ConfigError(f"{path}: {BASE_KEY} {base!r} does not exist{nearest(Path(base).name, known)}")
        _merge_plain(merged, _read_with_bases(base_path.resolve(), (*above, path), done))
    _merge_plain(merged, content)
    done[path] = merged
    return copy.deepcopy(merged)


def _merge_plain(below: dict[str, Any], above: dict[str, Any]) -> None:
    for key, value in above.items():
        if isinstance(value, dict) and isinstance(below.get(key), dict):
            _merge_plain(below[key], value)
        else:
            below[key] = value


def merge(config: Any, values: dict[str, Any], source: str, _prefix: str = "") -> None:
    """Merge nested `values` into a CfgNode in place.

    Raises:
        ConfigError: an unknown key, a section where a value belongs or the other way round, or a wrong type.
    """
    for key, value in values.items():
        name = f"{_prefix}{key}"
        if key not in config:
            raise ConfigError(f"{source}: unknown key {name}{nearest(name, _all_keys(config, _prefix))}")
        if isinstance(config[key], dict):
            if not isinstance(value, dict):
                raise ConfigError(f"{source}: {name} is a section of keys, not a value; got {brief(value)}")
            merge(config[key], value, source, f"{name}.")
        else:
            config[key] = fit(value, config[key], name, source)


def check_tool(values: dict[str, Any], source: str, tool: str) -> None:
    """Raise ConfigError where the `values` of a file are a config of another tool than `tool`."""
    for other, keys in KEYS_OF_TOOLS.items():
        mark = next((key for key in keys if other != tool and _has(values, key)), None)
        if mark is not None:
            raise ConfigError(f"{source}: a config of {other} (it has {mark}), not of {tool}")


def tool_of(path_or_name: str | Path) -> str:
    """Return the tool of KEYS_OF_TOOLS whose config a file is; of one without their keys, that of detectors.

    Raises:
        ConfigError: no such file, or it cannot be read.
    """
    values = read_yaml(find_config(path_or_name))
    return next((tool for tool, keys in KEYS_OF_TOOLS.items() if any(_has(values, key) for key in keys)), TOOLS[0])


def _has(values: Any, key: str) -> bool:
    for part in key.split("."):
        if not isinstance(values, dict) or part not in values:
            return False
        values = values[part]
    return True


def load(
    path_or_name: str | Path,
    overrides: Sequence[object],
    *,
    defaults: Any,
    check: Callable[[Any, str], None],
    tool: str,
) -> Any:
    """Return the frozen config of a YAML file (a path, or a name in configs/) with KEY, VALUE, ... on top.

    Args:
        defaults: a CfgNode with every key; it becomes the config.
        check: raises ConfigError for values that cannot be; called with the config and the file's name.
        tool: the one of KEYS_OF_TOOLS that the config is for.

    Raises:
        ConfigError: no such file, another tool's config, an unknown key (the nearest is named), or a wrong type or
            value.
    """
    path = find_config(path_or_name)
    values = read_yaml(path)
    check_tool(values, str(path), tool)
    merge(defaults, values, str(path))
    merge_overrides(defaults, overrides)
    check(defaults, str(path))
    defaults.freeze()
    return defaults


def check_pairs(overrides: Sequence[object], source: str = "command line") -> None:
    """Raise ConfigError if the last key has no value."""
    if len(overrides) % 2:
        raise ConfigError(f"{source}: overrides come as KEY VALUE pairs, {overrides[-1]!r} has no value")


def merge_overrides(config: Any, overrides: Sequence[object], source: str = "command line") -> list[str]:
    """Merge KEY, VALUE, KEY, VALUE, ... and return the keys.

    Raises:
        ConfigError: a value is missing, or as in `merge`.
    """
    check_pairs(overrides, source)
    keys = []
    for key, value in zip(overrides[::2], overrides[1::2]):
        if not isinstance(key, str) or key.startswith("-"):
            raise ConfigError(f"{source}: {key!r} is not a config key")
        nested: Any = value
        for part in reversed(key.split(".")):
            nested = {part: nested}
        if key.split(".")[0] not in config:
            raise ConfigError(f"{source}: unknown key {key}{nearest(key, _all_keys(config))}")
        merge(config, nested, source)
        keys.append(key)
    return keys


def _all_keys(config: Any, prefix: str = "") -> list[str]:
    keys = []
    for key, value in config.items():
        keys.append(f"{prefix}{key}")
        if isinstance(value, dict):
            keys.extend(_all_keys(value, f"{prefix}{key}."))
    return keys


def fit(value: Any, default: Any, name: str, source: str) -> Any:
    """Return `value` in the type of the default. Text is read as a Python literal where it is one, as in yacs.

    Raises:
        ConfigError: it has another type, or (in a list) entries of another kind than the default's.
    """
    if isinstance(value, str) and not isinstance(default, str):
        value = _read_literal(value)
    # A list where none belongs is refused below, however much it holds.
    for leaf in leaves(value) if isinstance(default, (list, tuple)) or not isinstance(value, (list, tuple)) else ():
        if isinstance(leaf, int) and abs(leaf) >= 2**63:
            # Not shown: Python writes no number of thousands of digits.
            raise ConfigError(f"{source}: {name} is a number of more than 64 bits")
        if isinstance(leaf, str) and "\0" in leaf:
            raise ConfigError(f"{source}: {name} is {brief(value)}, which has a NUL character in it")
    fitted = value if default is None else _convert(value, default)
    if fitted is MISFIT:
        expected = {bool: "True or False", int: "a whole number", float: "a number", str: "text"}
        wanted = expected.get(type(default), f"a {type(default).__name__} such as {default!r}")
        raise ConfigError(f"{source}: {name} is {brief(value)}, expected {wanted}")
    return fitted


def _read_literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return {"true": True, "false": False, "null": None, "none": None}.get(text.lower(), text)


def _convert(value: Any, default: Any) -> Any:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if isinstance(default, (list, tuple)):
        return _convert_sequence(value, default)
    if type(value) is type(default):
        return value
    if isinstance(default, float) and number:
        return float(value)
    if isinstance(default, str) and (number or value is None):
        return "" if value is None else str(value)
    return MISFIT


def _convert_sequence(value: Any, default: list | tuple) -> Any:
    kinds = {_kind(leaf) for leaf in leaves(default)}
    if isinstance(default, tuple) and not isinstance(value, (list, tuple)):
        # A single value stands for the tuple that holds it, and an empty text for the empty one.
        if value is None or isinstance(value, (dict, bool)) or (isinstance(value, str) and not kinds <= {"text"}):
            return MISFIT
        value = () if value == "" else (value,)
    if not isinstance(value, (list, tuple)):
        return MISFIT
    if len(kinds) == 1 and not {_kind(leaf) for leaf in leaves(value)} <= kinds:
        return MISFIT
    return type(default)(value)


def leaves(value: Any) -> list[Any]:
    """Return what lists and tuples inside one another hold; of anything else, itself."""
    return [leaf for item in value for leaf in leaves(item)] if isinstance(value, (list, tuple)) else [value]


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "bool"
    return "number" if isinstance(value, (int, float)) else "text" if isinstance(value, str) else type(value).__name__


_repr = reprlib.Repr()
_repr.maxstring = _repr.maxother = 80
_repr.maxlevel = 3


def brief(value: Any) -> str:
    """Return a value for a message: short, however much an alias in the YAML makes of it."""
    try:
        return _repr.repr(value)
    except ValueError:
        return "a number of thousands of digits"


def flat(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield dotted keys and values, those of sections."""
    for key, value in config.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def get(config: Any, key: str) -> Any:
    """Return the value at a dotted key."""
    for part in key.split("."):
        config = config[part]
    return config


def put(config: Any, key: str, value: Any) -> None:
    """Set the value at a dotted key."""
    *sections, last = key.split(".")
    for section in sections:
        config = config[section]
    config[last] = value


def differences(a: dict, b: dict, prefix: str = "") -> list[str]:
    """Return the dotted keys whose values differ between two nested mappings."""
    keys = []
    for key in {**a, **b}:
        left, right = a.get(key), b.get(key)
        if isinstance(left, dict) and isinstance(right, dict):
            keys.extend(differences(left, right, f"{prefix}{key}."))
        elif _plain(left) != _plain(right):
            keys.append(f"{prefix}{key}")
    return keys


def _plain(value: Any) -> Any:
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def to_plain(config: dict) -> dict[str, Any]:
    """Return a config as plain dicts, lists and scalars."""
    return {key: to_plain(value) if isinstance(value, dict) else _plain(value) for key, value in config.items()}


def dump(config: dict) -> str:
    """Return the whole config as YAML text."""
    return yaml.safe_dump(to_plain(config), sort_keys=True, allow_unicode=True)
