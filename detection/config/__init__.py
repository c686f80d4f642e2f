"""The detector's config: detectron2's keys, ours beside them, and the loading of YAML files."""

from .load import default_config, load_config

__all__ = ["default_config", "load_config"]
