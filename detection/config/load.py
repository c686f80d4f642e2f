"""From a YAML file and overrides to a frozen, checked config."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from detectron2.config import CfgNode, get_cfg

from backbone.engine.config import check_tool, find_config, merge, merge_overrides, read_yaml

from .checks import check_values, derive_from_architecture
from .defaults import add_defaults
from .keys import refuse_unused


def default_config() -> CfgNode:
    """Return a fresh, unfrozen config with detectron2's keys and ours."""
    config = get_cfg()
    add_defaults(config)
    return config


def load_config(path_or_name: str | Path, overrides: Sequence[object] = ()) -> CfgNode:
    """See `detection.get_config`."""
    path = find_config(path_or_name)
    config = default_config()
    values = read_yaml(path)
    check_tool(values, str(path), "tools/train_net.py")
    merge(config, values, str(path))
    given = merge_overrides(config, overrides)
    check(config, default_config(), {*given, *_dotted(values)}, str(path))
    config.freeze()
    return config


def check(config: CfgNode, before: CfgNode, explicit: set[str], source: str) -> None:
    """Check a config that is to be run, and set what follows from the backbone's name.

    Args:
        before: the config without what is checked for keys that nothing reads.
        explicit: keys that were given.

    Raises:
        ConfigError: a value that cannot be, or a key that has no effect here.
    """
    check_values(config, source)
    refuse_unused(config, before, source)
    derive_from_architecture(config, explicit, source)


def _dotted(values: dict, prefix: str = "") -> list[str]:
    keys = []
    for key, value in values.items():
        keys += _dotted(value, f"{prefix}{key}.") if isinstance(value, dict) else [f"{prefix}{key}"]
    return keys
