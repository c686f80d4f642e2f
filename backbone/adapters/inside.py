"""What every adapter needs: the network inside a detector, the stages it gives, and the images it expects."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from torch import Tensor, nn

from ..common.errors import ArchitectureError, RunError
from ..networks import Backbone, FoldedBackbone, create
from ..weights import LoadReport, load_weights


def require(package: str, user: str) -> None:
    """Raise RunError, with the line that installs it, unless `package` is there."""
    if find_spec(package) is None:
        raise RunError(f"{user} needs {package}, which is not installed: pip install {package}")


def network_of(detector: nn.Module) -> Backbone:
    """Return our network inside a detector of any project, an adapter or a folded copy.

    Raises:
        ArchitectureError: there is none, or there are several.
    """
    found = [module for module in detector.modules() if isinstance(module, Backbone)]
    if len(found) != 1:
        number = "none" if not found else len(found)
        raise ArchitectureError(f"{type(detector).__name__}: {number} of its modules is a network of backbone.create")
    return found[0]


def image_statistics(detector: nn.Module) -> dict[str, list[float]]:
    """Return the mean and std that the loaded weights expect, as torchvision's detectors and transformers' image
    processors take them.

    The adapters turn RGB images to BGR for weights that expect it, so the numbers are always those of RGB images.

    Args:
        detector: a network, an adapter, or a detector with one of our networks inside.

    Returns:
        {"image_mean": [R, G, B], "image_std": [R, G, B]} of pixels 0..1; {} where nothing is known of the weights.
    """
    preprocessing = network_of(detector).preprocessing
    if preprocessing is None:
        return {}
    numbers = preprocessing.converted(channel_order="RGB", value_range=1)
    return {"image_mean": list(numbers.mean), "image_std": list(numbers.std)}


def load_weights_into(
    detector: nn.Module,
    path: str | Path,
    *,
    strict: bool = True,
    new_classifier: bool = False,
    part: str | None = None,
) -> LoadReport:
    """Load weights into our network inside a detector, and hold the detector to what they expect of the images.

    A torchvision detector gets the weights' mean and std; a transformers model records the preprocessing and the
    pooling in its config, from where `from_pretrained` has them. Arguments and errors are those of
    `backbone.load_weights`.

    Raises:
        ArchitectureError: a detectron2 detector, whose mean, std and channel order stand in its config.
    """
    network = network_of(detector)
    if hasattr(detector, "pixel_mean"):
        raise ArchitectureError(
            f"{type(detector).__name__}: detectron2 takes mean, std and channel order from its config; set "
            "MODEL.PIXEL_MEAN, PIXEL_STD and INPUT.FORMAT, then call backbone.load_weights(network_of(model), file)"
        )
    report = load_weights(network, path, strict=strict, new_classifier=new_classifier, part=part)
    transform = getattr(detector, "transform", None)
    if hasattr(transform, "image_mean"):
        for name, values in image_statistics(detector).items():
            setattr(transform, name, values)
    for module in detector.modules():
        if hasattr(module, "record_weights"):
            module.record_weights()
    return report


def in_network_order(images: Tensor, network: Backbone | FoldedBackbone) -> Tensor:
    """Return RGB images (N, 3, H, W), normalised or not, in the channel order that the network's weights expect."""
    preprocessing = (network.network if isinstance(network, FoldedBackbone) else network).preprocessing
    return images.flip(1) if preprocessing is not None and preprocessing.channel_order == "BGR" else images


def as_network(
    network: Backbone | FoldedBackbone | str, stages: Sequence[str] | None, keywords: dict
) -> Backbone | FoldedBackbone:
    """Return the network that an adapter wraps.

    Args:
        network: taken as it is, or a name for `backbone.create`.
        stages: that the adapter needs; None where the network's own will do.
        keywords: of `backbone.create`, beside `out_features`.

    Raises:
        ArchitectureError: not a network; keywords for one that is built already, or a keyword that it does not take.
    """
    if "out_features" in keywords:
        raise ArchitectureError("an adapter sets out_features itself; name the stages or the indices of its levels")
    if isinstance(network, str):
        return create(network, **keywords, **({} if stages is None else {"out_features": tuple(stages)}))
    if not isinstance(network, (Backbone, FoldedBackbone)):
        raise ArchitectureError(
            f"the network must be one of backbone.create or the name of one, not {type(network).__name__}"
        )
    if keywords:
        raise ArchitectureError(
            f"{network.architecture} is built already; give {', '.join(sorted(keywords))} to backbone.create"
        )
    return network


def set_outputs(network: Backbone | FoldedBackbone, stages: Sequence[str]) -> tuple[str, ...]:
    """Make a network give `stages` alone; return them in order of depth.

    Raises:
        ArchitectureError: a stage that is not built, or none.
    """
    built = network_of(network).stage_names
    wrong = [stage for stage in stages if stage not in built]
    if wrong or not stages or isinstance(stages, str):
        raise ArchitectureError(f"{network.architecture}: stages {stages!r} must list some of {', '.join(built)}")
    network_of(network).out_features = tuple(stage for stage in built if stage in stages)
    return network.out_features
