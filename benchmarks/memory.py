"""The memory of a training step: what its forward pass keeps, and on a GPU its peak."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn


def saved_bytes(network: nn.Module, run: Callable[[], object]) -> int:
    """Return the bytes that one forward pass `run` of `network` keeps for the backward pass, parameters and buffers
    left out."""
    own = {tensor.untyped_storage().data_ptr() for tensor in [*network.parameters(), *network.buffers()]}
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    # The tensors must stay alive until the sum is taken, or their addresses would be used again.
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        result = run()
    total = sum(kept.values())
    del result
    return total


def own_bytes(network: nn.Module, optimizer: torch.optim.Optimizer | None = None) -> int:
    """Return the bytes of a network's parameters and buffers, and of the optimizer's state."""
    tensors = [*network.parameters(), *network.buffers()]
    if optimizer is not None:
        tensors += [
            value for state in optimizer.state.values() for value in state.values() if isinstance(value, Tensor)
        ]
    return _bytes(tensors)


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum({tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors}.values())


def peak_bytes(run: Callable[[], object], network: nn.Module, optimizer: torch.optim.Optimizer | None = None) -> int:
    """Return the peak of the GPU's allocated memory during `run`, as if the network were alone on the GPU.

    What else lies there is subtracted, and the network's and the optimizer's own tensors are added. `run` frees what
    it makes, and the gradients must be None before.
    """
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    run()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before + own_bytes(network, optimizer)


def memory_note(kind: str, what: str) -> str:
    """Return what a table's memory is.

    Args:
        kind: of device, "cuda" or "cpu".
        what: is trained, in words.
    """
    if kind == "cuda":
        return f"MiB: peak allocated in a round, weights and optimizer included, as if the {what} were alone."
    return "MiB: what the forward pass of training keeps for the backward pass besides the parameters."


def clean() -> None:
    """Free what was timed, compiled forms included: a compiler that has seen one class often enough stops compiling."""
    torch.compiler.reset()
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
