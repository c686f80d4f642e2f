"""tools/check_data.py, as a user runs it."""

from __future__ import annotations

import json
import runpy
import sys
from collections.abc import Callable, Iterator
from math import nan
from pathlib import Path

import pytest
from damage import (
    REPOSITORY,
    SHARED_DATA,
    first,
    jpeg,
    sound_data,
)

TOOL = REPOSITORY / "tools" / "check_data.py"


@pytest.fixture
def tool(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture) -> Iterator[Callable]:
    """Runs the command line; returns its status, standard output and standard error."""

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", [str(TOOL), *map(str, arguments)])
        with pytest.raises(SystemExit) as exit:
            runpy.run_path(str(TOOL), run_name="__main__")
        return exit.value.code, *capfd.readouterr()

    return call


def damaged(tmp_path: Path, folder: Path) -> Path:
    data = sound_data()
    first(data, bbox=[nan, 0, 1, 1])
    data["annotations"][1].pop("iscrowd")
    (folder / "3.jpg").write_bytes(jpeg()[:-20])
    (folder / "4.jpg").unlink()
    (tmp_path / "a.json").write_text(json.dumps(data))
    return tmp_path / "a.json"


def test_tool_reports_everything_at_once(tool: Callable, tmp_path: Path, folder: Path) -> None:
    file = damaged(tmp_path, folder)
    status, out, err = tool("--json", file, "--images", folder, "--report", tmp_path / "report.json")
    assert (status, err) == (2, "")
    for kind in ("nan-box", "nan-literal", "missing-file", "truncated-image", "missing-iscrowd"):
        assert f" {kind}: 1" in out
    assert "6 images, 7 annotations, 3 categories" in out.splitlines()[0]
    assert out.splitlines()[-1].startswith("verdict: NOT fit for use: 3 errors")
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["fit"] is False
    assert report["counts"] == {"images": 6, "annotations": 7, "categories": 3}
    assert report["faults"][0]["examples"]


def test_tool_without_decoding(tool: Callable, tmp_path: Path, folder: Path) -> None:
    status, out, _ = tool("--json", damaged(tmp_path, folder), "--images", folder, "--quick")
    assert status == 2
    assert "truncated-image" not in out


def test_tool_mends(tool: Callable, tmp_path: Path, folder: Path) -> None:
    file = damaged(tmp_path, folder)
    before = file.read_bytes()
    status, out, err = tool("--json", file, "--images", folder, "--fix", tmp_path / "out.json")
    assert (status, err) == (0, "")
    assert "images dropped: truncated-image: 1" in out
    assert out.splitlines()[-1].startswith("verdict on the mended copy: fit for use: 0 errors")
    assert file.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.json", "images", "out.json"]
    assert tool("--json", tmp_path / "out.json", "--images", folder)[0] == 0


def test_tool_never_writes_over_the_input(tool: Callable, tmp_path: Path, folder: Path) -> None:
    file = damaged(tmp_path, folder)
    link = tmp_path / "link.json"
    link.symlink_to(file)
    for flag in ("--fix", "--report"):
        for same in (file, link, tmp_path / "images" / ".." / "a.json"):
            status, _, err = tool("--json", file, "--images", folder, flag, same)
            assert status == 2
            assert "this is the input" in err
            assert err.count("\n") == 1


def test_tool_says_what_cannot_be_mended(tool: Callable, tmp_path: Path, folder: Path) -> None:
    (tmp_path / "a.json").write_text('{"images": [')
    status, out, err = tool("--json", tmp_path / "a.json", "--images", folder, "--fix", tmp_path / "out.json")
    assert status == 2
    assert "error truncated-json: 1" in out
    assert "Traceback" not in err
    assert not (tmp_path / "out.json").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("--json", "a.json"),
        ("--data-root", "x"),
        ("--json", "a", "--images", "b", "--dataset", "c"),
        ("--jsn", "a"),
    ],
)
def test_tool_refuses_wrong_usage(tool: Callable, arguments: tuple) -> None:
    status, _, err = tool(*arguments)
    assert status == 2
    assert err.count("\n") == 1


def test_tool_finds_a_known_set(tool: Callable) -> None:
    if not (SHARED_DATA / "coco").exists():
        pytest.skip(f"{SHARED_DATA / 'coco'} is not there; SHARED_DATA names the folder of shared data")
    status, out, _ = tool("--data-root", SHARED_DATA, "--dataset", "coco_2017_val")
    assert status == 0
    assert "50 images, 382 annotations, 80 categories" in out
