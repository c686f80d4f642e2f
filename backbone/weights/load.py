"""Loading weights into a network: compare, hold the network to what the weights ask, copy."""

from __future__ import annotations

import re
from pathlib import Path

import torch
from torch import Tensor, nn

from ..common.errors import WeightsError
from ..common.text import count
from ..networks.contract import Backbone, first_convolution
from ..networks.plain import load_plain, path_inside, plain_names, unwrapped
from .channels import fit_channels
from .content import WeightsFile, open_weights
from .identify import find_backbones, shortcut_of
from .report import LoadReport, MisfitError, match
from .weight_metadata import check, doubts, options_of, set_pooling

NEW_CLASSIFIER_HINT = "new_classifier=True loads the rest and initialises the classifier anew"


def load_weights(
    network: nn.Module,
    path: str | Path | WeightsFile,
    *,
    strict: bool = True,
    new_classifier: bool = False,
    part: str | None = None,
) -> LoadReport:
    """Load a weights file of any known kind and layout into `network`.

    The weights' preprocessing becomes `network.preprocessing` (None where it is not known), their pooling is set on the
    network, and their stride placement is checked against it. Weights of three channels are adapted to a network of
    another `in_chans` by timm's rule.

    Args:
        network: of `backbone.create`; it or its stages may be inside torch.compile, DistributedDataParallel or wrappers
            of one's own; pruned layers keep their masks. Stages and a classifier that it was built without may be in
            the file, and what is no part of such a network.
        path: the file, or what `open_weights` made of it.
        strict: every tensor of the network must be in the file, with its shape, and no unknown one among its own.
        new_classifier: initialise the network's classifier anew, whatever the file has for it.
        part: which of several networks in the file, as in `open_weights`.

    Raises:
        MisfitError: it does not fit and `strict` is set; its `report` has a table of all names that differ.
        WeightsError: the file cannot be read, or asks for another stride placement or other shortcuts than the network
            has. Nothing is changed in either case.
    """
    network = unwrapped(network)
    weights = path if isinstance(path, WeightsFile) else open_weights(path, part=part)
    weights, adapted = fit_channels(network, weights)
    report = compare(network, weights, new_classifier=new_classifier)
    if not report.loaded or (strict and not report.fits):
        architecture = getattr(network, "architecture", "the network")
        problem = f"{weights.source}: does not fit {architecture}: {report.problems()}"
        raise MisfitError(problem, report, _hint(network, weights, report))
    if strict and weights.architecture not in (None, getattr(network, "architecture", None)):
        raise WeightsError(f"{weights.source}: holds {weights.architecture}, not {network.architecture}")
    check(network, weights.weight_metadata, weights.source)
    _fill(network, {name: weights.tensors[name] for name in report.loaded}, weights.source)
    if new_classifier:
        classifier_of(network)[1].reset_parameters()
        report.notes.append("classifier initialised anew")
    report.notes += [*adapted, *weights.notes()]
    report.notes += [
        *filter(None, [set_pooling(network, weights.weight_metadata)]),
        *doubts(network, weights.weight_metadata),
    ]
    network.preprocessing = weights.weight_metadata.preprocessing
    return report


def _fill(network: nn.Module, tensors: dict[str, Tensor], source: str) -> None:
    """Copy `tensors` into the network; one on meta gets them as its own.

    Raises:
        WeightsError: a network on meta would stay without values in part.
    """
    own = network.state_dict()
    state = {plain: own[name] for plain, name in plain_names(network).items()}
    on_meta = [name for name, value in state.items() if value.is_meta]
    empty = [name for name in on_meta if name not in tensors and not name.endswith("num_batches_tracked")]
    if empty:
        raise WeightsError(
            f"{source}: the network is on meta and {empty[0]} is not loaded, so it would stay without values; "
            "call network.to_empty(device='cpu'), initialise it, then load"
        )
    if on_meta:
        tensors = {name: value.to(state[name].dtype) for name, value in tensors.items()}
        tensors |= {name: torch.zeros((), dtype=torch.long) for name in on_meta if name not in tensors}
    load_plain(network, tensors, assign=bool(on_meta))


def compare(network: nn.Module, weights: WeightsFile, *, new_classifier: bool = False) -> LoadReport:
    """Compare a file with a network, without changing anything.

    Raises:
        WeightsError: `new_classifier` for a network without one.
    """
    report = match(network, weights.tensors, weights.source)
    report.kind, report.layout, report.weight_metadata = weights.kind, weights.layout, weights.weight_metadata
    report.left_out = [name for name in weights.beside if not name.endswith("num_batches_tracked")]
    report.unexpected = [name for name in report.unexpected if not left_out(network, name)]
    if new_classifier:
        prefix = path_inside(network, classifier_of(network)[0])
        report.loaded = [name for name in report.loaded if not name.startswith(prefix)]
        report.missing = [name for name in report.missing if not name.startswith(prefix)]
        for name in [name for name in report.mismatched if name.startswith(prefix)]:
            del report.mismatched[name]
    return report


def classifier_of(network: nn.Module) -> tuple[str, nn.Linear]:
    """Return the name and the module of the network's classifier, its last linear layer.

    Raises:
        WeightsError: it has none.
    """
    layers = [(name, module) for name, module in network.named_modules() if isinstance(module, nn.Linear)]
    if not layers:
        raise WeightsError("new_classifier: the network has no classifier; create it with num_classes")
    return layers[-1]


def left_out(network: nn.Module, name: str) -> bool:
    """Whether `name` belongs to a stage or classifier that the network was built without."""
    top, _, rest = name.partition(".")
    if top == "features" and hasattr(network, "features"):
        index = rest.partition(".")[0]
        return index.isdigit() and int(index) >= len(network.features)
    # The last norm of a pre-activation network is built with its last stage.
    ends = {"fc", "classifier"} | ({"bn"} if "preact" in getattr(network, "architecture", "") else set())
    return (top in ends or re.fullmatch(r"layer[1-4]", top) is not None) and not hasattr(network, top)


def _hint(network: nn.Module, weights: WeightsFile, report: LoadReport) -> str:
    """Say how to mend a misfit, where that can be known."""
    wrong = [*report.missing, *report.mismatched]
    if not report.unexpected and wrong and hasattr(network, "feature_info") and "logits" in network.feature_info:
        prefix = path_inside(network, classifier_of(network)[0])
        if all(name.startswith(prefix) for name in wrong):
            return NEW_CLASSIFIER_HINT
    if isinstance(network, Backbone) and wrong == [
        name := path_inside(network, first_convolution(network)[0]) + "weight"
    ]:
        shape = report.mismatched.get(name, ((), ()))
        if len(shape[0]) == 4 and shape[0][:1] + shape[0][2:] == shape[1][:1] + shape[1][2:]:
            return (
                f"the weights are of images with {shape[0][1]} channels: create the network with in_chans={shape[0][1]}"
            )
    if weights.layout is None:
        return "the names in the file are of no known layout"
    stem = "deep" if "conv1.0.weight" in weights.tensors else "conv7"
    if getattr(network, "stem", stem) != stem and all(
        re.match(r"(conv1|bn1)\.", name) for name in (*wrong, *report.unexpected)
    ):
        return f'create the network with stem="{stem}"'
    own, theirs = options_of(network)["shortcut"], shortcut_of(weights.tensors)
    if theirs != own and own is not None and all(".downsample." in name for name in (*wrong, *report.unexpected)):
        return f'create the network with shortcut="{theirs}"'
    fitting = [name for name in find_backbones(weights) if name != getattr(network, "architecture", None)]
    if fitting:
        return f"the {count(len(weights.tensors), 'tensor')} in the file are those of {' or '.join(fitting)}"
    return ""
