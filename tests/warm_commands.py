"""Commands in processes forked from one that has imported the libraries: saves seconds of imports a call.

What depends on how a process starts (signals while it imports, closed pipes, spawned processes) is tested in processes
of its own, with `subprocess`.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import pickle
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
IMPORTS = (
    *("torch.utils.tensorboard", "torch.optim.swa_utils", "torchvision.ops", "cv2"),
    *("backbone.weights", "backbone.engine.task_run", "backbone.classification", "backbone.segmentation"),
    *("detection.engine.task", "detection.inference", "detection.export"),
)
LIMIT = 900.0  # seconds of one command
_server: tuple[socket.socket, subprocess.Popen] | None = None
_former: Started | None = None


class Started:
    """A command that runs, with the methods of subprocess.Popen that the tests call. One runs at a time."""

    def __init__(self, request: dict, merged: bool) -> None:
        self.args = request["argv"]
        self.returncode: int | None = None
        # Both are read when the process has ended.
        self._out, self._err = tempfile.TemporaryFile(), tempfile.TemporaryFile()  # noqa: SIM115
        self._connection = _connect()
        _end_the_former(self)
        message = json.dumps({**request, "env": dict(os.environ), "cwd": os.getcwd()}).encode()
        files = [self._out.fileno(), (self._out if merged else self._err).fileno()]
        socket.send_fds(self._connection, [len(message).to_bytes(8, "big")], files)
        self._connection.sendall(message)
        # It is the leader of a process group of its own.
        self.pid = int.from_bytes(_receive(self._connection, 8), "big")

    def poll(self) -> int | None:
        if self.returncode is None and select.select([self._connection], [], [], 0)[0]:
            self.wait()
        return self.returncode

    def wait(self, timeout: float = LIMIT) -> int:
        if self.returncode is None:
            if not select.select([self._connection], [], [], timeout)[0]:
                os.killpg(self.pid, signal.SIGKILL)
                self.wait()
                raise subprocess.TimeoutExpired(self.args, timeout, _text(self._out), _text(self._err))
            self.returncode = int.from_bytes(_receive(self._connection, 8), "big", signed=True)
        return self.returncode

    def communicate(self, timeout: float = LIMIT) -> tuple[str, str]:
        self.wait(timeout)
        return _text(self._out), _text(self._err)

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)


def _end_the_former(started: Started) -> None:
    """A test that failed may have left one that runs."""
    global _former
    if _former is not None and _former.poll() is None:
        os.killpg(_former.pid, signal.SIGKILL)
        _former.wait()
    _former = started


def start(command: list[object], *, merged: bool = False) -> Started:
    """Start `[python, script, *arguments]`. `merged` sends standard error where standard output goes."""
    return Started({"argv": [str(word) for word in command[1:]]}, merged)


def run(command: list[object], *, merged: bool = False) -> subprocess.CompletedProcess[str]:
    """Run `[python, script, *arguments]` as subprocess.run(capture_output=True, text=True) does."""
    process = start(command, merged=merged)
    out, err = process.communicate()
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def call(function: Callable[..., None], *arguments: Any, processes: int = 2) -> None:
    """Call `function(rank, *arguments)` of a test module in several processes, as torch.multiprocessing.spawn does."""
    words = (function.__module__, function.__name__, pickle.dumps(arguments).hex(), processes)
    process = Started({"argv": [function.__qualname__], "path": sys.path, "call": words}, merged=True)
    said = process.communicate()[0]
    assert process.returncode == 0, said[-3000:]


def _text(file) -> str:
    file.seek(0)
    return file.read().decode()


def _receive(connection: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        part = connection.recv(count - len(data))
        if not part:
            raise EOFError("the process that forks commands has ended")
        data += part
    return data


def _connect() -> socket.socket:
    global _server
    if _server is None:
        ours, theirs = socket.socketpair()
        paths = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
        threads = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        process = subprocess.Popen(
            [sys.executable, __file__, str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            env={**os.environ, **threads, "PYTHONPATH": paths},
            stdin=subprocess.DEVNULL,
        )
        theirs.close()
        _server = ours, process
        atexit.register(ours.close)
    return _server[0]


def _serve(connection: socket.socket) -> None:
    """Fork a process for each request, one after the other, until the tests end."""
    for name in IMPORTS:
        importlib.import_module(name)
    gc.freeze()
    while True:
        head, descriptors, *_ = socket.recv_fds(connection, 8, 2)
        if not head:
            return
        request = json.loads(_receive(connection, int.from_bytes(head, "big")))
        assert len(os.listdir("/proc/self/task")) == 1, "a process with threads cannot be forked safely"
        child = os.fork()
        if not child:
            connection.close()
            _become(request, descriptors)
        for descriptor in descriptors:
            os.close(descriptor)
        connection.sendall(child.to_bytes(8, "big"))
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        connection.sendall(status.to_bytes(8, "big", signed=True))


def _become(request: dict, descriptors: list[int]) -> None:
    """Run the script of a request in this process and end it."""
    status = 1
    try:
        os.setsid()
        for number, descriptor in zip((1, 2), descriptors, strict=True):
            os.dup2(descriptor, number)
            os.close(descriptor)
        os.environ.clear()
        os.environ.update(request["env"])
        os.chdir(request["cwd"])
        signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            if "call" in request:
                sys.path[:] = request["path"]
                _call(*request["call"])
            else:
                _run_script(request["argv"])
            status = 0
        except SystemExit as leaving:
            status = leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
        except BaseException:
            traceback.print_exc()
        _end_as_python_does()
    finally:
        os._exit(status)


def _run_script(words: list[str]) -> None:
    """Run a script; the processes that it starts are forked too, where it would spawn them."""
    import torch.multiprocessing as mp

    of_method = mp.get_context
    mp.get_context = lambda method=None: of_method("fork" if method == "spawn" else method)
    sys.argv = words
    sys.path[0] = str(Path(words[0]).parent)
    runpy.run_path(words[0], run_name="__main__")


def _call(module: str, name: str, arguments: str, processes: int) -> None:
    import quick
    import torch.multiprocessing as mp

    quick.draw_blocks()
    function = getattr(importlib.import_module(module), name)
    mp.start_processes(function, pickle.loads(bytes.fromhex(arguments)), nprocs=processes, start_method="fork")


def _end_as_python_does() -> None:
    import threading

    threading._shutdown()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _serve(socket.socket(fileno=int(sys.argv[1])))
