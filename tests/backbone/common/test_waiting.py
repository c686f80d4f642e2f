"""What somebody who waits sees, on a terminal and in a log file."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Callable

import pytest

from backbone.common import waiting
from backbone.common.waiting import Pass, passing, say_importing, say_reading

# tools/train_net.py on a terminal, ended where it would import this project's detection.
STOPPED = """
import runpy, sys
class Stop:
    def find_spec(self, name, *rest):
        if name == "detection":
            sys.exit(name)
sys.meta_path.insert(0, Stop())
sys.argv = ["tools/train_net.py", "--config", "x.yaml"]
sys.stderr.isatty = lambda: True
runpy.run_path("tools/train_net.py", run_name="__main__")
"""


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def make_terminal(monkeypatch) -> Callable[[], Terminal]:
    """Make standard error a terminal; called in the test itself, whose capture replaces it too."""

    def make() -> Terminal:
        stream = Terminal()
        monkeypatch.setattr(sys, "stderr", stream)
        return stream

    return make


def test_slow_imports_are_said_on_a_terminal_alone(make_terminal, capsys):
    """Elsewhere a mistake that is found after them stays the only line."""
    say_importing("no_such_a")
    assert capsys.readouterr() == ("", "")
    terminal = make_terminal()
    say_importing("sys", "no_such_a", "no_such_b")
    say_importing("sys")
    assert terminal.getvalue() == "importing no_such_a and no_such_b ...\n"
    assert capsys.readouterr().out == ""


def test_reading_is_said_of_large_files_alone(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(waiting, "LARGE", 10)
    for name, size in (("small.json", 10), ("large.json", 11)):
        (tmp_path / name).write_bytes(bytes(size))
    say_reading(tmp_path / "small.json", None, tmp_path / "missing.json", tmp_path, tmp_path / "large.json")
    assert capsys.readouterr().out == f"reading {tmp_path / 'large.json'} ...\n"


def test_a_long_pass_has_few_lines_in_a_log(monkeypatch):
    """An hour at a thing a second: after 5 seconds, then one a minute."""
    now = [0.0]
    monkeypatch.setattr(waiting.time, "monotonic", lambda: now[0])
    lines: list[str] = []
    monkeypatch.setattr(waiting.log, "info", lines.append)
    with Pass(3600, "decoding", unit="file", plural="files") as shown:
        for _ in range(3600):
            now[0] += 1
            shown.add(1)
    assert lines[0] == "decoding: 5 of 3,600 files  1.0 file/s  ETA 59m55s"
    assert lines[1].startswith("decoding: 65 of 3,600 files")
    assert len(lines) == 60


def test_a_short_pass_over_values_shows_nothing(make_terminal):
    terminal = make_terminal()
    assert list(passing(range(5), "reading", unit="file", plural="files")) == [0, 1, 2, 3, 4]
    assert terminal.getvalue().strip() == ""


def test_a_pass_is_a_bar_on_a_terminal(make_terminal):
    terminal = make_terminal()
    with Pass(3, "decoding") as shown:
        shown.add(1)
        shown.add(5)
    assert shown.done == 3
    assert "decoding" in terminal.getvalue()
    assert "\r" in terminal.getvalue()


def test_a_command_says_at_once_what_it_waits_for():
    """As a user starts it: the line is there before the imports, which this test does not wait for."""
    done = subprocess.run([sys.executable, "-c", STOPPED], capture_output=True, text=True, timeout=120)
    assert done.stderr == "importing torch and detectron2 ...\ndetection\n"
