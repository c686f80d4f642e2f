"""What an export leaves on a disk: whole files or none, and nothing of the machine that it was made on."""

from __future__ import annotations

import contextlib
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import backbone
from backbone import RunError

KINDS = {
    "dynamo.onnx": {"exporter": "dynamo"},
    "torchscript.onnx": {"exporter": "torchscript"},
    "a.xml": {"exporter": "torchscript"},
    "a.pt2": {},
    "a.ts": {},
}
WEIGHTS = {f"a{suffix}": {} for suffix in (".pth", ".safetensors", ".pkl", ".npz")}


@contextlib.contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Let no file of this process grow beyond `size` bytes, as on a disk that is nearly full."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def export(path: Path, **keywords) -> None:
    network = backbone.create("cifar_resnet20").eval()
    backbone.export(network, path, input_size=(32, 32), **keywords)


@pytest.mark.parametrize(("name", "keywords"), [*KINDS.items(), *WEIGHTS.items()])
def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path, name, keywords):
    path = tmp_path / "new" / name
    with largest_file(400_000), pytest.raises(RunError) as caught:
        export(path, **keywords)
    assert str(caught.value).startswith(f"{path}: cannot be written: File too large")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("name", "keywords"), KINDS.items())
def test_no_path_of_this_machine_is_in_the_file(tmp_path, name, keywords):
    export(tmp_path / name, **keywords)
    folders = [Path(backbone.__file__).parents[1], Path(sys.prefix), Path(contextlib.__file__).parent, tmp_path]
    for path in tmp_path.iterdir():
        content = path.read_bytes()
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                content += b"\n".join(archive.read(entry) for entry in archive.namelist())
        assert not [folder for folder in folders if bytes(folder) in content]


def test_links_stay(tmp_path):
    """The main file and the one beside it are links to another folder, which holds a former export."""
    store = tmp_path / "store"
    for name in ("a.xml", "a.bin"):
        (tmp_path / name).symlink_to(store / name)
    store.mkdir()
    for _ in range(2):
        export(tmp_path / "a.xml", exporter="torchscript")
        assert all((tmp_path / name).is_symlink() for name in ("a.xml", "a.bin"))
        assert sorted(path.name for path in store.iterdir()) == ["a.bin", "a.xml"]
    assert (store / "a.bin").stat().st_size > 10**6
