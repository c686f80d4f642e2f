"""CUDA graphs of a network's forward and backward pass: MODEL.CUDA_GRAPHS.

The kernels of a small network take less time than starting them one by one. A graph starts all of a pass at once.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

FORMS = 4  # sizes and precisions whose graphs are kept: a whole batch, its parts, the last of each
WARM_UP = 3  # passes before the one that is recorded: the libraries choose their kernels


class GraphedNetwork:
    """Calls a network in training through CUDA graphs, a pair for each size and precision of input.

    A pair is made when its first input comes. That takes a few passes, of which nothing stays: neither in the
    statistics of BN nor in the generator. Gradients go to the parameters' `grad`, past hooks on the parameters: for one
    process, not for DistributedDataParallel.

    Args:
        network: on a GPU, in train mode. Its parameters and buffers must stay where they are.
        output: which of its outputs is returned.
    """

    def __init__(self, network: nn.Module, output: str) -> None:
        self.network = network
        self.output = output
        self._made: dict[object, _Passes] = {}
        # Autograd runs a backward pass only towards something that wants gradients.
        self._anchor = torch.zeros((), requires_grad=True)

    def __call__(self, images: Tensor) -> Tensor:
        """Return the output for (N, C, H, W) images; the next call writes over it."""
        dtype = torch.get_autocast_dtype("cuda") if torch.is_autocast_enabled("cuda") else None
        form = images.shape, images.stride(), images.dtype, dtype
        if form not in self._made:
            while len(self._made) >= FORMS:
                # Each holds the memory of its activations.
                self._made.pop(next(iter(self._made)))
            self._made[form] = _Passes(self.network, self.output, images, dtype)
        return _Replay.apply(images, self._anchor, self._made[form])


class _Passes:
    """The two graphs for one form of input, and the memory that they read and write.

    Attributes:
        images, output, grad: of the forward pass, and the gradient of its output.
    """

    def __init__(self, network: nn.Module, output: str, images: Tensor, dtype: torch.dtype | None) -> None:
        self.images = images.detach().clone()
        self.calls = 0
        self.parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
        buffers = list(network.buffers())
        kept, generator = [buffer.clone() for buffer in buffers], torch.cuda.get_rng_state(images.device)

        def forward() -> Tensor:
            # What autocast keeps from pass to pass would not be in the graph.
            with torch.autocast("cuda", dtype, enabled=dtype is not None, cache_enabled=False):
                return network(self.images)[output]

        def backward(result: Tensor, grad: Tensor) -> tuple[Tensor | None, ...]:
            return torch.autograd.grad(result, self.parameters, grad, allow_unused=True)

        with torch.enable_grad():
            stream = torch.cuda.Stream()
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                for _ in range(WARM_UP):
                    result = forward()
                    backward(result, torch.zeros_like(result))
            torch.cuda.current_stream().wait_stream(stream)
            del result
            pool = torch.cuda.graph_pool_handle()
            self._forward, self._backward = torch.cuda.CUDAGraph(), torch.cuda.CUDAGraph()
            # A loader's thread may use the GPU meanwhile.
            with torch.cuda.graph(self._forward, pool=pool, capture_error_mode="thread_local"):
                result = forward()
            self.grad = torch.zeros_like(result)
            with torch.cuda.graph(self._backward, pool=pool, capture_error_mode="thread_local"):
                self.grads = backward(result, self.grad)
        self.output = result.detach()
        with torch.no_grad():
            for buffer, value in zip(buffers, kept):
                buffer.copy_(value)
        torch.cuda.set_rng_state(generator, images.device)

    def forward(self, images: Tensor) -> Tensor:
        self.calls += 1
        self.images.copy_(images)
        self._forward.replay()
        return self.output.detach()

    def backward(self, grad: Tensor, call: int) -> None:
        """Add the gradients to the parameters' own.

        Raises:
            RuntimeError: `call` is not the last forward pass, or had its backward pass.
        """
        if call != self.calls:
            raise RuntimeError("the backward pass of a CUDA graph follows its own forward pass, once")
        self.calls += 1
        self.grad.copy_(grad)
        # They may lie where the graph writes.
        before = [None if parameter.grad is None else parameter.grad.clone() for parameter in self.parameters]
        self._backward.replay()
        for parameter, there, new in zip(self.parameters, before, self.grads):
            if new is not None:
                parameter.grad = new if there is None else there.add_(new)


class _Replay(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, images: Tensor, anchor: Tensor, passes: _Passes) -> Tensor:
        output = passes.forward(images)
        context.passes, context.call = passes, passes.calls
        return output

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(context: Any, grad: Tensor) -> tuple[None, None, None]:
        context.passes.backward(grad, context.call)
        return None, None, None
