"""A run folder is one run's: while a process lives that holds it, another is refused."""

from __future__ import annotations

import subprocess
import sys

import pytest

from backbone import RunError
from backbone.engine.lock import locked

HOLD = (
    "import sys; from backbone.engine.lock import locked\nwith locked(sys.argv[1]): print('held', flush=True); input()"
)


@pytest.fixture
def holder(tmp_path):
    """Another process, which holds the folder."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


def test_another_run_is_refused(holder, tmp_path):
    with pytest.raises(RunError, match="another run is writing into it"), locked(tmp_path, patience=0):
        pass
    assert not list(tmp_path.iterdir())


def test_a_killed_run_leaves_the_folder_free(holder, tmp_path):
    holder.kill()
    with locked(tmp_path):
        pass


def test_the_same_process_may_hold_it_again(tmp_path):
    for _ in range(2):
        with locked(tmp_path, patience=0):
            pass
