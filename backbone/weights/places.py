"""Where in a file's tree of names a network stands: found by the names of its first block, wherever they are."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from ..common.errors import WeightsError
from .layouts import LAYOUTS, Layout, find_layout
from .names import walk

# Copies that follow a network as a moving average: of training tools, and the second encoders of MoCo and BYOL.
COPY = re.compile(r"(^|[._])(ema|averaged?|swa|shadow|momentum|target|encoder_k|key_encoder)([._]|$)", re.IGNORECASE)
# Beginnings of our names that are of the network itself: what stands in them is never left out.
OWN = re.compile(r"(conv|bn|gn|norm|layer|res|stage|block|group)s?\.?\d|(stem|features|bn|norm|downsample)\.")
# What the names of transformers' and MMPretrain's networks begin with where a classifier of this name stands beside it.
ROOTS = {"resnet.": "classifier.1.weight", "backbone.": "head.fc.weight"}
# The last stage, which C4 detectors have in their head.
LAST_STAGES = (("layer3.0.conv1.weight", "layer4."), ("res4.0.conv1.weight", "res5."))


@dataclass(frozen=True)
class Place:
    """One network in a file.

    Attributes:
        path: of the dict that holds it, "" or keys that each end with a dot.
        prefix: what stands there before each of its names.
        tensors: by the layout's names.
        layout: of these.
        beside: other tensors of the same dict, and of the dicts beside it.
    """

    path: str
    prefix: str
    tensors: dict[str, Tensor]
    layout: Layout
    beside: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """What `part` calls it."""
        return (self.path + self.prefix).removesuffix(".")


def find_places(content: Any) -> list[Place]:
    """Return the networks of known layouts in a file's content, in the order of the file."""
    found: list[Place] = []
    held = list(walk(content))
    for path, tensors in held:
        for prefix in _prefixes(tensors):
            inner = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
            layout = find_layout(inner)
            if layout is not None:
                found.append(Place(path, prefix, inner, layout))
    return [_completed(place, found, held) for place in found]


def _prefixes(names: Collection[str]) -> list[str]:
    """Return what stands before the first blocks in `names`."""
    anchors = tuple(anchor for layout in LAYOUTS.values() for anchor in layout.anchors)
    found: dict[str, None] = {}
    for name in names:
        for anchor in anchors:
            prefix = name.removesuffix(anchor)
            if prefix != name and (not prefix or prefix.endswith(".")):
                found[_with_classifier(prefix, names)] = None
    return list(found)


def _with_classifier(prefix: str, names: Collection[str]) -> str:
    """Return the prefix without the root's own name where the layout has a classifier beside it."""
    for root, classifier in ROOTS.items():
        outer = prefix.removesuffix(root)
        if outer != prefix and f"{outer}{classifier}" in names:
            inside = {name.removeprefix(outer) for name in names if name.startswith(outer)}
            return outer if find_layout(inside) else prefix
    return prefix


def _completed(place: Place, places: Sequence[Place], held: Iterable[tuple[str, Mapping[str, Tensor]]]) -> Place:
    """Return the place with a last stage that stands elsewhere, and with the names that are beside it."""
    inner, beside = dict(place.tensors), {}
    for path, tensors in held:
        others = [other.prefix for other in places if other is not place and other.path == path]
        for name, value in tensors.items():
            own = path == place.path and name.startswith(place.prefix)
            if any(name.startswith(other) and (not own or len(other) > len(place.prefix)) for other in others):
                if own:
                    del inner[name.removeprefix(place.prefix)]
            elif not own:
                beside[(path + name).removeprefix(place.path)] = value
    for earlier, last in LAST_STAGES:
        if earlier not in inner or any(name.startswith(last) for name in inner):
            continue
        ends = {
            name.removesuffix(f"{last}0.conv1.weight") for name in beside if name.endswith(f".{last}0.conv1.weight")
        }
        if len(ends) == 1:
            head = ends.pop()
            stage = [name for name in beside if name.startswith(head + last)]
            inner |= {name.removeprefix(head): beside.pop(name) for name in stage}
    return replace(place, tensors=inner, beside=tuple(beside))


def choose(places: Sequence[Place], part: str | None, source: str) -> tuple[Place, tuple[str, ...]]:
    """Return the place to read, and the names of the copies of it that are not read.

    Args:
        part: the name of one, or keys of it that no other has. None: the only one, or the only one that is no copy.

    Raises:
        WeightsError: several, or none, are meant.
    """
    names = [place.name for place in places]
    if part is not None:
        wanted = part.strip(".")
        found = [place for place in places if place.name == wanted]
        found = found or [place for place in places if f".{wanted}." in f".{place.name}."]
        if len(found) != 1:
            what = "several networks have" if found else "no network has"
            raise WeightsError(f"{source}: {what} part {part!r}; it holds {_listed(names)}")
        return found[0], ()
    if len(places) == 1:
        return places[0], ()
    originals = [place for place in places if not COPY.search(place.name)] or list(places)
    outer = [place for place in originals if all(other.name.startswith(place.name) for other in originals)]
    if len(originals) > 1 and len(outer) == 1 and not outer[0].name:
        originals = outer
    if len(originals) > 1:
        raise WeightsError(
            f"{source}: holds {len(originals)} networks, {_listed([place.name for place in originals])}; "
            f"part={originals[-1].name!r} (--part) takes one of them"
        )
    return originals[0], tuple(name for name in names if name != originals[0].name)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(repr(name) if name else "one without a name before it" for name in names)


def part_extras(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """Part a network's tensors, by our names, from what others put on it: projection heads, prototypes, queues."""
    vgg = "features.0.weight" in tensors
    own = {
        name: value
        for name, value in tensors.items()
        if OWN.match(name) or name in ("fc.weight", "fc.bias") or (vgg and name.startswith("classifier."))
    }
    return own, [name for name in tensors if name not in own]
