"""tools/train_net.py on a disk that fills up: status 2, one line, the former checkpoint as it was, no half files."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
import warm_commands
from runs import command, keys

CHANGES = {
    "SOLVER.MAX_ITER": 3,
    "SOLVER.CHECKPOINT_PERIOD": 1,
    "DATALOADER.NUM_WORKERS": 0,
    "MODEL.FPN.OUT_CHANNELS": 8,
}
# Mounts a file system of size $1 at $2 that only this command sees, runs the rest there, and copies what it left to $3.
IN_SMALL_FILE_SYSTEM = """
mount -t tmpfs -o size="$1" none "$2" || exit 99
disk="$2"; after="$3"; shift 3
"$@"
status=$?
cp -r "$disk"/. "$after"
exit $status
"""
UNSHARE = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]


def call(arguments: list[str], **keywords) -> subprocess.CompletedProcess[str]:
    environment = dict(os.environ, OMP_NUM_THREADS="1")
    return subprocess.run(
        arguments, env=environment, capture_output=True, text=True, timeout=120, check=False, **keywords
    )


def one_line(done: subprocess.CompletedProcess[str], *said: str) -> None:
    assert done.returncode == 2, done.stderr[-3000:]
    assert done.stderr.count("\n") == 1, done.stderr
    assert "Traceback" not in done.stdout
    for text in said:
        assert text in done.stderr


def saved(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if "model" in path.name or path.name.endswith(".tmp"))


def test_a_limit_on_file_sizes(tmp_path):
    """The first run writes a checkpoint; the second, a real process, may write no file of its size."""
    resource = pytest.importorskip("resource")
    done = warm_commands.run([*command(tmp_path), *keys({**CHANGES, "SOLVER.MAX_ITER": 1})])
    assert done.returncode == 0, done.stderr
    before = {name: (tmp_path / name).read_bytes() for name in saved(tmp_path)}
    assert list(before) == ["model_0000001.pth", "model_final.pth"]
    done = call(
        [*command(tmp_path, "--resume", "--force"), *keys(CHANGES)],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (10**6, 10**6)),
    )
    one_line(done, f"{tmp_path / 'model_0000002.pth'}: cannot be written: File too large")
    assert {name: (tmp_path / name).read_bytes() for name in saved(tmp_path)} == before
    assert (tmp_path / "last_checkpoint").read_text() == "model_0000001.pth"
    # With room again the run goes on.
    done = warm_commands.run([*command(tmp_path, "--resume"), *keys(CHANGES)])
    assert done.returncode == 0, done.stderr
    assert torch.load(tmp_path / "model_final.pth", weights_only=True)["iteration"] == 3


@pytest.fixture
def small_disk(tmp_path):
    """Call a command with a file system of `size` at the folder disk; what it left is in the folder after."""
    if shutil.which("unshare") is None:
        pytest.skip("needs unshare (util-linux) to mount a small file system without being root")
    disk, after = tmp_path / "disk", tmp_path / "after"
    for folder in (disk, after):
        folder.mkdir()

    def run(size: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        return call([*UNSHARE, IN_SMALL_FILE_SYSTEM, "sh", size, str(disk), str(after), *arguments])

    if run("1m", "true").returncode:
        pytest.skip("this system lets no ordinary user mount a file system of their own")
    return run


@pytest.mark.parametrize(
    ("size", "left", "said"),
    [
        # Room for one checkpoint and a part of the next; for less than one; for the config but not for all events.
        ("26m", ["model_0000001.pth"], "model_0000002.pth: cannot be written: No space left on device"),
        pytest.param("6m", [], "model_0000001.pth: cannot be written: No space left on device", marks=pytest.mark.slow),
        pytest.param("32k", [], "cannot be written: No space left on device", marks=pytest.mark.slow),
        ("4k", [], "cannot be written: No space left on device"),
    ],
)
def test_a_file_system_that_fills_up(tmp_path, small_disk, size, left, said):
    run = tmp_path / "disk" / "run"
    one_line(small_disk(size, *command(run), *keys(CHANGES)), said)
    assert saved(tmp_path / "after" / "run") == left
    for name in left:
        assert torch.load(tmp_path / "after" / "run" / name, weights_only=True)["iteration"] == 1
