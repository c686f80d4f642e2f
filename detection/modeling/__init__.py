"""Networks of `backbone` as detectron2 backbones, and the detection heads on them."""

from .backbone import register_all

__all__ = ["register_all"]
