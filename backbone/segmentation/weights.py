"""Weights into a segmentation network: a whole network's (ours, torchvision's), or a backbone's."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from typing import Any

from torch import Tensor

from ..common.errors import ConfigError, WeightsError
from ..common.text import count
from ..engine import starting_weights
from ..engine.config import get, put
from ..engine.starting_weights import IMAGE_KEYS, StartingWeights, WeightKeys
from ..networks import find_architecture
from ..networks.plain import load_plain
from ..weights import load_weights, match
from ..weights.channels import adapt_channels
from .config import CHOICES
from .networks import SegmentationNetwork, atrous_rates, last_layers
from .projects import read_foreign

BACKBONE = "backbone."
# In messages.
_WORDS = {"MODEL.NAME": "the network", "MODEL.HEAD.NAME": "a head of", "MODEL.HEAD.STYLE": "a head in the style of"}
WEIGHT_KEYS = WeightKeys(
    flags={
        "stride_in_1x1": "MODEL.STRIDE_IN_1X1",
        "average_down": "MODEL.AVERAGE_DOWN",
        "ceil_pool": "MODEL.CEIL_POOL",
        "shortcut": "MODEL.SHORTCUT",
        "dilation_style": "MODEL.DILATION_STYLE",
    },
    stem="MODEL.STEM",
    architecture=lambda config: find_architecture(config.MODEL.NAME),
    # Images that are not of three channels are the config's own: weights of three are adapted to them.
    matters=lambda config, key: key not in IMAGE_KEYS or len(config.MODEL.PIXEL_MEAN) == 3,
    whole=("MODEL.NAME", "MODEL.HEAD.NAME", "MODEL.HEAD.STYLE", "MODEL.HEAD.ALIGN_CORNERS"),
)


def open_starting_weights(
    path: str, part: str = "", read: tuple[Any, Mapping[str, str]] | None = None
) -> StartingWeights:
    """Read a file of a whole segmentation network, ours or another project's, or of a backbone in any layout.

    Args:
        part, read: as of `starting_weights.open_starting_weights`.

    Raises:
        WeightsError: it cannot be read, holds no named tensors, or is of a network that there is none of here.
    """
    of_others = partial(read_foreign, keys=WEIGHT_KEYS)
    return starting_weights.open_starting_weights(path, WEIGHT_KEYS, _is_whole, part, of_others, read)


def _is_whole(tensors: Mapping[str, Tensor]) -> bool:
    return all(any(name.startswith(part) for name in tensors) for part in ("backbone.", "classifier."))


def fit_weights(
    config: Any, weights: StartingWeights, given: Collection[str], *, testing: bool
) -> tuple[Any, list[str]]:
    """Set the config to what weights ask for; see `fit_head` and `WeightKeys.resolve`.

    Returns:
        The frozen config, and what was set or is different, a line each.
    """
    # The network first: which keys of the weights matter follows from it.
    config, compared = fit_head(config, weights, given, testing=testing)
    wants = {key: value for key, value in weights.wanted(given).items() if key not in WEIGHT_KEYS.whole}
    config, notes = WEIGHT_KEYS.resolve(config, wants, weights.source, given, assumed=weights.assumed)
    return config, [*notes, *compared]


def fit_head(config: Any, weights: StartingWeights, given: Collection[str], *, testing: bool) -> tuple[Any, list[str]]:
    """Compare network, head, output stride and dilations with those that a whole network was trained with.

    In a test the config takes them over, but for keys of the command line. Of another project's network it takes all
    but the output stride in a training too: they are what its tensors are of.

    Returns:
        The frozen config, and what was set or is different, a line each.

    Raises:
        ConfigError: the command line names another head.
    """
    if not weights.whole:
        return config, []
    said = weights.metadata
    stride, head, rates = (said.get(key) for key in ("output_stride", "head", "atrous_rates"))
    if stride not in CHOICES["MODEL.OUTPUT_STRIDE"] or head not in CHOICES["MODEL.HEAD.NAME"]:
        own = config.MODEL.OUTPUT_STRIDE
        note = f"MODEL.OUTPUT_STRIDE {own} kept; the file does not say, torchvision's own weights want 8"
        return config, [note] if own != 8 else []
    takes_form = testing or bool(weights.project)
    form = {"MODEL.HEAD.NAME": head, "MODEL.HEAD.STYLE": said.get("head_style", "torchvision")}
    if said.get("architecture") in CHOICES["MODEL.NAME"]:
        form["MODEL.NAME"] = said["architecture"]
    for key in form.keys() & set(given) if takes_form else ():
        if form[key] != get(config, key):
            raise ConfigError(f"{key} is {get(config, key)}, but {weights.source} has {_WORDS[key]} {form[key]}")
    form["MODEL.HEAD.ALIGN_CORNERS"] = said.get("align_corners") is True
    notes = []
    fitted = config.clone()
    fitted.defrost()
    for key, value in {"MODEL.OUTPUT_STRIDE": stride, **form}.items():
        if get(config, key) == value:
            continue
        if (takes_form if key in form else testing) and key not in given:
            put(fitted, key, value)
            notes.append(f"{key} {get(config, key)} -> {value}, as the weights were trained")
        else:
            notes.append(f"{key} {get(config, key)} kept; the weights were trained with {value}")
    if fitted.MODEL.HEAD.NAME == head == "deeplabv3" and _are_rates(rates):
        # Rates count pixels of the feature map: at half the stride, twice the rate sees the same.
        wanted = tuple(rate * stride // fitted.MODEL.OUTPUT_STRIDE for rate in rates)
        if wanted != atrous_rates(fitted):
            taken = testing and "MODEL.HEAD.ATROUS_RATES" not in given
            change = f"-> {wanted}" if taken else f"kept; the weights were trained with what is {wanted} here"
            notes.append(f"MODEL.HEAD.ATROUS_RATES {atrous_rates(fitted)} {change}")
            fitted.MODEL.HEAD.ATROUS_RATES = wanted if taken else fitted.MODEL.HEAD.ATROUS_RATES
    fitted.freeze()
    return fitted, notes


def _are_rates(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(rate, int) and rate > 0 for rate in value)


def load_whole(network: SegmentationNetwork, weights: StartingWeights, classes: Sequence[str]) -> str:
    """Load a whole network for a test; return a line that says what was loaded. An auxiliary head may be missing.

    Raises:
        WeightsError: it is a backbone's, is of other classes, or does not fit; nothing is changed then.
    """
    if not weights.whole:
        raise WeightsError(f"{weights.source}: {weights.holds}, not a trained network; train it with --weights")
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
        return f"{weights.source}: {weights.says}backbone, {count(len(report.loaded), 'tensor')}{weights.leaves}"
    if not new_classifier:
        return load_whole(network, weights, classes)
    last = last_layers(network)
    kept = {name: value for name, value in weights.tensors.items() if not name.startswith(last)}
    return _fill(network, weights, kept, anew=last) + "; the layers that give the classes begin anew"


def _check_classes(weights: StartingWeights, classes: Sequence[str]) -> None:
    check_names(
        weights.source,
        weights.classes or number_of_classes(weights.tensors) or len(classes),
        classes,
        "; MODEL.NEW_CLASSIFIER True trains new ones",
    )


def number_of_classes(tensors: Mapping[str, Tensor]) -> int:
    """Return how many classes the head in a file tells apart; 0 where it has none."""
    rows = [value for name, value in tensors.items() if re.fullmatch(r"classifier\.(\d+|conv_seg)\.bias", name)]
    return len(rows[-1]) if rows and rows[-1].ndim else 0


def check_names(source: str, known: Sequence[str] | int, classes: Sequence[str], mend: str = "") -> None:
    """Raise WeightsError unless a network's classes, or their number, are those of the data."""
    found = known if isinstance(known, int) else len(known)
    if found != len(classes):
        raise WeightsError(f"{source}: gives {found} classes, the data has {len(classes)}{mend}")
    other = [] if isinstance(known, int) else [pair for pair in zip(known, classes) if pair[0] != pair[1]]
    if other:
        raise WeightsError(f"{source}: has the class {other[0][0]!r} where the data has {other[0][1]!r}{mend}")


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
    inner = {name.removeprefix(BACKBONE): value for name, value in wanted.items() if name.startswith(BACKBONE)}
    adapted, notes = adapt_channels(network.backbone, inner)
    wanted |= {f"{BACKBONE}{name}": value for name, value in adapted.items()}
    report = match(network, wanted, weights.source)
    report.missing = [name for name in report.missing if not name.startswith(fresh)] if fresh else report.missing
    if not report.fits:
        raise WeightsError(f"{weights.source}: does not fit MODEL of this config: {report.problems()}")
    load_plain(network, {name: wanted[name] for name in report.loaded})
    return "; ".join([f"{weights.source}: whole network, {count(len(report.loaded), 'tensor')}", *notes])
