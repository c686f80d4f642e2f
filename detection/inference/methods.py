"""A detector as its config tests it: alone, or with the methods of Appendix B and the networks of an ensemble."""

from __future__ import annotations

from collections.abc import Sequence

from detectron2.config import CfgNode
from torch import nn

from backbone import DataError, WeightsError
from backbone.engine import checkpoint
from backbone.engine.config import merge, parse_yaml
from backbone.weights import resolve

from ..config import default_config
from ..config.methods import methods_on
from ..modeling.build import build
from ..modeling.testing import Network, Pipeline, methods_of
from ..weights.load import load_detector, open_starting_weights
from ..weights.projects import read_known
from .fast import fast_copy


def as_tested(model: nn.Module, config: CfgNode, classes: Sequence[str], *, may_compile: bool = True) -> nn.Module:
    """Return `fast_copy` of `model`; where the config asks for methods, the pipeline around it and TEST.ENSEMBLE.

    Args:
        may_compile: whether to obey TEST.COMPILE.

    Raises:
        WeightsError: a checkpoint of TEST.ENSEMBLE cannot be read, or does not fit.
        DataError: one was trained on other classes.
    """
    compiled = config.TEST.COMPILE and may_compile
    fast = fast_copy(model, config.TEST.PRECISION, compile=compiled)
    if not methods_on(config):
        return fast
    further = [load_network(path, config, classes, compiled=compiled) for path in config.TEST.ENSEMBLE]
    return Pipeline([Network(fast), *further], methods_of(config))


def check_ensemble(config: CfgNode) -> None:
    """Raise WeightsError now, not after a training, for a file of TEST.ENSEMBLE that is not there."""
    for path in config.TEST.ENSEMBLE:
        if not resolve(path).exists():
            raise WeightsError(f"TEST.ENSEMBLE: {path} does not exist; it must name checkpoints of tools/train_net.py")


def load_network(path: str, config: CfgNode, classes: Sequence[str], *, compiled: bool = False) -> Network:
    """Build a further network of an ensemble, as `fast_copy`: of the config in its checkpoint, else of `config`.

    Raises:
        WeightsError, DataError: as in `as_tested`.
    """
    read = read_known(path)
    content = checkpoint.checked(read[0], path)
    named = list(content.get("metadata", {}).get("classes", []))
    if named and named != list(classes):
        raise DataError(f"TEST.ENSEMBLE: {path} was trained on other classes: {', '.join(map(str, named[:4]))}, ...")
    own = config.clone()
    own.defrost()
    if isinstance(content.get("config"), str):
        own = default_config()
        merge(own, parse_yaml(content["config"], f"{path}, its config"), str(path))
    own.MODEL.DEVICE = config.MODEL.DEVICE
    own.freeze()
    model = build(own)
    load_detector(model, open_starting_weights(path, read=read))
    fast = fast_copy(model, config.TEST.PRECISION, compile=compiled)
    return Network(fast, reverse_channels=own.INPUT.FORMAT != config.INPUT.FORMAT)
