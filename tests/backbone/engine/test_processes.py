"""Several processes: how they meet, end by signals, and name the one that is lost."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
import warm_commands
from torch.utils.data import Dataset

from backbone.common.errors import ProcessError, RunError
from backbone.engine import interfaces, joining, lost, signals
from backbone.engine.loading import make_loader, until_error
from backbone.engine.lock import locked
from backbone.engine.processes import Launch

ROOT = Path(__file__).resolve().parents[3]
KEYS = {
    "DATA.SYNTHETIC": True,
    "MODEL.NUM_CLASSES": 10,
    "SOLVER.IMS_PER_BATCH": 4,
    "SOLVER.REFERENCE_BATCH_SIZE": 4,
    "SOLVER.MAX_ITER": 100000,
    "SOLVER.STEPS": "()",
    "SOLVER.CHECKPOINT_PERIOD": 0,
    "SOLVER.LOG_PERIOD": 1,
    "TEST.EVAL_PERIOD": 0,
}


def start(folder: Path, *flags: str, warm: bool = False) -> subprocess.Popen | warm_commands.Started:
    pairs = [str(part) for pair in KEYS.items() for part in pair]
    tool = [sys.executable, str(ROOT / "tools" / "pretrain.py"), "--config", "cifar10_resnet20.yaml"]
    command = [*tool, "--output-dir", str(folder), "--device", "cpu", *flags, *pairs]
    if warm:
        process = warm_commands.start(command)
    else:
        environment, pipes = dict(os.environ, OMP_NUM_THREADS="1"), {"stdout": subprocess.DEVNULL}
        pipes |= {"stderr": subprocess.PIPE, "text": True}
        process = subprocess.Popen(command, env=environment, start_new_session=True, **pipes)
    until = time.monotonic() + 200
    while not ((folder / "metrics.jsonl").exists() and (folder / "metrics.jsonl").read_text()):
        assert process.poll() is None and time.monotonic() < until
        time.sleep(0.05)
    return process


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.skipif(not Path("/proc").exists(), reason="looks for processes in /proc")
def test_signals_to_all_processes_and_a_lost_one(tmp_path):
    process = start(tmp_path, "--num-processes", "2")
    os.killpg(process.pid, signal.SIGUSR1)
    said = process.communicate(timeout=100)[1]
    assert process.returncode == 138 and "Traceback" not in said and "resource_tracker" not in said
    assert len(list(tmp_path.glob("model_*.pth"))) == 1
    (tmp_path / "metrics.jsonl").unlink()
    process = start(tmp_path, "--resume", "--num-processes", "2", warm=True)
    os.kill(children(process.pid)[-1], signal.SIGKILL)
    said = process.communicate(timeout=100)[1]
    assert process.returncode == 1 and "of 2 (pid" in said and "was killed (SIGKILL), most likely" in said
    assert "Traceback" not in said


@pytest.mark.skipif(sys.platform != "linux", reason="as Linux does")
def test_processes_end_with_their_launcher():
    reader, writer = os.pipe()
    launcher = os.fork()
    if not launcher:
        if not os.fork():
            signals.end_with(os.getppid(), signal.SIGKILL)
            os.write(writer, str(os.getpid()).encode())
        time.sleep(100)
        os._exit(0)
    pid = int(os.read(reader, 20))
    os.kill(launcher, signal.SIGKILL)
    os.waitpid(launcher, 0)
    until = time.monotonic() + 60
    while (state := Path(f"/proc/{pid}/stat")).exists() and state.read_text().split()[2] != "Z":
        assert time.monotonic() < until
        time.sleep(0.01)


class Numbers(Dataset):
    def __len__(self) -> int:
        return 10000

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.tensor(index)


def test_loader_processes_leave_signals_to_the_run():
    # Loaders of other tests may not have been collected yet.
    others = {process.pid for process in multiprocessing.active_children()}
    loader = make_loader(Numbers(), workers=1, pin_memory=False)
    samples = until_error(loader)
    next(samples)
    (worker,) = (process for process in multiprocessing.active_children() if process.pid not in others)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
        subprocess.run(["kill", f"-{int(number)}", str(worker.pid)], check=True)
    assert [int(next(samples)[0]) for _ in range(20)] == list(range(1, 21))
    with (
        pytest.raises(ProcessError, match=rf"process {worker.pid} was killed \(SIGKILL\), most likely"),
        lost.named(),
    ):
        os.kill(worker.pid, signal.SIGKILL)
        for _ in samples:
            pass


@pytest.mark.parametrize(
    ("error", "exitcode", "end"),
    [
        (RuntimeError("DataLoader worker (pid(s) 72) exited unexpectedly"), -9, r"was killed \(SIGKILL\), most likely"),
        (ConnectionResetError(), -9, r"was killed \(SIGKILL\), most likely"),
        (EOFError(), 3, "ended before its time"),
    ],
)
def test_a_loader_process_that_ended_is_named_by_its_exit_code(error, exitcode, end):
    class Broken:
        _workers = [
            SimpleNamespace(pid=pid, exitcode=code, join=lambda _: None) for pid, code in ((71, 0), (72, exitcode))
        ]

        def __iter__(self):
            return self

        def __next__(self):
            raise error

    with pytest.raises(ProcessError, match=f"process 72 {end}.*; go on$"), lost.named(lost.Advice("go on")):
        next(until_error(Broken()))


def test_a_former_start_at_the_same_store_leads_nobody_astray(monkeypatch):
    store = dist.HashStore()
    place = lambda rank: joining.Meeting("localhost", 1, rank, 3, hosts=False, speaks=False)  # noqa: E731
    found: dict[int, list[str]] = {0: [], 1: [], 2: []}

    def take_part(rank: int) -> None:
        found[rank].append((joining._another_answers if rank else joining._first_calls)(store, place(rank), "{}"))

    for _ in range(2):
        threads = [threading.Thread(target=take_part, args=(rank,)) for rank in (1, 0, 2)]
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]
    assert found[0] == found[1] == found[2] and found[0][0] != found[0][1]
    monkeypatch.setattr(joining, "JOINING", joining.timedelta(0))
    with pytest.raises(ProcessError, match=r"waited 0 minutes for 2 processes \(1, 2\) of 3 at tcp://localhost:1 in"):
        joining._first_calls(dist.HashStore(), place(0), "{}")


@pytest.mark.skipif(sys.platform != "linux", reason="as Linux tells")
def test_the_interface_is_the_one_of_the_route():
    assert interfaces.source_address("127.0.0.1") == "127.0.0.1" and interfaces.is_loopback("127.0.1.1")
    assert interfaces.interface_of("127.0.0.1") == "lo" and interfaces.interface_of("192.0.2.1") is None
    assert interfaces.source_address("") == "" or interfaces.is_loopback(interfaces.source_address(""))


TORCHRUN = {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}


@pytest.mark.parametrize(
    ("variables", "fields", "expected"),
    [
        ({"RANK": "x"}, {}, "RANK must be a whole number, not 'x'"),
        ({"RANK": "2"}, {}, "RANK must be 0 to WORLD_SIZE - 1, not 2 of 2"),
        ({"MASTER_PORT": ""}, {}, "MASTER_PORT must be a whole number"),
        ({}, {"processes": 4}, "--num-processes 4 .* under torchrun, which has started 2 here"),
        ({}, {"processes": 1}, "--num-processes 1 .* under torchrun"),
        ({}, {"machines": 2, "dist_url": "tcp://localhost:1"}, "are not for torchrun"),
        (None, {"dist_url": "://"}, "--dist-url must be tcp://HOST:PORT of machine 0, not '://'"),
        (None, {"dist_url": "tcp://localhost"}, "--dist-url must be tcp://HOST:PORT"),
        (None, {"dist_url": "tcp://no-such-host.invalid:1"}, "'no-such-host.invalid' of machine 0 is not known here"),
        (None, {"machines": 2}, "needs --dist-url"),
    ],
)
def test_mistakes(monkeypatch, variables, fields, expected):
    for name, value in {**TORCHRUN, **variables}.items() if variables is not None else ():
        monkeypatch.setenv(name, value)
    with pytest.raises(RunError, match=expected) as caught:
        Launch("cpu", **fields).check()
    assert "\n" not in str(caught.value)


def test_a_run_is_held_by_each_of_its_processes(tmp_path):
    one, other = locked(tmp_path, shared=True), locked(tmp_path, shared=True)
    with one, other, pytest.raises(RunError, match="another run"), locked(tmp_path, patience=0):
        pass
    with locked(tmp_path, patience=0) as lock:
        lock.share()
        with locked(tmp_path, shared=True, patience=0):
            pass


BEATING = """
import time
import torch.distributed as dist
from backbone.engine import joining, processes
joining.BEAT = 0.0
joining.join(joining.Meeting("127.0.0.1", processes._free_port(), 0, 1, hosts=True), "gloo")
time.sleep(0.05)
dist.destroy_process_group()
"""


def test_signs_of_life_end_with_the_process():
    done = subprocess.run([sys.executable, "-c", BEATING], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
