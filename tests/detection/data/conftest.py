"""What the tests of the checks share: a folder of sound images."""

from __future__ import annotations

from pathlib import Path

import pytest
from damage import jpeg


@pytest.fixture(scope="session")
def sound_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of `sound_data`; not to be written to."""
    folder = tmp_path_factory.mktemp("images")
    for id in range(1, 7):
        (folder / f"{id}.jpg").write_bytes(jpeg(seed=id))
    return folder


@pytest.fixture
def folder(tmp_path: Path, sound_folder: Path) -> Path:
    """A copy of the files that a test may write to."""
    (tmp_path / "images").mkdir()
    for file in sound_folder.iterdir():
        (tmp_path / "images" / file.name).write_bytes(file.read_bytes())
    return tmp_path / "images"
