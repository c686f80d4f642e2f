"""Checkpoints that hold objects beside their tensors: the tensors are read, the objects are never made."""

from __future__ import annotations

import argparse
import collections
import datetime
import decimal
import enum
import functools
import pathlib
import pickle
import uuid
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from backbone.common.errors import WeightsError
from backbone.weights import find_state_dict, open_weights, read_file

made: list[str] = []


class HistoryBuffer:
    """As MMEngine's: its state holds arrays, and its own functions, which protocol 2 spells with `getattr`."""

    def __init__(self) -> None:
        made.append("HistoryBuffer")
        self._log_history = np.arange(4.0)

    def mean(self) -> float:
        return float(self._log_history.mean())

    def __setstate__(self, state: dict) -> None:
        made.append("set")
        self.__dict__.update(state)

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_statistics_methods": {"mean": HistoryBuffer.mean}}


class AttributeDict(dict):
    """As Lightning's hyper_parameters."""


class Kind(enum.Enum):
    A = 1


class Reduced:
    """Made by a call of its class, as many libraries' objects are."""

    def __init__(self, value: object) -> None:
        made.append("Reduced")
        self.value = value

    def __reduce__(self) -> tuple:
        return Reduced, (self.value,)


def train_one_epoch() -> None:
    made.append("train_one_epoch")


OBJECTS = {
    "args": argparse.Namespace(lr=0.1, data=pathlib.Path("/data"), when=datetime.datetime(2024, 1, 2), func=len),
    "message_hub": {"log_scalars": {"loss": HistoryBuffer()}},
    "hyper_parameters": AttributeDict(lr=1e-3, milestones=[1, 2], kind=Kind.A, module=nn.Linear(2, 2), act=nn.ReLU),
    "best": np.float64(76.1),
    "seed": np.int64(3),
    "array": np.arange(6, dtype=np.int32).reshape(2, 3),
    "took": datetime.timedelta(seconds=3),
    "zone": datetime.timezone.utc,
    "queue": collections.deque([1, 2], maxlen=3),
    "default": collections.defaultdict(list, {"a": [1]}),
    "counter": collections.Counter("aab"),
    "set": {1, 2},
    "id": uuid.UUID(int=3),
    "decimal": decimal.Decimal("1.5"),
    "reduced": Reduced(np.float32(1)),
    "partial": functools.partial(HistoryBuffer, 1),
    "hook": train_one_epoch,
    "random": np.random.RandomState(0),
    "dtype": torch.float16,
    "size": torch.Size([2, 3]),
    "device": torch.device("cpu"),
}
OBJECTS["args"].func = train_one_epoch


def archive(content: object, path: pathlib.Path) -> None:
    torch.save(content, path)


def archive_of_protocol_4(content: object, path: pathlib.Path) -> None:
    torch.save(content, path, pickle_protocol=4)


def legacy(content: object, path: pathlib.Path) -> None:
    torch.save(content, path, _use_new_zipfile_serialization=False)


def tensors() -> dict[str, torch.Tensor]:
    base = torch.randn(6, 4)
    return {
        "conv1.weight": torch.randn(4, 3, 3, 3),
        "turned": base.t(),
        "part": base[2:4],
        "half": torch.randn(3).half(),
        "brain": torch.randn(3).bfloat16(),
        "count": torch.tensor(7),
        "empty": torch.zeros(0, 2),
        "parameter": nn.Parameter(torch.randn(2)),
    }


@pytest.mark.parametrize("write", [archive, archive_of_protocol_4, legacy])
def test_tensors_beside_objects_are_read(tmp_path, write: Callable):
    truth = tensors()
    write({"state_dict": truth, **OBJECTS}, tmp_path / "a.pth")
    made.clear()
    content = read_file(tmp_path / "a.pth")[0]
    found = find_state_dict(content, "a")
    assert found.keys() == truth.keys()
    for name, value in truth.items():
        assert found[name].dtype == value.dtype and torch.equal(found[name], value), name
    assert float(content["best"]) == 76.1 and content["array"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert content["dtype"] is torch.float16
    assert made == [] and not isinstance(content["args"], argparse.Namespace)
    with pytest.raises(pickle.UnpicklingError):
        content["args"]()


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickles_of_every_protocol_hold_objects_too(tmp_path, protocol):
    """Protocols 0 and 1 begin with no mark of their own, and spell objects with copyreg."""
    arrays = {
        "conv1.weight": np.linspace(0, 1, 12, dtype=np.float32).reshape(4, 3),
        "count": np.array(3),
        "none": np.zeros((0, 2)),
    }
    objects = {"args": OBJECTS["args"], "hub": OBJECTS["message_hub"], "step": np.float32(2), "blob": Reduced(1)}
    for number, content in enumerate(
        ({"model": arrays, **objects}, collections.OrderedDict(model=collections.OrderedDict(arrays), **objects))
    ):
        path = tmp_path / f"{number}.pkl"
        path.write_bytes(pickle.dumps(content, protocol))
        made.clear()
        found = find_state_dict(read_file(path)[0], str(path))
        assert {name: value.tolist() for name, value in found.items()} == {
            name: value.tolist() for name, value in arrays.items()
        }
        assert made == []


@pytest.mark.parametrize("write", [archive, legacy])
@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("torch.hub", "load"), ("torch", "load"), ("torch.utils.cpp_extension", "load"), ("numpy", "load"),
        ("subprocess", "Popen"), ("os", "system"), ("posix", "system"), ("builtins", "eval"), ("ctypes", "CDLL"),
        ("runpy", "run_path"), ("importlib", "import_module"), ("types", "CodeType"), ("code", "InteractiveConsole"),
        ("pathlib", "os.system"), ("collections", "OrderedDict.__reduce__"), ("__main__", "train"), ("pip", "main"),
    ],
)  # fmt: skip
def test_functions_are_refused(tmp_path, write, module, name):
    """The name as protocol 2 has it, called: torch's writer is given it through a stand-in of the same length."""

    class Call:
        def __reduce__(self):
            return os_stand_in, ("x",)

    write({"state_dict": {"weight": torch.ones(2)}, "extra": Call()}, tmp_path / "a.pth")
    data = (tmp_path / "a.pth").read_bytes()
    old = f"c{__name__}\nos_stand_in\n".encode()
    assert old in data
    if write is legacy:
        (tmp_path / "a.pth").write_bytes(data.replace(old, f"c{module}\n{name}\n".encode()))
    else:
        import zipfile

        with zipfile.ZipFile(tmp_path / "a.pth") as source, zipfile.ZipFile(tmp_path / "b.pth", "w") as target:
            for entry in source.namelist():
                target.writestr(entry, source.read(entry).replace(old, f"c{module}\n{name}\n".encode()))
        (tmp_path / "b.pth").rename(tmp_path / "a.pth")
    with pytest.raises(WeightsError, match=f"refused, it holds more than .* {module}.{name}".replace(".", r"\.", 0)):
        read_file(tmp_path / "a.pth")


def os_stand_in(_: str) -> None:
    raise AssertionError("it was called")


@pytest.mark.parametrize("write", [archive, legacy])
@pytest.mark.parametrize("wrap", [lambda module: module, lambda module: {"model": module, "epoch": 3}])
def test_whole_modules_are_refused_with_advice(tmp_path, write, wrap):
    write(wrap(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))), tmp_path / "a.pth")
    with pytest.raises(WeightsError, match=r"module \(torch.nn.modules.container.Sequential\).*state_dict"):
        open_weights(tmp_path / "a.pth")


def test_an_archive_that_names_a_storage_of_another_size(tmp_path):
    """A tensor larger than its storage is no way to gigabytes."""
    weight = torch.ones(2)
    archive({"weight": weight, "args": argparse.Namespace()}, tmp_path / "a.pth")
    data = (tmp_path / "a.pth").read_bytes()
    assert data.count(b"K\x00K\x02\x85") == 1
    import zipfile

    with zipfile.ZipFile(tmp_path / "a.pth") as source, zipfile.ZipFile(tmp_path / "b.pth", "w") as target:
        for entry in source.namelist():
            target.writestr(entry, source.read(entry).replace(b"K\x00K\x02\x85", b"K\x00K\xf2\x85"))
    with pytest.raises(WeightsError, match="cannot be read as a torch file"):
        read_file(tmp_path / "b.pth")


class ForgedDtype:
    """A dtype of objects whose state says that it has none: numpy would take bytes of the file for their addresses."""

    def __reduce__(self) -> tuple:
        return np.dtype, ("V8", False, True), (3, "|", None, ("a",), {"a": (np.dtype("O"), 0)}, 8, 1, 0)


@pytest.mark.parametrize(
    "reduced",
    [
        (np.float64(0).__reduce__()[0], (ForgedDtype(), b"\1" * 8)),
        (np.zeros(1).__reduce__()[0], (np.ndarray, (0,), b"b"), (1, (1,), ForgedDtype(), False, b"\1" * 8)),
        (np.zeros(1).__reduce_ex__(5)[0], (b"\1" * 8, ForgedDtype(), (1,), "C")),
    ],
)
def test_bytes_of_a_file_are_no_addresses(tmp_path, reduced):
    class Forged:
        def __reduce__(self) -> tuple:
            return reduced

    (tmp_path / "a.pkl").write_bytes(pickle.dumps({"model": {"a": np.ones(2)}, "backbone_metadata": Forged()}, 4))
    content = read_file(tmp_path / "a.pkl")[0]
    found = content["backbone_metadata"]
    assert content["model"]["a"].tolist() == [1, 1] and (not hasattr(found, "__len__") or len(found) == 0)
