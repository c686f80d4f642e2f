"""The weights that a run starts from, and what they ask of its config: preprocessing, stem, strides, pooling."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from ..common.errors import ConfigError
from ..networks import Architecture
from ..weights import WeightMetadata, WeightsFile, find_state_dict, interpret, read_file
from ..weights.identify import shortcut_of
from ..weights.weight_metadata import stride_doubt
from .config import fit, get, parse_yaml, put, read_yaml
from .kinds import task_in
from .record import CONFIG

PIXEL_KEYS = ("MODEL.PIXEL_MEAN", "MODEL.PIXEL_STD")
# What DistributedDataParallel puts before every name.
PARALLEL = "module."
IMAGE_KEYS = ("INPUT.FORMAT", *PIXEL_KEYS)


@dataclass(frozen=True)
class WeightKeys:
    """The keys that belong to weights: a network trained with one value computes something else with another.

    Attributes:
        flags: the config's key of each keyword of `backbone.create`.
        stem: the key of the stem, "deep" or "conv7".
        architecture: returns the table's entry of the config's network.
        matters: whether the config's network heeds a key, beside what follows from its architecture.
        whole: further keys that whole models bring with them; the command line's values win.
    """

    flags: Mapping[str, str]
    stem: str
    architecture: Callable[[Any], Architecture]
    matters: Callable[[Any, str], bool] = lambda config, key: True
    whole: tuple[str, ...] = ()

    @property
    def all(self) -> tuple[str, ...]:
        return (*IMAGE_KEYS, *self.flags.values(), self.stem)

    def of_backbone(self, weight_metadata: WeightMetadata, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
        """Return the keys that a backbone's weights ask for, with their values."""
        wanted: dict[str, Any] = {}
        if weight_metadata.preprocessing is not None:
            numbers = weight_metadata.preprocessing.converted(value_range=255)
            wanted |= dict(zip(IMAGE_KEYS, (numbers.channel_order, list(numbers.mean), list(numbers.std))))
        known = weight_metadata.keywords()
        if any(name.startswith("layer2.") for name in tensors):
            known["shortcut"] = shortcut_of(tensors)
        wanted |= {self.flags[name]: value for name, value in known.items() if name in self.flags}
        if any(name.startswith("conv1.") for name in tensors):
            wanted[self.stem] = "deep" if "conv1.0.weight" in tensors else "conv7"
        return wanted

    def of_checkpoint(self, content: Mapping[str, Any], source: str) -> dict[str, Any]:
        """Return the keys of a checkpoint that its own config has; {} where it carries none."""
        text = content.get("config")
        return self._of_config(parse_yaml(text, f"{source}, its config")) if isinstance(text, str) else {}

    def of_run(self, folder: Path) -> dict[str, Any]:
        """Return the keys as they were resolved when the run in `folder` began from weights."""
        path = folder / CONFIG
        values = read_yaml(path) if path.is_file() else {}
        return self._of_config(values) if (values.get("MODEL") or {}).get("WEIGHTS") else {}

    def _of_config(self, values: Mapping[str, Any]) -> dict[str, Any]:
        found = {}
        for key in (*self.all, *self.whole):
            try:
                found[key] = get(values, key)
            except (KeyError, TypeError):
                continue
        return found

    def resolve(
        self, config: Any, wanted: Mapping[str, Any], source: str, given: Collection[str], *, assumed: bool = False
    ) -> tuple[Any, list[str]]:
        """Set the config to what weights ask for.

        Args:
            wanted: config keys and values.
            given: keys of the command line; they are checked, not changed.
            assumed: the preprocessing is only the one usual for such weights; the config's is kept, with a note.

        Returns:
            The frozen config, and what was set or noticed, a line each.

        Raises:
            ConfigError: a key of the command line has another value than the weights ask for, or the weights ask for
                a value of another kind than the key's.
        """
        # What a checkpoint's own config says may be anything.
        wanted = {
            key: fit(value, get(config, key), key, source)
            for key, value in wanted.items()
            if _has(config, key) and not (key in self.whole and key in given)
        }
        different = {
            key: value
            for key, value in wanted.items()
            if self._heeds(config, key) and not self._same(config, key, value)
        }
        notes = []
        if assumed:
            kept = [key for key in different if key in IMAGE_KEYS]
            for key in kept:
                notes.append(f"{key} {get(config, key)} kept; weights of this layout usually want {different.pop(key)}")
            stride = self.flags["stride_in_1x1"]
            if stride not in (*wanted, *given) and get(config, stride) and self._heeds(config, stride):
                notes.append(stride_doubt(stride))
        for key, value in different.items():
            if key in given:
                raise ConfigError(
                    f"{key} is {get(config, key)} on the command line, but the weights in {source} are of a network "
                    f"with {_show(value)}; leave the key out, the weights decide"
                )
        if not different:
            return config, notes
        resolved = config.clone()
        resolved.defrost()
        for key, value in different.items():
            put(resolved, key, value)
        resolved.freeze()
        shown = ", ".join(f"{key} {_show(get(config, key))} -> {_show(value)}" for key, value in different.items())
        return resolved, [f"set as the weights ask: {shown}", *notes]

    def _heeds(self, config: Any, key: str) -> bool:
        """Blocks of two 3x3 convolutions have no 1x1 for a stride, plain nets no shortcuts."""
        table = self.architecture(config)
        if key == self.flags["stride_in_1x1"]:
            return table.block == "bottleneck"
        return (table.shortcut is not None or key != self.flags["shortcut"]) and self.matters(config, key)

    def _same(self, config: Any, key: str, value: Any) -> bool:
        """Whether the config's value is `value`; "" stands for the network's own option of its shortcuts."""
        if key == self.flags["shortcut"]:
            own = self.architecture(config).shortcut
            return (get(config, key) or own) == (value or own)
        return _same(key, get(config, key), value)


@dataclass(frozen=True)
class StartingWeights:
    """The file that a training starts from, or that is tested.

    Attributes:
        whole: it holds a whole model with its heads, not only a backbone.
        tensors: by our names.
        wants: config keys that the weights ask for.
        classes: names of what the whole model was trained on; [] where it does not say.
        file: of a backbone, all that is known of it.
        metadata: of a whole model, what its checkpoint says of it.
        usual: `wants` are only the defaults of the project that the file is of; the command line's values win.
        notes: what was decided in reading it, a line each.
        task: that a checkpoint of ours is of, where it is not a whole model of the task that reads it.
        project: whose whole model it is; "" for one of ours.
    """

    source: str
    whole: bool
    tensors: dict[str, Tensor]
    wants: dict[str, Any] = field(default_factory=dict)
    classes: list[str] = field(default_factory=list)
    file: WeightsFile | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    usual: bool = False
    notes: list[str] = field(default_factory=list)
    task: str = ""
    project: str = ""

    def wanted(self, given: Collection[str]) -> dict[str, Any]:
        """Return the keys that the weights ask for, where those of the command line, `given`, are not to win."""
        return {key: value for key, value in self.wants.items() if not (self.usual and key in given)}

    @property
    def assumed(self) -> bool:
        """Whether the preprocessing among `wants` is only the usual one of such a file."""
        preprocessing = self.file.weight_metadata.preprocessing if self.file is not None else None
        return preprocessing is not None and preprocessing.assumed

    @property
    def holds(self) -> str:
        """What a file without a whole model is, in words."""
        return f"is a network for {self.task}" if self.task else "holds a backbone only"

    @property
    def says(self) -> str:
        """Kind and layout of a backbone's file, in words; each ends with a comma."""
        return f"{self.file.kind} file, {self.file.layout} layout, " if self.file and self.file.layout else ""

    @property
    def leaves(self) -> str:
        """What of a backbone's file is left out, in words that follow a semicolon; "" for nothing."""
        return "".join(f"; {note}" for note in self.file.notes()) if self.file else ""


def open_starting_weights(
    path: str,
    keys: WeightKeys,
    is_whole: Callable[[Mapping[str, Tensor]], bool],
    part: str = "",
    of_others: Callable[[Any, Mapping[str, Tensor], str], StartingWeights | None] | None = None,
    read: tuple[Any, Mapping[str, str]] | None = None,
) -> StartingWeights:
    """Read a whole model's checkpoint, or a backbone's weights of any kind and layout.

    Args:
        is_whole: whether tensors of these names are a whole model's.
        part: which of several networks in the file, MODEL.WEIGHTS_PART; "" for the only one, or a whole model.
        of_others: makes starting weights of another project's whole model, of content, tensors and path; or None.
        read: what `read_file` returned for `path`, where it is read already.

    Raises:
        WeightsError: it cannot be read, or holds no named tensors.
    """
    content, text = read_file(path) if read is None else read
    tensors = find_state_dict(content, path)
    if all(name.startswith(PARALLEL) for name in tensors):
        tensors = {name.removeprefix(PARALLEL): value for name, value in tensors.items()}
    others = of_others(content, tensors, path) if of_others is not None and not part else None
    if others is not None:
        return others
    if not part and is_whole(tensors):
        classes, metadata = classes_in(content)
        return StartingWeights(path, True, tensors, keys.of_checkpoint(content, path), classes, metadata=metadata)
    file = interpret(content, text, path, part=part or None)
    wants = keys.of_backbone(file.weight_metadata, file.tensors)
    return StartingWeights(path, False, file.tensors, wants, file=file, task=task_in(content))


def classes_in(content: Mapping[str, Any]) -> tuple[list[str], dict[str, Any]]:
    """Return the names of a checkpoint's classes, and all of its metadata; [] and {} where it has none."""
    metadata = content.get("metadata")
    metadata = dict(metadata) if isinstance(metadata, Mapping) else {}
    classes = metadata.get("classes")
    return [str(name) for name in classes] if isinstance(classes, (list, tuple)) else [], metadata


def _has(config: Any, key: str) -> bool:
    try:
        get(config, key)
    except KeyError:
        return False
    return True


def _same(key: str, a: Any, b: Any) -> bool:
    if key in PIXEL_KEYS:
        return len(a) == len(b) and all(abs(x - y) < 0.01 for x, y in zip(a, b))
    return a == b


def _show(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return str([round(x, 3) if isinstance(x, float) else x for x in value])
    return str(value) or "''"
