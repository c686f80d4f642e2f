"""SLURM's variables, as srun, sbatch and salloc set them."""

from __future__ import annotations

import argparse
import multiprocessing
import os
import socket
from pathlib import Path

import pytest

from backbone.common.cli import Parser
from backbone.common.errors import RunError
from backbone.engine import distributed, slurm
from backbone.engine.arguments import add_run_arguments, launch_of
from backbone.engine.processes import Launch, run

TASK = {"SLURM_PROCID": "5", "SLURM_NTASKS": "12", "SLURM_LOCALID": "1", "SLURM_JOB_NODELIST": "n[003-007,9],x"}
STEP = {"SLURM_STEP_NUM_TASKS": "12", "SLURM_NODEID": "2", "SLURM_STEP_TASKS_PER_NODE": "4,2(x2),4"}


def taken(environment: dict[str, str]) -> dict[str, str]:
    found = dict(environment)
    slurm.take_over(found)
    return {key: value for key, value in found.items() if key not in environment}


@pytest.mark.parametrize(
    "hosts,first",
    [
        ("", "127.0.0.1"),
        ("gpu07", "127.0.0.1"),
        ("gpu07,gpu09", "gpu07"),
        ("gpu[007-010,012],cpu1", "gpu007"),
        ("rack[1-2]-node[08,10].cluster", "rack1-node08.cluster"),
        ("gpu[3]", "gpu3"),
        ("a,gpu[1-2]", "a"),
    ],
)
def test_first_host(hosts, first):
    assert slurm.first_host(hosts) == first


def test_tasks_of_srun_become_ranks():
    expected = {"RANK": "5", "WORLD_SIZE": "12", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "n003"}
    assert taken({**TASK, **STEP}) == {**expected, "MASTER_PORT": "20000"}
    assert taken({**TASK, **STEP, "SLURM_JOB_ID": "34567", "SLURM_STEP_ID": "1"})["MASTER_PORT"] == "30568"
    given = taken({**TASK, **STEP, "MASTER_ADDR": "other", "MASTER_PORT": "77"})
    assert given == {key: value for key, value in expected.items() if key != "MASTER_ADDR"}
    # A list of one host: all tasks are here.
    alone = {"SLURM_PROCID": "0", "SLURM_NTASKS": "2", "SLURM_LOCALID": "0", "SLURM_JOB_NODELIST": "gpu07"}
    assert taken(alone)["LOCAL_WORLD_SIZE"] == "2" and taken(alone)["MASTER_ADDR"] == "127.0.0.1"


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"SLURM_NTASKS": "4", "SLURM_JOB_NODELIST": "n[1-4]"},  # the shell of salloc
        {**TASK, "SLURM_STEP_NUM_TASKS": "1"},  # the same where it is a step of its own
        {**TASK, "SLURM_PROCID": "0", "SLURM_JOB_NAME": "bash"},
        {**TASK, "SLURM_PROCID": "0", "ENVIRONMENT": "BATCH"},  # the script of sbatch
        {**TASK, "SLURM_NTASKS": "1", "SLURM_PROCID": "0"},
        {**TASK, **STEP, "RANK": "0", "WORLD_SIZE": "2"},  # torchrun below srun
    ],
)
def test_what_is_one_process_stays_one(environment):
    assert taken(environment) == {}


@pytest.mark.parametrize(
    "change,message",
    [
        ({"SLURM_PROCID": "12"}, "SLURM_PROCID must be 0 to 11, not 12"),
        ({"SLURM_PROCID": "x"}, "SLURM_PROCID must be a whole number, not 'x'"),
        ({"SLURM_STEP_NUM_TASKS": ""}, "SLURM_STEP_NUM_TASKS must be a whole number"),
    ],
)
def test_wrong_variables_are_named(change, message):
    with pytest.raises(RunError, match=message):
        taken({**TASK, **STEP, **change})


def test_processes_beside_those_of_srun_are_refused(monkeypatch):
    for key, value in {**TASK, **STEP, **taken({**TASK, **STEP})}.items():
        monkeypatch.setenv(key, value)
    with pytest.raises(RunError, match="under srun, which has started 2 here: give it --ntasks-per-node 4"):
        Launch("cpu", processes=4).check()
    Launch("cpu", processes=2).check()


def test_two_tasks_are_one_run(tmp_path):
    """Two processes with the variables of srun, and no others, meet as one run."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    task = {"SLURM_NTASKS": "2", "SLURM_JOB_NODELIST": "here", "MASTER_PORT": port}
    context, flags = multiprocessing.get_context("fork"), make_flags()
    tasks = [
        context.Process(target=as_task, args=({**task, "SLURM_PROCID": rank, "SLURM_LOCALID": rank}, flags, tmp_path))
        for rank in "01"
    ]
    for process in tasks:
        process.start()
    for process in tasks:
        process.join(200)
        assert process.exitcode == 0
    assert (tmp_path / "0").read_text() == (tmp_path / "1").read_text() == "2 processes: [10, 11]"


def make_flags() -> argparse.Namespace:
    parser = Parser("", "")
    add_run_arguments(parser)
    return parser.parse_args(["--config", "any.yaml"])


def as_task(variables: dict[str, str], flags: argparse.Namespace, folder: Path) -> None:
    os.environ.update(variables)
    run(take_part, launch_of(flags, "cpu"), (folder,))


def take_part(folder: Path) -> None:
    found = distributed.gather(10 + distributed.rank())
    (folder / str(distributed.rank())).write_text(f"{distributed.world_size()} processes: {found}")
