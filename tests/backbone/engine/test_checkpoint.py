"""Checkpoints: whole or not there, the newest kept, nothing in them run; and what a disk that is full leaves behind."""

from __future__ import annotations

import errno
import logging
import os
import random
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from hostile import PAYLOADS, WRITERS, write_hostile

from backbone.common.errors import RunError, WeightsError
from backbone.common.files import remove_leftovers, write_json, write_text, write_whole
from backbone.engine import checkpoint
from backbone.engine.record import LOGGER, METRICS, Events, MetricsFile, read_metrics, start_logging

FULL = Path("/dev/full")
needs_full_device = pytest.mark.skipif(not FULL.exists(), reason="needs /dev/full, a device that is always full")


def content(value: float = 1.0, size: int = 1000) -> dict[str, object]:
    return {"model": {"weight": torch.full((size,), value)}, "iteration": 3}


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def fill_up(path: Path) -> None:
    """Let the next `write_whole` of this process to `path` find the disk full."""
    path.with_name(f".{path.name}.{os.getpid()}.tmp").symlink_to(FULL)


# -- whole or not there


def test_round_trip(tmp_path):
    checkpoint.save(tmp_path / "new" / "model.pth", content())
    loaded = checkpoint.load(tmp_path / "new" / "model.pth")
    assert loaded["iteration"] == 3
    assert torch.equal(loaded["model"]["weight"], torch.ones(1000))
    assert names(tmp_path / "new") == ["model.pth"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"model": [1]},
        {"model": {1: torch.ones(1)}},
        {"metadata": "text"},
        {"metadata": {"classes": 5}},
        {"metadata": {"classes": ["a"], "category_ids": "1"}},
        {"optimizer": None},
        {"iteration": "7"},
        {"best": [1.0]},
        {"best": ["a", None]},
        {"rng": {}},
        {"schedule": [1]},
    ],
    ids=str,
)
def test_values_of_other_types_are_named(tmp_path, wrong):
    checkpoint.save(tmp_path / "model.pth", {**content(), **wrong})
    place = rf"model\.pth: not a checkpoint of this project \(.*({list(wrong)[0]}|classes|category_ids)"
    with pytest.raises(WeightsError, match=place):
        checkpoint.load(tmp_path / "model.pth")


@pytest.mark.parametrize("wrong", [None, [], {}, {"torch": 1, "cuda": None}, {**checkpoint.rng_state(), "python": [1]}])
def test_random_states_of_other_types_are_named(wrong):
    with pytest.raises(RunError, match="`rng` is no state of random generators"):
        checkpoint.set_rng_state(wrong)


def test_the_former_file_stands_until_the_new_one_is_whole(tmp_path):
    path = tmp_path / "file"
    path.write_text("former")

    def write(temporary: Path) -> None:
        assert temporary.parent == path.parent  # another file system could not rename
        temporary.write_text("ne")
        assert path.read_text() == "former"
        temporary.write_text("new")

    write_whole(path, write)
    assert path.read_text() == "new"
    assert names(tmp_path) == ["file"]


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left"), KeyboardInterrupt(), ValueError("broken")])
def test_whatever_goes_wrong_the_former_file_stays(tmp_path, error):
    path = tmp_path / "file"
    path.write_text("former")

    def write(temporary: Path) -> None:
        temporary.write_text("half")
        raise error

    with pytest.raises(RunError if isinstance(error, OSError) else type(error)):
        write_whole(path, write)
    assert path.read_text() == "former"
    assert names(tmp_path) == ["file"]


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(RunError, match="cannot be written"):
        write_text(tmp_path / "file" / "inside", "x")
    (tmp_path / "folder" / "inner").mkdir(parents=True)
    with pytest.raises(RunError, match="cannot be written"):
        write_text(tmp_path / "folder", "x")
    assert names(tmp_path) == ["file", "folder"]


def test_what_a_killed_process_left_is_removed(tmp_path):
    script = (
        "import os, signal, sys; from backbone.common.files import write_whole\n"
        "write_whole(sys.argv[1], lambda path: (path.write_text('half'), os.kill(os.getpid(), signal.SIGKILL)))"
    )
    (tmp_path / "model.pth").write_text("former")
    mine = [".notes.tmp", "a.1.tmp", ".hidden"]
    for name in mine:
        (tmp_path / name).write_text("mine")
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path / "model.pth")], check=False)
    assert done.returncode == -9
    assert len(names(tmp_path)) == 5
    remove_leftovers(tmp_path)
    assert names(tmp_path) == sorted([*mine, "model.pth"])
    assert (tmp_path / "model.pth").read_text() == "former"


def test_json_without_nan(tmp_path):
    write_json(tmp_path / "a.json", {"AP": float("nan"), "list": (1.5, float("inf")), 3: "ü"})
    text = (tmp_path / "a.json").read_text(encoding="utf-8")
    assert "".join(text.split()) == '{"AP":null,"list":[1.5,null],"3":"ü"}'


# -- a full disk


@needs_full_device
@pytest.mark.parametrize("size", [10, 1_000_000])
def test_full_disk_leaves_the_former_checkpoint(tmp_path, size, capfd):
    """A small file fails when it is closed, a large one in the middle of torch.save."""
    path = tmp_path / "model.pth"
    checkpoint.save(path, content(1.0))
    before = path.read_bytes()
    fill_up(path)
    with pytest.raises(RunError) as caught:
        checkpoint.save(path, content(2.0, size))
    assert str(path) in str(caught.value)
    assert "No space left on device; free space or choose another folder" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert path.read_bytes() == before
    assert names(tmp_path) == ["model.pth"]
    assert capfd.readouterr() == ("", "")
    checkpoint.save(path, content(2.0))
    assert checkpoint.load(path)["model"]["weight"][0] == 2


@needs_full_device
def test_full_disk_removes_no_older_checkpoint(tmp_path):
    for iteration in (1, 2):
        checkpoint.save_numbered(tmp_path, iteration, content(iteration), keep=2)
    before = {name: (tmp_path / name).read_bytes() for name in names(tmp_path)}
    fill_up(tmp_path / "model_0000003.pth")
    with pytest.raises(RunError):
        checkpoint.save_numbered(tmp_path, 3, content(3), keep=2)
    assert {name: (tmp_path / name).read_bytes() for name in names(tmp_path)} == before


LIMITED = """
import resource, sys, torch
from backbone.engine import checkpoint
from backbone.common.errors import RunError
path = sys.argv[1]
checkpoint.save(path, {"model": {"weight": torch.ones(10)}})
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    checkpoint.save(path, {"model": {"weight": torch.zeros(10**6)}})
except RunError as error:
    print(error)
"""


def test_a_limit_on_file_sizes_leaves_the_former_checkpoint(tmp_path):
    pytest.importorskip("resource")
    path = tmp_path / "model.pth"
    done = subprocess.run([sys.executable, "-c", LIMITED, str(path)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{path}: cannot be written: File too large; free space or choose another folder\n"
    assert torch.equal(checkpoint.load(path)["model"]["weight"], torch.ones(10))
    assert names(tmp_path) == ["model.pth"]


@needs_full_device
def test_full_disk_in_the_metrics(tmp_path):
    metrics = MetricsFile(tmp_path, after=0)
    metrics.scalars({"loss": 2.0}, 1)
    assert read_metrics(tmp_path / METRICS) == [{"iteration": 1, "loss": 2.0}]
    (tmp_path / METRICS).unlink()
    (tmp_path / METRICS).symlink_to(FULL)
    with pytest.raises(RunError, match="metrics.jsonl: cannot be written: No space left on device"):
        metrics.scalars({"loss": 2.0}, 2)


@pytest.mark.parametrize(
    "content", [b'{"iteration": 1}\n{"iteration": 2}\n{"iterat', b'{"iteration": 1}\n{"iteration": 2}\n\0\0']
)
def test_a_last_line_of_metrics_that_was_cut_off(tmp_path, content):
    (tmp_path / METRICS).write_bytes(content)
    MetricsFile(tmp_path, after=2)
    assert [line["iteration"] for line in read_metrics(tmp_path / METRICS)] == [1, 2]


@pytest.mark.parametrize(
    "content", [bytes(range(256)), b"[" * 100_000 + b'\n{"iteration": 1}\n', b"[]\n{}\n", b'{"iteration": "1"}\n{}']
)
def test_damaged_metrics_stay_as_they_are(tmp_path, content):
    (tmp_path / METRICS).write_bytes(content)
    with pytest.raises(
        RunError, match=r"metrics.jsonl, line 1: no JSON object with an iteration; mend the line, or move"
    ):
        MetricsFile(tmp_path, after=2)
    assert (tmp_path / METRICS).read_bytes() == content


@needs_full_device
def test_full_disk_when_a_run_goes_on_keeps_its_metrics(tmp_path):
    metrics = MetricsFile(tmp_path, after=0)
    for iteration in (1, 2, 3):
        metrics.scalars({}, iteration)
    before = (tmp_path / METRICS).read_bytes()
    fill_up(tmp_path / METRICS)
    with pytest.raises(RunError, match="cannot be written"):
        MetricsFile(tmp_path, after=2)
    assert (tmp_path / METRICS).read_bytes() == before
    MetricsFile(tmp_path, after=2)
    assert [line["iteration"] for line in read_metrics(tmp_path / METRICS)] == [1, 2]


@needs_full_device
def test_full_disk_in_the_log(tmp_path, capfd):
    (tmp_path / "log.txt").symlink_to(FULL)
    start_logging(tmp_path, quiet=True)
    try:
        with pytest.raises(RunError, match="log.txt: cannot be written: No space left on device"):
            logging.getLogger(LOGGER).info("a line")
    finally:
        (tmp_path / "log.txt").unlink()
        start_logging(None)
    assert capfd.readouterr() == ("", "")


@needs_full_device
def test_full_disk_in_the_events(tmp_path, monkeypatch):
    """TensorBoard's thread finds the disk full; it must not print its traceback, the caller gets the error."""
    printed: list[object] = []
    monkeypatch.setattr(threading, "excepthook", hook := printed.append)
    events = Events(tmp_path, after=0)
    (file,) = tmp_path.glob("events.*")
    file.unlink()
    file.symlink_to(FULL)
    with pytest.raises(RunError, match="cannot be written: No space left on device"):
        for iteration in range(1000):
            events.scalars({"loss": 1.0}, iteration)
        events.writer.flush()
        events.close()
    with pytest.raises(RunError):
        events.close()
    assert printed == []
    assert threading.excepthook is hook
    # Errors of other threads are printed as ever.
    events = Events(tmp_path, after=0)
    thread = threading.Thread(target=lambda: 1 / 0)
    thread.start()
    thread.join()
    events.close()
    assert len(printed) == 1


# -- which are kept


@pytest.mark.parametrize(("keep", "left"), [(1, [5]), (2, [4, 5]), (99, [1, 2, 3, 4, 5]), (0, [5])])
def test_the_newest_are_kept(tmp_path, keep, left):
    for other in (checkpoint.BEST, checkpoint.FINAL, "model_mine.pth"):
        checkpoint.save(tmp_path / other, content())
    for iteration in range(1, 6):
        path = checkpoint.save_numbered(tmp_path, iteration, content(iteration), keep)
        assert checkpoint.newest(tmp_path) == path
    assert [iteration for iteration, _ in checkpoint.numbered(tmp_path)] == left
    assert (tmp_path / checkpoint.POINTER).read_text() == "model_0000005.pth"
    assert all((tmp_path / other).exists() for other in (checkpoint.BEST, checkpoint.FINAL, "model_mine.pth"))


def test_the_order_is_that_of_the_numbers(tmp_path):
    for iteration in (9_999_999, 10_000_000, 20):
        checkpoint.save(tmp_path / f"model_{iteration:07d}.pth", content())
    for other in ("model_12.pth", ".model_0000099.pth.1.tmp", "model_0000099.pth.bak", "model_best.pth"):
        (tmp_path / other).write_text("")
    assert [iteration for iteration, _ in checkpoint.numbered(tmp_path)] == [20, 9_999_999, 10_000_000]
    assert checkpoint.newest(tmp_path).name == "model_10000000.pth"


def test_no_checkpoint_is_the_newest_of_none(tmp_path):
    assert checkpoint.newest(tmp_path) is None
    assert checkpoint.newest(tmp_path / "nowhere") is None


# -- random generators


def draws() -> list[float]:
    return [random.random(), random.gauss(0, 1), np.random.rand(), np.random.randn(), torch.rand(1).item()]  # noqa: NPY002


def test_generators_go_on_where_they_were(tmp_path):
    checkpoint.seed_everything(3)
    draws()  # leaves half a pair of normal numbers in Python's and numpy's generators
    checkpoint.save(tmp_path / "model.pth", {"model": {}, "rng": [checkpoint.rng_state()]})
    expected = [draws() for _ in range(3)]
    checkpoint.seed_everything(4)
    assert draws() != expected[0]
    checkpoint.set_rng_state(checkpoint.load(tmp_path / "model.pth")["rng"][0])
    assert [draws() for _ in range(3)] == expected


def test_one_seed_one_sequence():
    checkpoint.seed_everything(7)
    first = draws()
    checkpoint.seed_everything(7)
    assert draws() == first
    checkpoint.seed_everything(8)
    assert draws() != first


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_a_seed_that_no_generator_takes(seed):
    with pytest.raises(RunError, match="--seed must be 0 to 4294967295"):
        checkpoint.seed_everything(seed)


# -- what is not read


@pytest.mark.parametrize("writer", WRITERS)
def test_a_checkpoint_that_runs_code_is_refused(tmp_path, writer):
    marker = tmp_path / "marker"
    for number, payload in enumerate(PAYLOADS):
        path = write_hostile(tmp_path / f"model_{number}", payload, "beside weights", writer, marker)
        with pytest.raises(WeightsError) as caught:
            checkpoint.load(path)
        assert "\n" not in str(caught.value)
        assert not marker.exists()


def test_what_is_no_checkpoint(tmp_path):
    for value in ({"weight": torch.ones(1)}, [1], torch.ones(1)):
        torch.save(value, tmp_path / "other.pth")
        with pytest.raises(WeightsError, match="not a checkpoint"):
            checkpoint.load(tmp_path / "other.pth")
    with pytest.raises(WeightsError, match="no such weights file"):
        checkpoint.load(tmp_path / "nowhere.pth")


def test_a_truncated_checkpoint(tmp_path):
    path = tmp_path / "model.pth"
    checkpoint.save(path, content())
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(WeightsError, match="cut off"):
        checkpoint.load(path)
