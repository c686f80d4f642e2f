"""The detector's config: detectron2's keys, ours beside them, and the loading of YAML files."""

from .defaults import default_config
from .load import check, load_config

__all__ = ["check", "default_config", "load_config"]
