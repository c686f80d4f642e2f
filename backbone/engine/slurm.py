"""What SLURM says of a task that srun has started, in the variables that torchrun sets."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

from ..common.errors import RunError

# The first host of a list such as node[003-007,9],login1, and a range inside of it.
FIRST_HOST = re.compile(r"(?:[^,\[]|\[[^\]]*\])+")
RANGE = re.compile(r"\[(\w+)[^\]]*\]")
# Tasks on each node, such as 8(x2),4.
TASKS = re.compile(r"(\d+)(?:\(x(\d+)\))?")
# Names of the jobs of interactive shells.
SHELLS = ("bash", "sh", "zsh", "fish", "interactive")
FIRST_PORT, PORTS = 20000, 12000


def take_over(environment: dict[str, str] | os._Environ[str] = os.environ) -> None:
    """Set torchrun's variables where srun has started several tasks of this command.

    They are not set in the shell of salloc or the script of sbatch, which stand for all tasks but are one process, nor
    where torchrun has set them.
    """
    if "RANK" not in environment and tasks_of(environment) > 1:
        environment.update(as_torchrun(environment))


def started() -> bool:
    """Whether srun has started this process, as one of several and without a torchrun between."""
    return "SLURM_PROCID" in os.environ and "TORCHELASTIC_RUN_ID" not in os.environ


def tasks_of(environment: Mapping[str, str]) -> int:
    """Return the number of tasks that run this command; 1 where srun has not started it.

    Raises:
        RunError: a variable of SLURM has no number.
    """
    if "SLURM_PROCID" not in environment:
        return 1
    if "SLURM_STEP_NUM_TASKS" in environment:
        return _number(environment, "SLURM_STEP_NUM_TASKS")
    shell = environment.get("ENVIRONMENT") == "BATCH" or environment.get("SLURM_JOB_NAME") in SHELLS
    return 1 if shell else _number(environment, "SLURM_NTASKS", 1)


def as_torchrun(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of torchrun for this task.

    Raises:
        RunError: a variable of SLURM is missing or has no number.
    """
    tasks, rank = tasks_of(environment), _number(environment, "SLURM_PROCID")
    if not 0 <= rank < tasks:
        raise RunError(f"SLURM_PROCID must be 0 to {tasks - 1}, not {rank}; srun sets it, else unset it")
    hosts = next(
        filter(None, map(environment.get, ("SLURM_STEP_NODELIST", "SLURM_JOB_NODELIST", "SLURM_NODELIST"))), ""
    )
    # Tasks of one job may be several steps; each has a number.
    port = _number(environment, "SLURM_JOB_ID", 0) + _number(environment, "SLURM_STEP_ID", 0)
    return {
        "RANK": str(rank),
        "WORLD_SIZE": str(tasks),
        "LOCAL_RANK": str(_number(environment, "SLURM_LOCALID", rank)),
        "LOCAL_WORLD_SIZE": str(_tasks_here(environment, tasks, hosts)),
        "MASTER_ADDR": environment.get("MASTER_ADDR") or first_host(hosts),
        "MASTER_PORT": environment.get("MASTER_PORT") or str(FIRST_PORT + port % PORTS),
    }


def first_host(hosts: str) -> str:
    """Return the first host of SLURM's list, or this machine where the list has no other."""
    found = FIRST_HOST.match(hosts)
    if found is None or found.group() == hosts and "[" not in hosts:
        return "127.0.0.1"
    return RANGE.sub(r"\1", found.group())


def _tasks_here(environment: Mapping[str, str], tasks: int, hosts: str) -> int:
    texts = map(environment.get, ("SLURM_STEP_TASKS_PER_NODE", "SLURM_TASKS_PER_NODE"))
    text = next(filter(None, texts), "")
    on_each = [int(number) for number, times in TASKS.findall(text) for _ in range(int(times or 1))]
    node = _number(environment, "SLURM_NODEID", 0)
    if node < len(on_each):
        return on_each[node]
    if first_host(hosts) == "127.0.0.1":
        return tasks
    return _number(environment, "SLURM_NTASKS_PER_NODE", 1 + _number(environment, "SLURM_LOCALID", 0))


def _number(environment: Mapping[str, str], variable: str, default: int | None = None) -> int:
    text = environment.get(variable)
    if text is None and default is not None:
        return default
    try:
        return int(text or "")
    except ValueError:
        raise RunError(f"the environment's {variable} must be a whole number, not {text!r}; srun sets it") from None
