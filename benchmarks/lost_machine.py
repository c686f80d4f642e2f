"""Trains on two "machines", network namespaces of this one, kills one of them in the middle and compares the weights.

Needs root (ip netns). Each round: torchrun with c10d rendezvous on both; after some steps every process of the one
that does not host the rendezvous is killed (-9), and its torchrun is started again, as a cluster's manager would. By
turns it is the one of process 1 and that of process 0, which writes the checkpoints. The final weights must be those
of a run that nothing happened to, bit for bit.

Example:
    python -m benchmarks.lost_machine /tmp/lost --rounds 20
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from backbone.engine import checkpoint

ROOT = Path(__file__).resolve().parents[1]
# torchrun numbers them by address: process 0 is on a.
MACHINES = {"a": "10.77.0.1", "b": "10.77.0.2"}
STEPS, PERIOD = 60, 6
# Seconds of a round, and those that torchrun waits for the other machine: a busy one starts slowly.
LIMIT, PATIENCE = 1200, 600
# Without it a torchrun that stays keeps the address of its first store to itself, and one that is started again waits
# for it in vain.
TORCHRUN = {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
KEYS = {
    "DATA.SYNTHETIC": True,
    "MODEL.NUM_CLASSES": 10,
    "SOLVER.IMS_PER_BATCH": 4,
    "SOLVER.REFERENCE_BATCH_SIZE": 4,
    "SOLVER.MAX_ITER": STEPS,
    "SOLVER.STEPS": "()",
    "SOLVER.CHECKPOINT_PERIOD": PERIOD,
    "SOLVER.LOG_PERIOD": 1,
    "TEST.EVAL_PERIOD": 0,
    "TEST.PRECISE_BN.ENABLED": False,
}


@contextlib.contextmanager
def machines(prefix: str) -> Iterator[dict[str, str]]:
    """Make a namespace for each machine, connected to each other; yield their names."""
    names = {machine: f"{prefix}-{machine}" for machine in MACHINES}
    try:
        for name in names.values():
            _ip("netns", "add", name)
            _ip("-n", name, "link", "set", "lo", "up")
        ends = [part for name in names.values() for part in ("name", "wire", "netns", name)]
        _ip("link", "add", *ends[:4], "type", "veth", "peer", *ends[4:])
        for machine, name in names.items():
            _ip("-n", name, "addr", "add", f"{MACHINES[machine]}/24", "dev", "wire")
            _ip("-n", name, "link", "set", "wire", "up")
        yield names
    finally:
        for name in names.values():
            subprocess.run(["ip", "netns", "del", name], stderr=subprocess.DEVNULL)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, stderr=subprocess.PIPE)


def start(machine: str, name: str, folder: Path, log: Path, host: str) -> subprocess.Popen:
    """Start torchrun with one process on a machine; `host` is the one with the rendezvous."""
    pairs = [str(part) for pair in KEYS.items() for part in pair]
    torchrun = [
        *("-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1", "--max-restarts", "5"),
        *("--rdzv-backend", "c10d", "--rdzv-endpoint", f"{MACHINES[host]}:29400"),
        *("--rdzv-id", folder.name),
        *("--rdzv-conf", f"read_timeout={PATIENCE},join_timeout={PATIENCE},is_host={int(machine == host)}"),
        # Both have the host name of this machine, which is the loopback in each.
        *("--local-addr", MACHINES[machine]),
    ]
    command = [str(ROOT / "tools" / "pretrain.py"), "--config", "cifar10_resnet20.yaml", "--device", "cpu"]
    with log.open("ab") as file:
        return subprocess.Popen(
            ["ip", "netns", "exec", name, sys.executable, *torchrun, *command, "--output-dir", str(folder), *pairs],
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), **TORCHRUN},
            stdout=file,
            stderr=file,
            start_new_session=True,
        )


def kill(process: subprocess.Popen) -> None:
    """Kill all processes of a machine: torchrun's own session, and the sessions that it has started."""
    for pid in [*_below(process.pid), process.pid]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait()


def _below(pid: int) -> list[int]:
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, task.read_text().split()):
            found += [*_below(child), child]
    return found


def run(names: dict[str, str], folder: Path, lost: str = "", kill_at: int | None = None) -> str:
    """Train to the end, with machine `lost` killed once it has done `kill_at` steps; return what went wrong, or ""."""
    log, until = folder.with_suffix(".log"), time.monotonic() + LIMIT
    host = "b" if lost == "a" else "a"
    running = {machine: start(machine, name, folder, log, host) for machine, name in names.items()}
    try:
        while any(process.poll() is None for process in running.values()):
            if time.monotonic() > until:
                return f"took longer than {LIMIT} s"
            if kill_at is not None and _steps(folder) >= kill_at:
                kill(running[lost])
                kill_at, running[lost] = None, start(lost, names[lost], folder, log, host)
            time.sleep(0.1)
        statuses = [process.returncode for process in running.values()]
        return "" if not any(statuses) and kill_at is None else f"ended with {statuses}, killed: {kill_at is None}"
    finally:
        for process in running.values():
            kill(process)


def _steps(folder: Path) -> int:
    path = folder / "metrics.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    with contextlib.suppress(json.JSONDecodeError, IndexError):
        return int(json.loads(lines[-1])["iteration"])
    return 0


def same_weights(folder: Path, other: Path) -> bool:
    """Whether two runs ended with the same bits."""
    a, b = (checkpoint.load(path / "model_final.pth")["model"] for path in (folder, other))
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="for the runs")
    parser.add_argument("--rounds", type=int, default=20)
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    random, passed = np.random.default_rng(0), 0
    with machines(f"lost{os.getpid()}") as names:
        untouched = arguments.folder / "untouched"
        if problem := run(names, untouched):
            raise SystemExit(f"the run without a kill: {problem}; see {untouched}.log")
        for number in range(1, arguments.rounds + 1):
            folder = arguments.folder / f"round{number}"
            kill_at = int(random.integers(PERIOD + 1, STEPS - 10))
            lost = "ba"[(number - 1) % 2]
            problem = run(names, folder, lost, kill_at)
            if not problem and not same_weights(folder, untouched):
                problem = "other weights"
            passed += not problem
            sys.stdout.write(f"round {number}, {lost} killed after step {kill_at}: {problem or 'the same bits'}\n")
            sys.stdout.flush()
            if not problem:
                shutil.rmtree(folder)
        sys.stdout.write(f"{passed} of {arguments.rounds} rounds ended with the same bits\n")


if __name__ == "__main__":
    main()
