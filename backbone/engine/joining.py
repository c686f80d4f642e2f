"""How the processes of a run find each other: at a store, by name, with a limit, and on an interface that all reach.

The first process hosts the store, or torchrun does. Each of the others leaves a word there under a number of its own
and the first one answers it with the number of this start. So a store that outlives a restart (torchrun's does) leads
nobody to the addresses of processes that are gone.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import torch.distributed as dist

from ..common.errors import PeerError, ProcessError, RunError, UserError
from ..common.text import count
from . import interfaces
from .record import LOGGER

log = logging.getLogger(LOGGER)

# How long a process waits for the others at the start.
JOINING = timedelta(minutes=10)
# How long it waits for them later: longer than an evaluation of a large set on rank 0.
TIMEOUT = timedelta(hours=2)
# Seconds before it says what it waits for.
QUIET = 5.0
# Seconds between a process's signs of life, and those within which each must have given one.
BEAT, ROLL_CALL = 1.0, 4.0


@dataclass(frozen=True)
class Meeting:
    """Where a process meets the others.

    Attributes:
        hosts: whether this process hosts the store.
        speaks: whether it says what it waits for; one on each machine does.
        beats: whether the processes show each other that they live.
    """

    host: str
    port: int
    rank: int
    world_size: int
    hosts: bool
    speaks: bool = True
    beats: bool = True

    def __str__(self) -> str:
        return f"tcp://{self.host}:{self.port}"


def address_of(url: str) -> tuple[str, int]:
    """Return host and port of tcp://HOST:PORT.

    Raises:
        RunError: it is nothing of the kind, or the host is not known.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if not host or not port or parts.scheme != "tcp" or parts.path not in ("", "/"):
        raise RunError(f"--dist-url must be tcp://HOST:PORT of machine 0, not {url!r}")
    check_host(host)
    return host, port


def check_host(host: str) -> None:
    """Raise RunError where a host name has no address."""
    try:
        socket.getaddrinfo(host, None)
    except OSError as error:
        raise RunError(f"the host {host!r} of machine 0 is not known here: {error.strerror or error}") from None


@dataclass(frozen=True)
class Roll:
    """The processes of this start.

    Attributes:
        store: as it was found; torchrun's lasts over restarts.
        own: the same, with keys of this start alone.
        beats: see Meeting.
        places: by rank, {"host": name, "address": from which it reaches the store, "launcher": see _launcher}.
    """

    store: Any
    own: Any
    rank: int
    beats: bool
    places: list[dict[str, str]]


_roll: Roll | None = None


def join(meeting: Meeting, backend: str) -> None:
    """Start torch's process group with all processes of the run.

    Raises:
        RunError: the address cannot be used, or processes have not come within JOINING.
    """
    global _roll
    _roll = _call_roll(_store_at(meeting), meeting)
    if meeting.beats:
        ended = threading.Event()
        thread = threading.Thread(target=_beat, args=(_roll, ended), daemon=True)
        thread.start()
        atexit.register(_end_beat, thread, ended)
    if "GLOO_SOCKET_IFNAME" not in os.environ and (name := _interface(_roll)):
        # gloo takes the one that the host's own name stands for, often the loopback, which other machines do not reach.
        os.environ["GLOO_SOCKET_IFNAME"] = name
    try:
        dist.init_process_group(
            backend, store=_roll.own, rank=meeting.rank, world_size=meeting.world_size, timeout=TIMEOUT
        )
    except (ValueError, RuntimeError) as error:
        raise ProcessError(
            f"the processes cannot meet at {meeting}: {str(error).splitlines()[0]}; if the machines have several "
            "networks, name the one between them in GLOO_SOCKET_IFNAME (and NCCL_SOCKET_IFNAME), such as eth0"
        ) from None


def _store_at(meeting: Meeting) -> Any:
    """Return the store of the run, made here or by another process."""
    check_host(meeting.host)
    settings = {"timeout": TIMEOUT, "wait_for_workers": False, "multi_tenant": True}
    if not meeting.hosts:
        wait = _Wait(meeting, lambda: f"process 0, which is to listen at {meeting}")
        while not _listens(meeting):
            wait.a_little()
    try:
        return dist.TCPStore(meeting.host, meeting.port, meeting.world_size, meeting.hosts, **settings)
    except (ValueError, RuntimeError) as error:
        raise RunError(f"{meeting} cannot be used: {str(error).splitlines()[0]}") from None


def _listens(meeting: Meeting) -> bool:
    try:
        socket.create_connection((meeting.host, meeting.port), timeout=2).close()
    except OSError:
        return False
    return True


def _call_roll(store: Any, meeting: Meeting) -> Roll:
    address = interfaces.source_address(meeting.host)
    place = {"host": socket.gethostname(), "address": address, "launcher": _launcher()}
    call = _first_calls if meeting.rank == 0 else _another_answers
    start = call(store, meeting, json.dumps(place))
    own = dist.PrefixStore(start, store)
    places = [json.loads(own.get(f"place/{rank}")) for rank in range(meeting.world_size)]
    return Roll(store, own, meeting.rank, meeting.beats, places)


def _first_calls(store: Any, meeting: Meeting, place: str) -> str:
    """Answer every word that is left, until all processes have taken their answer; return the number of this start."""
    start = uuid.uuid4().hex
    store.set(f"{start}/place/0", place)
    missing, answered = set(range(1, meeting.world_size)), {}

    wait = _Wait(meeting, lambda: f"{_processes(missing)} of {meeting.world_size} at {meeting}")
    while missing:
        for rank in sorted(missing):
            # The word may be of a former start: then nobody reads the answer.
            if store.check([f"word/{rank}"]) and (word := store.get(f"word/{rank}").decode()) != answered.get(rank):
                answered[rank] = word
                store.set(f"answer/{word}", start)
            if store.check([f"{start}/place/{rank}"]):
                missing.remove(rank)
        if missing:
            wait.a_little()
    store.set(f"{start}/complete", "")
    return start


def _another_answers(store: Any, meeting: Meeting, place: str) -> str:
    """Leave a word and wait for the first process's answer; return the number of this start."""
    word = uuid.uuid4().hex
    store.set(f"word/{meeting.rank}", word)
    wait = _Wait(meeting, lambda: f"process 0 at {meeting}")
    while not store.check([f"answer/{word}"]):
        wait.a_little()
    start = store.get(f"answer/{word}").decode()
    store.set(f"{start}/place/{meeting.rank}", place)
    # The first process, which knows who is missing, gives up before this one.
    wait = _Wait(meeting, lambda: f"the other processes at {meeting}", more=2 * QUIET)
    while not store.check([f"{start}/complete"]):
        wait.a_little()
    return start


class _Wait:
    """Waits in small steps: says after a while what for, and gives up after JOINING.

    Args:
        what: is waited for, in words.
        more: seconds beyond JOINING.
    """

    def __init__(self, meeting: Meeting, what: Callable[[], str], more: float = 0.0) -> None:
        self.what = what
        self.limit = JOINING.total_seconds() + more
        self.began = time.monotonic()
        self.message = not meeting.speaks

    def a_little(self) -> None:
        waited = time.monotonic() - self.began
        if waited > self.limit:
            raise ProcessError(f"waited {self.limit / 60:.0f} minutes for {self.what()} in vain; start them, or fewer")
        if waited > QUIET and not self.message:
            self.message = True
            log.warning("waiting for %s, %.0f minutes at most", self.what(), self.limit / 60)
        time.sleep(min(0.5, 0.02 + waited / 10))


def _interface(roll: Roll) -> str | None:
    """Return the network interface over which the others reach this process; None leaves it to gloo."""
    address = roll.places[roll.rank]["address"]
    if interfaces.is_loopback(address):
        # The store is on this machine. Where other machines take part, it is the way to them that counts.
        others = (place["address"] for place in roll.places)
        elsewhere = next((other for other in others if other and not interfaces.is_loopback(other)), None)
        address = interfaces.source_address(elsewhere) if elsewhere else address
    return interfaces.interface_of(address)


def first_of_this_machine() -> int:
    """Return the lowest rank of the processes whose host has the name of this one's."""
    if _roll is None:
        return 0
    hosts = [place["host"] for place in _roll.places]
    return hosts.index(hosts[_roll.rank])


def lost_peers() -> str:
    """Return in words which processes do not answer any more. For the processes that have lost one."""
    if _roll is None or not _roll.beats:
        return "another process of the run ended or cannot be reached"
    missing = sorted(set(range(len(_roll.places))) - _living(_roll))
    if not missing:
        return "the connection between the processes broke"
    hosts = sorted({_roll.places[rank]["host"] for rank in missing})
    return f"{_processes(missing)} of {len(_roll.places)} (on {', '.join(hosts)}) ended or cannot be reached"


def _beat(roll: Roll, ended: threading.Event) -> None:
    """Show that this process lives, whatever its main thread waits for."""
    # A connection of its own: the main thread's may be waiting.
    store = dist.PrefixStore("alive", roll.own.clone())
    with contextlib.suppress(RuntimeError):
        while not ended.is_set():
            store.add(str(roll.rank), 1)
            ended.wait(BEAT)


def _end_beat(thread: threading.Thread, ended: threading.Event) -> None:
    """End the thread before Python ends: one that comes back from torch later aborts the process (SIGABRT)."""
    ended.set()
    thread.join(ROLL_CALL)


def _living(roll: Roll) -> set[int]:
    store = dist.PrefixStore("alive", roll.own.clone())

    def beats() -> list[int]:
        return [store.add(str(rank), 0) for rank in range(len(roll.places))]

    try:
        before = beats()
        time.sleep(ROLL_CALL)
        after = beats()
        if roll.rank == 0:
            # Its process may hold the store, in which the others look too.
            time.sleep(ROLL_CALL)
    except RuntimeError:
        # The store went with its process.
        return set(range(1, len(roll.places)))
    return {rank for rank in range(len(roll.places)) if after[rank] > before[rank]} | {roll.rank}


def launchers() -> list[str]:
    """Return the torchruns that have started the processes of this run, one a machine; none without torchrun.

    A torchrun that starts its processes again has the same name, whatever became of the others and of their store.
    """
    return sorted({place["launcher"] for place in _roll.places} - {""}) if _roll is not None else []


def _launcher() -> str:
    """Return a name of the torchrun that has started this process, which no other one has; "" where none has."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return ""
    parent = os.getppid()
    try:
        # The 22nd value: when it started. The second one, its name in brackets, may hold blanks.
        started = Path(f"/proc/{parent}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):  # not Linux
        started = ""
    return f"{socket.gethostname()} {parent} {started} {os.environ['TORCHELASTIC_RUN_ID']}"


def is_said(error: UserError) -> bool | None:
    """Whether another process says this error; of a lost process, whether another says anything. None: not known."""
    if _roll is None:
        return None
    peer = isinstance(error, PeerError)
    try:
        if not peer:
            _roll.own.set("said", "")
        elif _roll.own.check(["said"]):
            return True
        return _roll.own.add("peer" if peer else str(error), 1) > 1
    except RuntimeError:
        return None


def _processes(ranks: Collection[int]) -> str:
    return f"{count(len(ranks), 'process', 'processes')} ({', '.join(map(str, sorted(ranks)))})"
