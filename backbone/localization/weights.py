"""Weights into a localisation network: a whole run's, or a backbone's; and trained networks ready for a test."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ..classification import default_config as classifier_defaults
from ..classification.networks import build as build_classifier
from ..classification.networks import fit_weights, load_into, prepare_for
from ..common.errors import ConfigError, WeightsError
from ..common.text import count
from ..engine import starting_weights
from ..engine.config import fit, get, put
from ..engine.defaults import preprocessing_of
from ..engine.starting_weights import StartingWeights, WeightKeys
from ..networks import Backbone, find_architecture
from ..networks.plain import load_plain
from ..weights import load_weights, match, open_weights
from .networks import LocalizationNetwork, build

WEIGHT_KEYS = WeightKeys(
    flags={
        "stride_in_1x1": "MODEL.STRIDE_IN_1X1",
        "average_down": "MODEL.AVERAGE_DOWN",
        "shortcut": "MODEL.SHORTCUT",
    },
    stem="MODEL.STEM",
    architecture=lambda config: find_architecture(config.MODEL.NAME),
)
# Of a run's network; a test takes them from the file.
MODEL_KEYS = ("MODEL.NAME", "MODEL.NORM", "MODEL.KIND", "MODEL.ANCHOR_SIZES", "MODEL.ANCHOR_RATIOS", "INPUT.TRAIN_SIZE")
Prepare = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Member:
    """A network in a test.

    Attributes:
        prepare: from (N, 3, H, W) RGB pixels 0..255 to its input.
        config: with the keys of MODEL that it was trained with.
    """

    network: LocalizationNetwork
    prepare: Prepare
    config: Any


def open_starting_weights(path: str, part: str = "") -> StartingWeights:
    """Read a file of a whole localisation network, or of a backbone in any layout.

    Raises:
        WeightsError: it cannot be read, or holds no named tensors.
    """
    return starting_weights.open_starting_weights(path, WEIGHT_KEYS, _is_whole, part)


def _is_whole(tensors: Mapping[str, Tensor]) -> bool:
    return all(any(name.startswith(part) for name in tensors) for part in ("backbone.", "score.", "box."))


def load_whole(network: LocalizationNetwork, weights: StartingWeights, classes: Sequence[str]) -> str:
    """Load a whole network; return a line that says what was loaded.

    Raises:
        WeightsError: it is a backbone's, is of other classes, or does not fit; nothing is changed then.
    """
    if not weights.whole:
        raise WeightsError(f"{weights.source}: {weights.holds}, not a trained network; train it with --weights")
    if weights.classes and weights.classes != list(classes):
        raise WeightsError(
            f"{weights.source}: was trained on {count(len(weights.classes), 'class', 'classes')}, first "
            f"{weights.classes[0]}; the data has {len(classes)}, first {classes[0]}"
        )
    report = match(network, weights.tensors, weights.source)
    if not report.fits:
        raise WeightsError(f"{weights.source}: does not fit MODEL of this config: {report.problems()}")
    load_plain(network, {name: weights.tensors[name] for name in report.loaded})
    return f"{weights.source}: whole network, {count(len(report.loaded), 'tensor')}"


def load_initial(network: LocalizationNetwork, weights: StartingWeights, classes: Sequence[str]) -> str:
    """Load what training starts from, a backbone or a whole network; return a line that says what was loaded.

    Raises:
        WeightsError: it does not fit.
    """
    if weights.file is None:
        return load_whole(network, weights, classes)
    report = load_weights(network.backbone, weights.file)
    return f"{weights.source}: {weights.says}backbone, {count(len(report.loaded), 'tensor')}{weights.leaves}"


def open_trained(path: str, config: Any, classes: Sequence[str], kind: str) -> Member:
    """Return the network of a run's weights, built as it was trained, in eval mode.

    Args:
        config: of this run, for all that the weights do not decide.
        kind: what it must be, of networks.RPN and RCNN.

    Raises:
        WeightsError: it cannot be read, or does not fit.
        ConfigError: it is of the other kind.
    """
    weights = open_starting_weights(path)
    own = as_trained(WEIGHT_KEYS.resolve(config, weights.wants, path, ())[0], weights, kind)
    network = build(own, len(classes))
    load_whole(network, weights, classes)
    return Member(network.eval(), preprocessing_of(own), own)


def as_trained(config: Any, weights: StartingWeights, kind: str, given: Collection[str] = ()) -> Any:
    """Return the config with the MODEL_KEYS that a whole network was trained with; the command line's, `given`, stay.

    Raises:
        ConfigError: it is not of this MODEL.KIND, or its file has a value that is none for its key.
    """
    found = weights.metadata.get("kind", kind)
    if found != kind:
        raise ConfigError(f"{weights.source}: is a network of MODEL.KIND {found}; one of {kind} belongs there")
    facts = weights.metadata.get("model") or {}
    own = config.clone()
    own.defrost()
    for key in MODEL_KEYS:
        if key in facts and key not in given:
            put(own, key, fit(facts[key], get(own, key), key, weights.source))
    own.freeze()
    return own


def facts_of(config: Any) -> dict[str, Any]:
    """Return what `as_trained` takes from a checkpoint's metadata."""
    values = {key: get(config, key) for key in MODEL_KEYS}
    return {"kind": config.MODEL.KIND, "model": {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}}


def open_classifiers(config: Any, classes: Sequence[str]) -> tuple[list[Backbone], list[Prepare]]:
    """Return the networks of TEST.CLASSIFIERS in eval mode, and what prepares their images.

    Raises:
        WeightsError: a file cannot be read, or does not fit.
        ConfigError: a classifier is of other classes.
    """
    networks, prepares = [], []
    for path in config.TEST.CLASSIFIERS:
        own = classifier_defaults()
        own.MODEL.NAME = str(open_weights(path).metadata.get("architecture") or config.MODEL.NAME)
        own.MODEL.NUM_CLASSES, own.MODEL.DEVICE = len(classes), config.MODEL.DEVICE
        own.freeze()
        own, weights, _ = fit_weights(own, path, (), images=False)
        network = build_classifier(own)
        trained = load_into(network, weights)
        if trained.classes and trained.classes != list(classes):
            raise ConfigError(f"{path}: a classifier of other classes than the data, or in another order")
        networks.append(network.eval())
        prepares.append(prepare_for(trained, own))
    return networks, prepares
