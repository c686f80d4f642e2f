"""What weights ask of a detector's config: preprocessing, stem, stride placement, shortcuts and pooling."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode
from torch import Tensor

from backbone import ConfigError, Traits
from backbone.engine.config import get, parse_yaml, put, read_yaml
from backbone.engine.record import CONFIG

from ..modeling.backbone import architecture_of

IMAGE_KEYS = ("INPUT.FORMAT", "MODEL.PIXEL_MEAN", "MODEL.PIXEL_STD")
# What belongs to weights: trained with one value, a network with another computes something else.
FLAGS = {
    "stride_in_1x1": "MODEL.RESNETS.STRIDE_IN_1X1",
    "average_down": "MODEL.BACKBONE.AVERAGE_DOWN",
    "ceil_pool": "MODEL.BACKBONE.CEIL_POOL",
}
KEYS_OF_WEIGHTS = (*IMAGE_KEYS, *FLAGS.values(), "MODEL.BACKBONE.STEM")


def wanted_by_backbone(traits: Traits, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return the config keys that a backbone's weights ask for, with their values."""
    wanted: dict[str, Any] = {}
    if traits.preprocessing is not None:
        numbers = traits.preprocessing.converted(value_range=255)
        wanted |= dict(zip(IMAGE_KEYS, (numbers.channel_order, list(numbers.mean), list(numbers.std))))
    wanted |= {FLAGS[name]: value for name, value in traits.keywords().items()}
    if any(name.startswith("conv1.") for name in tensors):
        wanted["MODEL.BACKBONE.STEM"] = "deep" if "conv1.0.weight" in tensors else "conv7"
    return wanted


def wanted_by_detector(content: Mapping[str, Any], source: str) -> dict[str, Any]:
    """Return the keys of a detector's checkpoint that its own config has; {} where it carries none."""
    text = content.get("config")
    if not isinstance(text, str):
        return {}
    return _of_config(parse_yaml(text, f"{source}, its config"))


def wanted_by_run(folder: Path) -> dict[str, Any]:
    """Return the keys as they were settled when the run in `folder` began from weights."""
    path = folder / CONFIG
    values = read_yaml(path) if path.is_file() else {}
    return _of_config(values) if (values.get("MODEL") or {}).get("WEIGHTS") else {}


def _of_config(values: Mapping[str, Any]) -> dict[str, Any]:
    found = {}
    for key in KEYS_OF_WEIGHTS:
        try:
            found[key] = get(values, key)
        except (KeyError, TypeError):
            continue
    return found


def adopt(
    config: CfgNode, wanted: Mapping[str, Any], source: str, given: Collection[str], *, assumed: bool = False
) -> tuple[CfgNode, list[str]]:
    """Set the config to what weights ask for.

    Args:
        wanted: config keys and values.
        given: keys of the command line; they are checked, not changed.
        assumed: the preprocessing is only the one usual for such weights; the config's is kept, with a note.

    Returns:
        The frozen config, and what was set or noticed, a line each.

    Raises:
        ConfigError: a key of the command line has another value than the weights ask for.
    """
    different = {
        key: value
        for key, value in wanted.items()
        if _has(config, key) and not _same(key, get(config, key), value) and _matters(config, key)
    }
    notes = []
    if assumed:
        kept = [key for key in different if key in IMAGE_KEYS]
        for key in kept:
            notes.append(f"{key} {get(config, key)} kept; weights of this layout usually want {different.pop(key)}")
    for key, value in different.items():
        if key in given:
            raise ConfigError(
                f"{key} is {get(config, key)} on the command line, but the weights in {source} are of a network "
                f"with {_show(value)}; leave the key out, the weights decide"
            )
    if not different:
        return config, notes
    adopted = config.clone()
    adopted.defrost()
    for key, value in different.items():
        put(adopted, key, value)
    adopted.freeze()
    shown = ", ".join(f"{key} {_show(get(config, key))} -> {_show(value)}" for key, value in different.items())
    return adopted, [f"set as the weights ask: {shown}", *notes]


def _has(config: CfgNode, key: str) -> bool:
    try:
        get(config, key)
    except KeyError:
        return False
    return True


def _matters(config: CfgNode, key: str) -> bool:
    """Whether the config's network heeds the key: blocks of two 3x3 convolutions have no 1x1 for a stride."""
    return architecture_of(config)[1].block == "bottleneck" or key != "MODEL.RESNETS.STRIDE_IN_1X1"


def _same(key: str, a: Any, b: Any) -> bool:
    if key in ("MODEL.PIXEL_MEAN", "MODEL.PIXEL_STD"):
        return len(a) == len(b) and all(abs(x - y) < 0.01 for x, y in zip(a, b))
    return a == b


def _show(value: Any) -> str:
    return str([round(float(x), 3) for x in value]) if isinstance(value, (list, tuple)) else str(value)
