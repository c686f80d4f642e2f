"""Several processes: started here or by torchrun, NCCL on GPUs and gloo on CPUs, the same code on all."""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta
from multiprocessing.queues import SimpleQueue
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from ..common.errors import RunError, UserError

# How long a process waits for the others: longer than an evaluation of a large set on rank 0.
TIMEOUT = timedelta(hours=2)


@dataclass(frozen=True)
class Launch:
    """How many processes run, and where.

    Attributes:
        device: "cuda" or "cpu".
        processes: on this machine; one a GPU on GPUs.
        dist_url: address of machine 0, `tcp://host:port`; "auto" picks a free port when there is one machine.
    """

    device: str
    processes: int = 1
    machines: int = 1
    machine_rank: int = 0
    dist_url: str = "auto"

    @property
    def world_size(self) -> int:
        return int(os.environ["WORLD_SIZE"]) if by_torchrun() else self.processes * self.machines

    def check(self) -> None:
        """Raise RunError if this machine cannot run it."""
        if self.device not in ("cuda", "cpu"):
            raise RunError(f"--device must be cuda or cpu, not {self.device!r}")
        if self.processes < 1:
            raise RunError(f"at least one process must run, not {self.processes}")
        if self.machines < 1:
            raise RunError(f"--num-machines must be 1 or more, not {self.machines}")
        if not 0 <= self.machine_rank < self.machines:
            raise RunError(f"--machine-rank must be 0 to {self.machines - 1}, not {self.machine_rank}")
        if self.machines > 1 and self.dist_url == "auto" and not by_torchrun():
            raise RunError("--num-machines above 1 needs --dist-url tcp://HOST:PORT of machine 0")
        if self.device == "cuda":
            found = torch.cuda.device_count()
            wanted = int(os.environ.get("LOCAL_WORLD_SIZE", 1)) if by_torchrun() else self.processes
            if found < wanted:
                raise RunError(
                    f"{wanted} GPUs asked for, torch sees {found}; use --num-gpus {found}"
                    if found
                    else "torch sees no GPU; use --device cpu (tools/doctor.py tells why)"
                )


def by_torchrun() -> bool:
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ and "MASTER_ADDR" in os.environ


def launch(main: Callable[..., Any], setup: Launch, arguments: tuple) -> None:
    """Run `main(*arguments)` in every process of `setup`; in this one if it is the only one.

    Raises:
        RunError: this machine cannot run it, or (with its message) the first UserError of several processes.
        SystemExit: a process ended otherwise than well; with its status.
    """
    setup.check()
    if by_torchrun():
        _join(setup, int(os.environ.get("LOCAL_RANK", 0)), int(os.environ["RANK"]), "env://")
        _run_and_leave(main, arguments)
    elif setup.world_size == 1:
        if setup.device == "cuda":
            torch.cuda.set_device(0)
        main(*arguments)
    else:
        url = f"tcp://127.0.0.1:{_free_port()}" if setup.dist_url == "auto" else setup.dist_url
        _keep_quiet_about_the_stopped()
        mistakes = mp.get_context("spawn").SimpleQueue()
        context = mp.spawn(_worker, (main, setup, url, mistakes, arguments), nprocs=setup.processes, join=False)
        _wait(context, mistakes)


def _keep_quiet_about_the_stopped() -> None:
    """When one process fails the others are stopped. Neither that nor the semaphores they leave is to be reported.

    Python's resource tracker, a process of its own, removes the semaphores; it takes its orders from the environment.
    """
    logging.getLogger("torch.multiprocessing.spawn").setLevel(logging.ERROR)
    filters = [os.environ.get("PYTHONWARNINGS"), "ignore:resource_tracker:UserWarning"]
    os.environ["PYTHONWARNINGS"] = ",".join(filter(None, filters))


def _wait(context: mp.ProcessContext, mistakes: SimpleQueue) -> None:
    def forward(signum, _frame):
        for process in context.processes:
            if process.is_alive():
                os.kill(process.pid, signum)

    before = signal.signal(signal.SIGTERM, forward)
    try:
        while not context.join():
            pass
    except (mp.ProcessExitedException, mp.ProcessRaisedException) as error:
        # The others may have failed too, because the first one was gone.
        if not mistakes.empty():
            raise RunError(mistakes.get()) from None
        if isinstance(error, mp.ProcessRaisedException):
            raise
        sys.exit(error.exit_code if error.exit_code > 0 else 1)
    finally:
        signal.signal(signal.SIGTERM, before)


def _worker(
    local_rank: int, main: Callable[..., Any], setup: Launch, url: str, mistakes: SimpleQueue, arguments: tuple
) -> None:
    if setup.device == "cpu":
        # As torchrun does: the processes share the cores out between them.
        torch.set_num_threads(max(1, torch.get_num_threads() // setup.processes))
    try:
        _join(setup, local_rank, setup.machine_rank * setup.processes + local_rank, url)
        _run_and_leave(main, arguments)
    except UserError as error:
        mistakes.put(str(error))
        # Not sys.exit: the interpreter's own end can hang on a process group that is still open.
        os._exit(2)


def _join(setup: Launch, local_rank: int, rank: int, url: str) -> None:
    if setup.device == "cuda":
        torch.cuda.set_device(local_rank)
    try:
        dist.init_process_group(
            "nccl" if setup.device == "cuda" else "gloo",
            init_method=url,
            rank=rank,
            world_size=setup.world_size,
            timeout=TIMEOUT,
        )
    except (ValueError, RuntimeError) as error:
        raise RunError(f"the processes cannot meet at {url}: {str(error).splitlines()[0]}") from None


def _run_and_leave(main: Callable[..., Any], arguments: tuple) -> None:
    main(*arguments)
    dist.barrier()
    dist.destroy_process_group()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def together() -> bool:
    """Whether more than one process runs."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def rank() -> int:
    return dist.get_rank() if together() else 0


def world_size() -> int:
    return dist.get_world_size() if together() else 1


def is_main() -> bool:
    return rank() == 0


def gather(value: Any) -> list[Any]:
    """Return every process's `value`, by rank, in every process. Any picklable value."""
    if not together():
        return [value]
    values: list[Any] = [None] * world_size()
    dist.all_gather_object(values, value, group=_over_cpus())
    return values


def share(value: Any) -> Any:
    """Return the main process's `value` in every process."""
    if not together():
        return value
    holder = [value]
    dist.broadcast_object_list(holder, src=0, group=_over_cpus())
    return holder[0]


def mean(values: torch.Tensor) -> torch.Tensor:
    """Return the mean of a tensor over the processes."""
    if not together():
        return values
    values = values.clone()
    dist.all_reduce(values)
    return values / world_size()


def share_buffers(model: torch.nn.Module) -> None:
    """Give every process the main one's buffers: the running statistics of BN, which differ by the images seen."""
    share_tensors(model.buffers())


def share_tensors(tensors: Iterable[torch.Tensor]) -> None:
    """Write the main process's values into every process's `tensors`."""
    if together():
        for tensor in tensors:
            dist.broadcast(tensor, src=0)


def wrap(model: torch.nn.Module, device: torch.device) -> torch.nn.Module:
    """Return the model for training: itself, or in DistributedDataParallel where several processes run."""
    if not together():
        return model
    # DistributedDataParallel shares the parameters; the buffers it would share at every step.
    share_buffers(model)
    if device.type == "cpu":
        return torch.nn.parallel.DistributedDataParallel(model, broadcast_buffers=False)
    ids = [device.index if device.index is not None else torch.cuda.current_device()]
    return torch.nn.parallel.DistributedDataParallel(model, device_ids=ids, broadcast_buffers=False)


def barrier() -> None:
    if together():
        dist.barrier(group=_over_cpus())


def anyone(flag: bool) -> bool:
    """Return whether `flag` is set in any process. Never waits for a GPU."""
    if not together():
        return flag
    value = torch.tensor([int(flag)])
    dist.all_reduce(value, op=dist.ReduceOp.MAX, group=_over_cpus())
    return bool(value.item())


_cpu_group: Any = None


def _over_cpus() -> Any:
    """Return the group for what is no work of the GPUs: it neither waits for them nor fills their memory with the
    predictions of a whole data set. Made at the first call, which every process makes."""
    global _cpu_group
    if _cpu_group is None and dist.get_backend() != "gloo":
        _cpu_group = dist.new_group(backend="gloo", timeout=TIMEOUT)
    return _cpu_group
