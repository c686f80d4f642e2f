"""The checks of JSON text and of image files: every kind of fault is provoked."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from damage import (
    BAD_IMAGES,
    CHANGES,
    HEIGHT,
    TEXTS,
    WIDTH,
    errors,
    kinds,
    sound_data,
)

from backbone.common.errors import DataError
from detection.data import checks
from detection.data.checks import images as inspection

# Kinds with a test of their own.
ELSEWHERE = {"not-a-dict", "missing-folder", "unreadable-file", "cmyk-image"}


def as_cmyk(folder: Path) -> bytes:
    image = pytest.importorskip("PIL.Image", reason="Pillow writes the CMYK file")
    image.new("CMYK", (WIDTH, HEIGHT), (10, 200, 30, 40)).save(folder / "cmyk.jpg")
    return (folder / "cmyk.jpg").read_bytes()


@pytest.mark.parametrize(("kind", "content"), TEXTS)
def test_text_is_found(kind: str, content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.write_bytes(content)
    _, faults = checks.read_json(file)
    assert kinds(faults) == {kind}
    assert str(file) in faults[0].examples[0]


@pytest.mark.parametrize(("kind", "make"), BAD_IMAGES, ids=[f"{kind}-{i}" for i, (kind, _) in enumerate(BAD_IMAGES)])
def test_image_file_is_judged(kind: str, make: Callable[[], bytes], folder: Path, capfd: pytest.CaptureFixture) -> None:
    (folder / "3.jpg").write_bytes(make())
    data = sound_data()
    facts = checks.inspect_images(data, folder)
    faults = checks.check_images(data, facts)
    fault = next((fault for fault in faults if fault.kind == kind), None)
    assert fault is not None, faults
    assert "image 3 '3.jpg'" in fault.examples[0]
    assert not errors([other for other in faults if other is not fault])
    assert not errors(checks.mend(data, folder, source="a.json", facts=facts).left)
    assert capfd.readouterr().err == ""


def test_cmyk_is_noticed(folder: Path) -> None:
    (folder / "3.jpg").write_bytes(as_cmyk(folder))
    data = sound_data()
    assert kinds(checks.check_images(data, checks.inspect_images(data, folder))) == {"cmyk-image"}


def test_unreadable_file_is_named(monkeypatch: pytest.MonkeyPatch, sound_folder: Path) -> None:
    def refuse(path: Path) -> bytes:
        raise DataError(f"{path}: cannot be read: Permission denied")

    monkeypatch.setattr(inspection, "read_bytes", refuse)
    faults = checks.check_images(sound_data(), checks.inspect_images(sound_data(), sound_folder))
    assert kinds(faults) == {"unreadable-file"}
    assert faults[0].count == 6
    assert len(faults[0].examples) == 5


def test_every_kind_is_provoked() -> None:
    provoked = {kind for kind, _ in [*CHANGES, *TEXTS, *BAD_IMAGES]} | ELSEWHERE
    assert provoked == set(checks.KINDS)
