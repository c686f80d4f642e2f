"""The networks: one table of architectures, one contract, and the classes that build them."""

from .architectures import ARCHITECTURES, Architecture, find_architecture
from .contract import Backbone, FeatureInfo
from .families import create, keywords_of, network_class
from .folding import FoldedBackbone, fold
from .layer_decay import layer_decay_groups
from .norm import FrozenBatchNorm2d, freeze_bn, freeze_norm, unfreeze_norm
from .resnet import PreActResNet, ResNet
from .vgg import VGG

__all__ = [
    "ARCHITECTURES",
    "VGG",
    "Architecture",
    "Backbone",
    "FeatureInfo",
    "FoldedBackbone",
    "FrozenBatchNorm2d",
    "PreActResNet",
    "ResNet",
    "create",
    "find_architecture",
    "fold",
    "freeze_bn",
    "freeze_norm",
    "keywords_of",
    "layer_decay_groups",
    "network_class",
    "unfreeze_norm",
]
