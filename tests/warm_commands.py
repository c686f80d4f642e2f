"""Commands in processes forked from one that has imported the libraries: saves seconds of imports a call.

What depends on how a process starts (signals while it imports, closed pipes, process groups) is tested in processes of
its own, with `subprocess`.
"""

from __future__ import annotations

import atexit
import gc
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
IMPORTS = (
    *("torch.utils.tensorboard", "torch.optim.swa_utils", "torchvision.ops", "cv2"),
    *("backbone.weights", "backbone.engine.task_run", "backbone.classification", "backbone.segmentation"),
    *("detection.engine.task", "detection.inference", "detection.export"),
)
LIMIT = 900.0  # seconds of one command
_server: tuple[socket.socket, subprocess.Popen] | None = None


def run(command: list[object], *, merged: bool = False) -> subprocess.CompletedProcess[str]:
    """Run `[python, script, *arguments]` as subprocess.run(capture_output=True, text=True) does.

    `merged` sends standard error where standard output goes.
    """
    connection = _connect()
    words = [str(word) for word in command]
    request = {"argv": words[1:], "env": dict(os.environ), "cwd": os.getcwd()}
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        message = json.dumps(request).encode()
        socket.send_fds(
            connection, [len(message).to_bytes(8, "big")], [out.fileno(), (out if merged else err).fileno()]
        )
        connection.sendall(message)
        child = int.from_bytes(_receive(connection, 8), "big")
        connection.settimeout(LIMIT)
        try:
            status = int.from_bytes(_receive(connection, 8), "big", signed=True)
        except TimeoutError:
            os.killpg(child, signal.SIGKILL)
            connection.settimeout(None)
            _receive(connection, 8)
            raise subprocess.TimeoutExpired(words, LIMIT, _text(out), _text(err)) from None
        connection.settimeout(None)
        return subprocess.CompletedProcess(words, status, _text(out), _text(err))


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
    import importlib

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
        sys.argv = request["argv"]
        sys.path[0] = str(Path(sys.argv[0]).parent)
        try:
            runpy.run_path(sys.argv[0], run_name="__main__")
            status = 0
        except SystemExit as leaving:
            status = leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
        except BaseException:
            traceback.print_exc()
        _end_as_python_does()
    finally:
        os._exit(status)


def _end_as_python_does() -> None:
    import threading

    threading._shutdown()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _serve(socket.socket(fileno=int(sys.argv[1])))
