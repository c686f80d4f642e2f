"""From a YAML file and overrides to a frozen, checked config."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from detectron2.config import CfgNode

from backbone.engine.config import check_tool, find_config, merge, merge_overrides, read_yaml

from .checks import check_values, derive_from_architecture
from .defaults import default_config
from .detectron2_config import BUILDERS, from_detectron2, take_network, zoo_config
from .keys import refuse_newer, refuse_unused

# Before the name of a config of detectron2's model zoo.
ZOO = "detectron2:"


def load_config(path_or_name: str | Path, overrides: Sequence[object] = ()) -> CfgNode:
    """See `detection.get_config`."""
    if str(path_or_name).startswith(ZOO):
        source, values = str(path_or_name), {}
        config = from_detectron2(zoo_config(source.removeprefix(ZOO)), source)
    else:
        path = find_config(path_or_name)
        source, values, config = str(path), read_yaml(path), default_config()
        check_tool(values, source, "tools/train_net.py")
        refuse_newer(_dotted(values), config, source)
        merge(config, values, source)
    refuse_newer(map(str, overrides[::2]), config, "command line")
    given = merge_overrides(config, overrides)
    if config.MODEL.BACKBONE.NAME in BUILDERS:
        take_network(config, source)
    check(config, default_config(), {*given, *_dotted(values)}, source)
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
