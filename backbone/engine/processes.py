"""The processes of a run: started here, by torchrun or by srun, NCCL on GPUs and gloo on CPUs, the same code on all."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import wait
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from ..common.cli import leave
from ..common.errors import PeerError, ProcessError, RunError, UserError
from . import joining, lost, signals, slurm

# Seconds in which the other processes end by themselves, when one has.
GRACE = 15.0


@dataclass(frozen=True)
class Launch:
    """How many processes run, and where.

    Attributes:
        device: "cuda" or "cpu".
        processes: on this machine; one a GPU on GPUs. None: not asked for, one.
        machines: that take part, each with as many processes; `machine_rank` is the number of this one, from 0.
        dist_url: address of machine 0, `tcp://host:port`; "auto" picks a free port when there is one machine.
        advice: what the line about a lost process ends with.
    """

    device: str
    processes: int | None = None
    machines: int = 1
    machine_rank: int = 0
    dist_url: str = "auto"
    advice: lost.Advice = lost.TRAINING

    @property
    def world_size(self) -> int:
        return whole("WORLD_SIZE") if by_torchrun() else self.here * self.machines

    @property
    def here(self) -> int:
        """Processes on this machine."""
        if by_torchrun():
            return whole("LOCAL_WORLD_SIZE", 1)
        return 1 if self.processes is None else self.processes

    @property
    def is_first(self) -> bool:
        """Whether this process, or one that it starts, is the first of the run."""
        return whole("RANK") == 0 if by_torchrun() else self.machine_rank == 0

    def check(self) -> None:
        """Raise RunError if this machine cannot run it."""
        if self.device not in ("cuda", "cpu"):
            raise RunError(f"--device must be cuda or cpu, not {self.device!r}")
        if self.processes is not None and self.processes < 1:
            raise RunError(f"at least one process must run, not {self.processes}")
        if self.machines < 1:
            raise RunError(f"--num-machines must be 1 or more, not {self.machines}")
        if not 0 <= self.machine_rank < self.machines:
            raise RunError(f"--machine-rank must be 0 to {self.machines - 1}, not {self.machine_rank}")
        if by_torchrun():
            self._check_torchrun()
        elif self.dist_url != "auto":
            joining.address_of(self.dist_url)
        elif self.machines > 1:
            raise RunError("--num-machines above 1 needs --dist-url tcp://HOST:PORT of machine 0")
        if self.device == "cuda":
            found = torch.cuda.device_count()
            # SLURM may give each task a GPU of its own (--gpus-per-task 1).
            if found < self.here and not (found == 1 and slurm.started()):
                raise RunError(
                    f"{self.here} GPUs asked for, torch sees {found}; use --num-gpus {found}"
                    if found
                    else "torch sees no GPU; use --device cpu (tools/doctor.py tells why)"
                )

    def _check_torchrun(self) -> None:
        rank, world_size = whole("RANK"), whole("WORLD_SIZE")
        if not 0 <= rank < world_size:
            raise RunError(f"RANK must be 0 to WORLD_SIZE - 1, not {rank} of {world_size}; torchrun sets both")
        whole("LOCAL_RANK", 0), whole("MASTER_PORT")
        if self.processes not in (None, self.here):
            launcher, flag = ("srun", "--ntasks-per-node") if slurm.started() else ("torchrun", "--nproc-per-node")
            raise RunError(
                f"--num-processes {self.processes} (or --num-gpus) under {launcher}, which has started {self.here} "
                f"here: give it {flag} {self.processes}"
            )
        if self.machines > 1 or self.dist_url != "auto":
            raise RunError(
                "--num-machines, --machine-rank and --dist-url are not for torchrun: "
                "give it --nnodes, --node-rank, --master-addr and --master-port"
            )


def by_torchrun() -> bool:
    """Whether torchrun, or another launcher that sets its variables (see `slurm.take_over`), has started this process
    as one of several."""
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ and "MASTER_ADDR" in os.environ


def whole(variable: str, default: int | None = None) -> int:
    """Return a variable of the environment as a whole number.

    Raises:
        RunError: it is none, or is not set and has no default.
    """
    text = os.environ.get(variable)
    if text is None and default is not None:
        return default
    try:
        return int(text or "")
    except ValueError:
        raise RunError(
            f"the environment's {variable} must be a whole number, not {text!r}; torchrun sets it, else unset RANK"
        ) from None


def run(main: Callable[..., Any], setup: Launch, arguments: tuple) -> None:
    """Run `main(*arguments)` in every process of `setup`; in this one if it is the only one.

    Raises:
        RunError: this machine cannot run it, or (with its message) the first UserError of several processes.
        ProcessError: a process was killed, or cannot be reached.
        SystemExit: a process ended otherwise than well; with its status.
        KeyboardInterrupt: Ctrl-C; what there was to save is saved.
    """
    setup.check()
    if by_torchrun():
        # Its agent's death must not leave processes behind; they may write a checkpoint.
        signals.end_with(os.getppid(), signal.SIGTERM)
        local = whole("LOCAL_RANK", 0)
        agents = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == str(True)
        rank = whole("RANK")
        place = (os.environ["MASTER_ADDR"], whole("MASTER_PORT"), rank, setup.world_size)
        meeting = joining.Meeting(*place, hosts=rank == 0 and not agents, speaks=local == 0)
        try:
            _take_part(main, arguments, setup, local, meeting)
        except UserError as error:
            error.quiet = joining.is_said(error)
            raise
    elif setup.world_size == 1:
        if setup.device == "cuda":
            torch.cuda.set_device(0)
        with lost.named(setup.advice):
            main(*arguments)
    else:
        _start(main, setup, arguments)


def _take_part(main: Callable[..., Any], arguments: tuple, setup: Launch, local: int, meeting: joining.Meeting) -> None:
    if setup.device == "cuda":
        torch.cuda.set_device(local % torch.cuda.device_count())
    with lost.named(setup.advice):
        joining.join(meeting, "nccl" if setup.device == "cuda" else "gloo")
        main(*arguments)
        dist.barrier()
        dist.destroy_process_group()


def _start(main: Callable[..., Any], setup: Launch, arguments: tuple) -> None:
    host, port = ("127.0.0.1", _free_port()) if setup.dist_url == "auto" else joining.address_of(setup.dist_url)
    _keep_quiet_about_semaphores()
    signals.start_tracker()
    context = mp.get_context("spawn")
    reports = context.SimpleQueue()
    # The processes of one machine need no word of each other's end: this one sees all.
    alone = setup.machines == 1
    processes: list[Any] = []
    asked = signals.EndRequest()

    def hand_on() -> None:
        for process in processes:
            if process.is_alive():
                os.kill(process.pid, asked.signum)

    with asked.listening(now=hand_on, watched=False):
        with signals.held_back():
            for local in range(setup.here):
                rank = setup.machine_rank * setup.here + local
                meeting = joining.Meeting(
                    host, port, rank, setup.world_size, hosts=rank == 0, speaks=local == 0, beats=not alone
                )
                values = (os.getpid(), mp.get_start_method(), main, setup, local, meeting, reports, arguments)
                processes.append(context.Process(target=_process, args=values))
                processes[-1].start()
        stopped = _wait(processes)
    _judge(processes, stopped, reports, asked.signum, setup)


def _process(
    launcher: int,
    start_method: str,
    main: Callable[..., Any],
    setup: Launch,
    local: int,
    meeting: joining.Meeting,
    reports: Any,
    arguments: tuple,
) -> None:
    signals.end_with(launcher, signal.SIGKILL)
    signals.let_in()
    # A spawned process would spawn its loaders too, and each would import everything anew.
    mp.set_start_method(start_method, force=True)
    if setup.device == "cpu":
        # As torchrun does: the processes share the cores out between them.
        torch.set_num_threads(max(1, torch.get_num_threads() // setup.here))
    try:
        _take_part(main, arguments, setup, local, meeting)
        status = 0
    except UserError as error:
        kind = type(error) if isinstance(error, ProcessError) else RunError
        reports.put(kind(str(error)))
        status = error.status
    except KeyboardInterrupt:
        status = 128 + signal.SIGINT
    except SystemExit as error:
        status = error.code
    except BaseException:
        traceback.print_exc()
        status = 1
    leave(status)


def _wait(processes: list[Any]) -> set[int]:
    """Wait for the end of all processes; return those that were killed here, as another one had failed."""
    running = {process.sentinel: number for number, process in enumerate(processes)}
    killed: set[int] = set()
    limit = None
    while running:
        for sentinel in wait(list(running), None if limit is None else max(0.0, limit - time.monotonic())):
            process = processes[running.pop(sentinel)]
            process.join()
            if process.exitcode and limit is None:
                limit = time.monotonic() + GRACE
        if limit is not None and time.monotonic() >= limit and not killed:
            killed = set(running.values())
            for number in killed:
                processes[number].kill()
            limit = None
    return killed


def _judge(processes: list[Any], killed: set[int], reports: Any, asked: int, setup: Launch) -> None:
    """Raise what the ends of the processes come to; of several, the cause of the others."""
    if not any(process.exitcode for process in processes):
        return
    errors = []
    while not reports.empty():
        errors.append(reports.get())
    causes = [error for error in errors if not isinstance(error, PeerError)]
    if causes:
        raise causes[0]
    if asked:
        raise signals.ending(asked)
    for number, process in enumerate(processes):
        if process.exitcode < 0 and number not in killed:
            rank = setup.machine_rank * setup.here + number
            name = f"process {rank} of {setup.world_size} (pid {process.pid})"
            raise ProcessError(lost.killed(name, signal.Signals(-process.exitcode).name, setup.advice))
    status = next((process.exitcode for process in processes if process.exitcode > 0), 1)
    if errors and status == PeerError.status:
        raise errors[0]
    sys.exit(status)


def _keep_quiet_about_semaphores() -> None:
    """Processes that are killed leave semaphores. That is not to be reported.

    Python's resource tracker, a process of its own, removes them; it takes its orders from the environment.
    """
    filters = [os.environ.get("PYTHONWARNINGS"), "ignore:resource_tracker:UserWarning"]
    os.environ["PYTHONWARNINGS"] = ",".join(filter(None, filters))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
