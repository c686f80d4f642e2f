"""Files that are written whole: what they hold, and who may read them."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

import backbone
from backbone import RunError
from backbone.common.files import write_text, write_whole


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture(params=[0o022, 0o077, 0o002])
def umask(request) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".npz", ".pkl"])
def test_weights_get_the_mode_of_a_new_file(suffix, umask, tmp_path):
    path = tmp_path / f"a{suffix}"
    backbone.save_weights(backbone.create("cifar_resnet20"), path)
    assert mode_of(path) == 0o666 & ~umask


def test_a_writer_that_replaces_the_file_is_followed(umask, tmp_path):
    def write(temporary: Path) -> None:
        temporary.unlink()
        os.close(os.open(temporary, os.O_CREAT | os.O_WRONLY, 0o600))
        temporary.write_text("new")

    write_text(tmp_path / "a", "old")
    write_whole(tmp_path / "a", write)
    assert (tmp_path / "a").read_text() == "new" and mode_of(tmp_path / "a") == 0o666 & ~umask
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_writer_that_fails_leaves_the_former_file(tmp_path):
    def write(temporary: Path) -> None:
        temporary.write_text("half")
        raise ValueError("no more")

    write_text(tmp_path / "a", "old")
    with pytest.raises(ValueError, match="no more"):
        write_whole(tmp_path / "a", write)
    assert (tmp_path / "a").read_text() == "old" and len(list(tmp_path.iterdir())) == 1


def test_a_link_stays_and_its_target_is_written(tmp_path):
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    for name in ("there", "missing"):
        (tmp_path / name).symlink_to(folder / name)
        (tmp_path / f"{name}_twice").symlink_to(name)
    (folder / "there").write_text("old")
    for link in ("there", "missing", "there_twice", "missing_twice"):
        write_text(tmp_path / link, f"new {link}")
        assert (tmp_path / link).is_symlink()
        target = folder / link.removesuffix("_twice")
        assert target.read_text() == f"new {link}" and not target.is_symlink()
    assert sorted(path.name for path in folder.iterdir()) == ["missing", "there"]
    (tmp_path / "circle").symlink_to("circle")
    with pytest.raises(RunError, match="circle: cannot be written: Too many levels"):
        write_text(tmp_path / "circle", "new")


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="no terminals here")
def test_a_device_is_written_not_replaced():
    ours, its = os.openpty()
    try:
        write_text(os.ttyname(its), "new")
        assert os.read(ours, 100) == b"new" and stat.S_ISCHR(os.stat(os.ttyname(its)).st_mode)
    finally:
        os.close(ours)
        os.close(its)


def test_a_pipe_is_written_not_replaced(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(RunError, match="pipe: cannot be written: this pipe has no reader"):
        write_text(pipe, "new")
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        write_text(pipe, "new")
        assert os.read(reader, 100) == b"new" and stat.S_ISFIFO(pipe.stat().st_mode)
    finally:
        os.close(reader)


def test_an_open_file_is_written_not_replaced(tmp_path):
    """As with --json /dev/stdout > file: what is printed before and afterwards comes into the same file."""
    with (tmp_path / "printed").open("a") as file:
        file.write("before, ")
        file.flush()
        write_text(f"/dev/fd/{file.fileno()}", "figures, ")
        file.write("after")
    assert (tmp_path / "printed").read_text() == "before, figures, after"
    assert [path.name for path in tmp_path.iterdir()] == ["printed"]


def test_a_name_of_the_longest_length(tmp_path):
    write_text(tmp_path / ("a" * 250 + ".json"), "new")
    assert [len(path.name) for path in tmp_path.iterdir()] == [255]
    with pytest.raises(RunError, match="cannot be written: File name too long"):
        write_text(tmp_path / ("a" * 300), "new")
