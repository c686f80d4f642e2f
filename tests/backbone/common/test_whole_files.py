"""Files that are written whole: what they hold, and who may read them."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

import backbone
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
