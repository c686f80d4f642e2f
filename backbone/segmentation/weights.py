"""Weights into a segmentation network: a whole network's (ours, torchvision's), or a backbone's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from ..common.errors import WeightsError
from ..common.text import count
from ..engine import starting_weights
from ..engine.starting_weights import StartingWeights, WeightKeys
from ..weights import load_weights, match
from .networks import SegmentationNetwork

WEIGHT_KEYS = WeightKeys(
    flags={
        "stride_in_1x1": "MODEL.STRIDE_IN_1X1",
        "average_down": "MODEL.AVERAGE_DOWN",
        "ceil_pool": "MODEL.CEIL_POOL",
    },
    stem="MODEL.STEM",
)
HEADS = ("classifier.", "aux_classifier.")


def open_starting_weights(path: str) -> StartingWeights:
    """Read a file of a whole segmentation network, or of a backbone in any layout.

    Raises:
        WeightsError: it cannot be read, or holds no named tensors.
    """
    return starting_weights.open_starting_weights(path, WEIGHT_KEYS, _is_whole)


def _is_whole(tensors: Mapping[str, Tensor]) -> bool:
    return all(any(name.startswith(part) for name in tensors) for part in ("backbone.", "classifier."))


def load_whole(network: SegmentationNetwork, weights: StartingWeights, classes: Sequence[str]) -> str:
    """Load a whole network for a test; return a line that says what was loaded. An auxiliary head may be missing.

    Raises:
        WeightsError: it is a backbone's, is of other classes, or does not fit; nothing is changed then.
    """
    if not weights.whole:
        raise WeightsError(f"{weights.source}: holds a backbone only, not a trained network; train it with --weights")
    _check_classes(weights, classes)
    return _fill(network, weights, weights.tensors)


def load_initial(
    network: SegmentationNetwork, weights: StartingWeights, classes: Sequence[str], *, new_classifier: bool
) -> str:
    """Load what training starts from; return a line that says what was loaded.

    Args:
        new_classifier: leave out the layers of a whole network that give the classes.

    Raises:
        WeightsError: as in `load_whole`, or the backbone's weights do not fit.
    """
    if weights.file is not None:
        report = load_weights(network.backbone, weights.file)
        return f"{weights.source}: {weights.says}backbone, {count(len(report.loaded), 'tensor')}"
    if not new_classifier:
        return load_whole(network, weights, classes)
    last = _last_layers(network)
    kept = {name: value for name, value in weights.tensors.items() if not name.startswith(last)}
    return _fill(network, weights, kept, anew=last) + "; the layers that give the classes begin anew"


def _last_layers(network: SegmentationNetwork) -> tuple[str, ...]:
    heads = {"classifier.": network.classifier, "aux_classifier.": network.aux_classifier}
    return tuple(f"{name}{len(head) - 1}." for name, head in heads.items() if head is not None)


def _check_classes(weights: StartingWeights, classes: Sequence[str]) -> None:
    mend = "MODEL.NEW_CLASSIFIER True trains new ones"
    last = [value for name, value in weights.tensors.items() if name.startswith("classifier.") and value.ndim]
    found = len(weights.classes) or len(last[-1])
    if found != len(classes):
        raise WeightsError(f"{weights.source}: gives {found} classes, the data has {len(classes)}; {mend}")
    other = [pair for pair in zip(weights.classes, classes) if pair[0] != pair[1]]
    if other:
        raise WeightsError(
            f"{weights.source}: has the class {other[0][0]!r} where the data has {other[0][1]!r}; {mend}"
        )


def _fill(
    network: SegmentationNetwork,
    weights: StartingWeights,
    tensors: Mapping[str, Tensor],
    anew: tuple[str, ...] = (),
) -> str:
    auxiliary = network.aux_classifier is not None
    # The auxiliary head trains the others, and gives nothing in a test.
    wanted = {name: value for name, value in tensors.items() if auxiliary or not name.startswith("aux_classifier.")}
    fresh = anew if any(name.startswith("aux_classifier.") for name in wanted) else (*anew, "aux_classifier.")
    report = match(network, wanted, weights.source)
    report.missing = [name for name in report.missing if not name.startswith(fresh)] if fresh else report.missing
    if not report.fits:
        raise WeightsError(f"{weights.source}: does not fit MODEL of this config: {report.problems()}")
    network.load_state_dict({name: wanted[name] for name in report.loaded}, strict=False)
    return f"{weights.source}: whole network, {count(len(report.loaded), 'tensor')}"
