"""What --resume accepts and refuses: paths, classes, damaged checkpoints; and what a kill leaves."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from backbone.common.errors import ConfigError, DataError, RunError
from backbone.common.files import remove_leftovers
from backbone.engine import checkpoint, joining, session
from backbone.engine.config import dump
from backbone.engine.record import CONFIG, MetricsFile, read_metrics
from backbone.engine.resume import _inside, check_classes, check_unchanged, checkpoint_to_resume
from backbone.engine.session import Request


def save(folder: Path, *iterations: int) -> list[Path]:
    for iteration in iterations:
        content = {"model": {"weight": torch.arange(1000.0)}, "metadata": {"classes": ["cat", "dog"]}}
        checkpoint.save_numbered(folder, iteration, {**content, "iteration": iteration}, keep=9)
    return [path for _, path in checkpoint.numbered(folder)]


def flip(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 16
    path.write_bytes(bytes(content))


class Config(dict):
    __getattr__ = dict.__getitem__


def request(folder: Path, **more: bool) -> Request:
    return Request(Config(OUTPUT_DIR=str(folder)), resume=True, **more)


@pytest.mark.parametrize("place", [0.2, 0.5, 0.8])
def test_a_damaged_checkpoint_is_passed_over(tmp_path, place):
    first, second = save(tmp_path, 2, 4)
    assert checkpoint.is_whole(second)
    flip(second, int(place * second.stat().st_size))
    saved, notes = checkpoint_to_resume(request(tmp_path), {}, (), ["cat", "dog"], {})
    assert saved == first and notes[0].startswith("model_0000004.pth: damaged")
    checkpoint.set_aside(tmp_path, 2)
    assert checkpoint.newest(tmp_path) == first and (tmp_path / "model_0000004.pth.damaged").is_file()
    flip(first, int(place * first.stat().st_size))
    with pytest.raises(RunError, match="every checkpoint are damaged"):
        checkpoint_to_resume(request(tmp_path), {}, (), ["cat", "dog"], {})


def test_other_classes_are_named(tmp_path):
    (path,) = save(tmp_path, 2)
    assert check_classes(path, ["cat", "dog"], force=False) == []
    with pytest.raises(DataError, match="'dog' is 'cow' now; --force"):
        check_classes(path, ["cat", "cow"], force=False)
    assert "'cat' is 'dog' now, 'dog' is 'cat' now" in check_classes(path, ["dog", "cat"], force=True)[0]
    with pytest.raises(DataError, match="has learned 2 classes, the data has 1"):
        check_classes(path, ["cat"], force=True)


def test_another_spelling_of_a_path_is_no_change(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.pth").touch()
    (tmp_path / "link.pth").symlink_to("a.pth")
    (tmp_path / CONFIG).write_text(dump({"WEIGHTS": "a.pth", "FILES": ["a.pth"], "NAME": "a"}))
    for spelling in ("./a.pth", str(tmp_path / "a.pth"), "link.pth", f"../{tmp_path.name}/a.pth"):
        now = {"WEIGHTS": spelling, "FILES": [spelling], "NAME": "a"}
        assert check_unchanged(now, tmp_path, (), {}, force=False) == []
    with pytest.raises(ConfigError, match="since the run began: NAME, WEIGHTS;"):
        check_unchanged({"WEIGHTS": "b.pth", "FILES": ["a.pth"], "NAME": "b"}, tmp_path, (), {}, force=False)


def test_keys_of_a_newer_version_pass_at_their_defaults(tmp_path):
    (tmp_path / CONFIG).write_text(dump({"SOLVER": {"LR": 0.1}}))
    defaults = {"SOLVER": {"LR": 0.2, "CLIP": 0.0}, "LOGGERS": ["a"]}
    now = {"SOLVER": {"LR": 0.1, "CLIP": 0.0}, "LOGGERS": ["a"]}
    (note,) = check_unchanged(now, tmp_path, (), defaults, force=False)
    assert note == "keys that the run's version did not have, at their defaults: SOLVER.CLIP, LOGGERS"
    now["SOLVER"]["CLIP"] = 1.0
    with pytest.raises(ConfigError, match="since the run began: SOLVER.CLIP; --force"):
        check_unchanged(now, tmp_path, (), defaults, force=False)


def test_folders_are_told_apart_by_their_checkpoints(tmp_path):
    for name, value in (("a", 1), ("b", 1), ("c", 2)):
        checkpoint.save(tmp_path / name / "model_0000002.pth", {"model": {"weight": torch.tensor(float(value))}})
    a, b, c = (_inside(tmp_path / name) for name in "abc")
    assert a == b != c and _inside(tmp_path / "nowhere") == []


def test_an_evaluation_that_is_done_again_stands_once(tmp_path):
    metrics = MetricsFile(tmp_path, after=0)
    for iteration, key in ((2, "total_loss"), (2, "bbox/AP"), (3, "total_loss")):
        metrics.scalars({key: 1.0}, iteration)
    MetricsFile(tmp_path, after=2, evaluated=True)
    assert len(read_metrics(tmp_path / "metrics.jsonl")) == 2
    MetricsFile(tmp_path, after=2, evaluated=False)
    assert read_metrics(tmp_path / "metrics.jsonl") == [{"iteration": 2, "total_loss": 1.0}]


def test_temporary_files_below_are_removed_too(tmp_path):
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / ".a.png.12.tmp").touch()
    remove_leftovers(tmp_path)
    assert not list((tmp_path / "pictures").iterdir())


def started_by(monkeypatch, *torchruns: str) -> None:
    places = [{"host": "here", "address": "", "launcher": name} for name in torchruns]
    monkeypatch.setattr(joining, "_roll", joining.Roll(None, None, 0, False, places))
    monkeypatch.setattr(session, "by_torchrun", lambda: True)


def train_once(folder: Path, **flags: bool) -> Request:
    """Return the request as the processes take it, once they have opened the run folder."""
    taken = []
    session._train(taken.append, Request(Config(OUTPUT_DIR=str(folder)), **flags))
    session.open_folder(taken[0], {}, "plan")
    return taken[0]


@pytest.mark.parametrize("flags", [{}, {"resume": True}, {"overwrite": True}])
@pytest.mark.parametrize("lost", [0, 1], ids=["process 0's machine", "process 1's machine"])
def test_a_machine_that_is_started_again_goes_on_with_the_run(tmp_path, monkeypatch, flags, lost):
    started_by(monkeypatch, "a", "b")
    train_once(tmp_path, **flags)
    # One after the other goes and comes back as another torchrun; the one that stays knows the run.
    for names in (["c", "b"] if lost == 0 else ["a", "c"], ["d", "c"]):
        save(tmp_path, 2)
        started_by(monkeypatch, *names)
        taken = train_once(tmp_path, **flags)
        assert taken.resume and not taken.overwrite and checkpoint.newest(tmp_path) is not None


@pytest.mark.parametrize("names", [["c", "d"], [""]], ids=["other torchruns", "no torchrun"])
@pytest.mark.parametrize("content", [None, "[", "7"])
def test_other_torchruns_need_a_word_to_go_on(tmp_path, monkeypatch, names, content):
    started_by(monkeypatch, "a", "b")
    train_once(tmp_path)
    if content:
        (tmp_path / session.LAUNCHERS).write_text(content)
        names = ["a", "b"]
    started_by(monkeypatch, *names)
    with pytest.raises(RunError, match="holds a run already; --resume"):
        train_once(tmp_path)
    assert train_once(tmp_path, overwrite=True).overwrite


def test_a_torchrun_keeps_its_name(monkeypatch):
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    assert joining._launcher() == ""
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "job")
    name = joining._launcher()
    assert joining._launcher() == name
    monkeypatch.setattr(os, "getppid", os.getpid)
    other = joining._launcher()
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "another")
    assert len({name, other, joining._launcher()}) == 3
