"""What the processes of a run do together; each call is a plain one where a single process runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.distributed as dist

from ..common.errors import UserError
from .joining import TIMEOUT, first_of_this_machine


def is_distributed() -> bool:
    """Whether more than one process runs."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def rank() -> int:
    """Return the number of this process among those of all machines, from 0."""
    return dist.get_rank() if is_distributed() else 0


def world_size() -> int:
    """Return the number of processes on all machines."""
    return dist.get_world_size() if is_distributed() else 1


def is_main() -> bool:
    """Whether this process writes files and reports."""
    return rank() == 0


def gather(value: Any) -> list[Any]:
    """Return every process's `value`, by rank, in every process. Any picklable value."""
    if not is_distributed():
        return [value]
    values: list[Any] = [None] * world_size()
    dist.all_gather_object(values, value, group=_over_cpus())
    return values


def gather_to_main(value: Any) -> list[Any]:
    """Return every process's `value`, by rank, in the main process; an empty list in the others."""
    if not is_distributed():
        return [value]
    values: list[Any] | None = [None] * world_size() if is_main() else None
    dist.gather_object(value, values, dst=0, group=_over_cpus())
    return values or []


def made_by_main(make: Callable[[], Any]) -> Any:
    """Return what `make` returns in the main process, in every process; its UserError is every process's."""
    return _made_by(0, make)


def made_once_a_machine(make: Callable[[], Any]) -> Any:
    """Return what `make` returns in the first process of each machine, in all processes of that machine; its UserError
    is theirs too."""
    return _made_by(first_of_this_machine(), make)


def _made_by(maker: int, make: Callable[[], Any]) -> Any:
    if not is_distributed():
        return make()
    made = error = None
    if rank() == maker:
        try:
            made = make()
        except UserError as raised:
            error = raised
    made, error = gather((made, error))[maker]
    if error is not None:
        raise error
    return made


def share(value: Any) -> Any:
    """Return the main process's `value` in every process."""
    if not is_distributed():
        return value
    holder = [value]
    dist.broadcast_object_list(holder, src=0, group=_over_cpus())
    return holder[0]


def mean(values: torch.Tensor) -> torch.Tensor:
    """Return the mean of a tensor of any shape over the processes, in every process. A collective call."""
    if not is_distributed():
        return values
    values = values.clone()
    dist.all_reduce(values)
    return values / world_size()


def share_buffers(model: torch.nn.Module) -> None:
    """Give every process the main one's buffers: the running statistics of BN, which differ by the images seen."""
    share_tensors(model.buffers())


def share_tensors(tensors: Iterable[torch.Tensor]) -> None:
    """Write the main process's values into every process's `tensors`."""
    if is_distributed():
        for tensor in tensors:
            dist.broadcast(tensor, src=0)


def wrap(model: torch.nn.Module, device: torch.device) -> torch.nn.Module:
    """Return the model for training: itself, or in DistributedDataParallel where several processes run."""
    if not is_distributed():
        return model
    # DistributedDataParallel shares the parameters; the buffers it would share at every step.
    share_buffers(model)
    # Gradients that are views of what is sent need not be held, nor copied, twice.
    keywords: dict[str, Any] = {"broadcast_buffers": False, "gradient_as_bucket_view": True}
    if device.type != "cpu":
        keywords["device_ids"] = [device.index if device.index is not None else torch.cuda.current_device()]
    return torch.nn.parallel.DistributedDataParallel(model, **keywords)


def barrier() -> None:
    if is_distributed():
        dist.barrier(group=_over_cpus())


def greatest(*numbers: int) -> list[int]:
    """Return the greatest of each number over all processes. Never waits for a GPU."""
    if not is_distributed():
        return list(numbers)
    values = torch.tensor(numbers)
    dist.all_reduce(values, op=dist.ReduceOp.MAX, group=_over_cpus())
    return values.tolist()


def anyone(flag: bool) -> bool:
    """Return whether `flag` is set in any process. Never waits for a GPU."""
    return bool(greatest(int(flag))[0])


_cpu_group: Any = None


def _over_cpus() -> Any:
    """Return the group for what is no work of the GPUs: it neither waits for them nor fills their memory with the
    predictions of a whole data set. Made at the first call, which every process makes."""
    global _cpu_group
    if _cpu_group is None and dist.get_backend() != "gloo":
        _cpu_group = dist.new_group(backend="gloo", timeout=TIMEOUT)
    return _cpu_group
