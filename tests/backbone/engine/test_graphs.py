"""CUDA graphs of a network, with stand-ins for CUDA's recording: a replay runs the recorded pass again, in place."""

from __future__ import annotations

import contextlib
import copy
from types import SimpleNamespace

import pytest
import torch

import backbone
from backbone.engine import graphs
from backbone.engine.graphs import GraphedNetwork


def stand_in(monkeypatch):
    """Let torch.cuda record nothing."""
    stream = type("Stream", (), {"wait_stream": lambda self, other: None})
    replaced = {
        "get_rng_state": lambda device: torch.get_rng_state(),
        "set_rng_state": lambda state, device: torch.set_rng_state(state),
        "graph_pool_handle": lambda: (0, 1),
        "Stream": stream,
        "current_stream": stream,
        "stream": lambda one: contextlib.nullcontext(),
        "CUDAGraph": lambda: None,
        "graph": lambda *_, **__: contextlib.nullcontext(),
    }
    for name, function in replaced.items():
        monkeypatch.setattr(torch.cuda, name, function)


@pytest.fixture
def graphed(monkeypatch):
    """Return a network and its twin that is called through replays, which run the passes as they would be recorded."""
    stand_in(monkeypatch)
    made = []

    class Passes(graphs._Passes):
        def __init__(self, network, output, images, dtype):
            made.append((tuple(images.shape), dtype))
            super().__init__(network, output, images, dtype)
            self._forward = SimpleNamespace(replay=self.pass_forward)
            self._backward = SimpleNamespace(replay=self.pass_backward)
            self.network, self.name = network, output

        def pass_forward(self):
            with torch.enable_grad():
                self.result = self.network(self.images)[self.name]
            self.output.copy_(self.result.detach())

        def pass_backward(self):
            found = torch.autograd.grad(self.result, self.parameters, self.grad)
            for there, new in zip(self.grads, found):
                there.copy_(new)

    monkeypatch.setattr(graphs, "_Passes", Passes)
    torch.manual_seed(0)
    own = backbone.create("cifar_resnet20", num_classes=10, out_features=("logits",), norm="bn").train()
    twin = copy.deepcopy(own)
    return own, twin, GraphedNetwork(twin, "logits"), made


def step(network, call, images):
    call(images).square().mean().backward()
    return [parameter.grad.clone() for parameter in network.parameters()]


def test_gradients_and_statistics_are_those_of_the_network(graphed):
    own, twin, call, made = graphed
    state = torch.get_rng_state()
    for size in (4, 4, 2):
        images = torch.randn(size, 3, 32, 32)
        for network in (own, twin):
            network.zero_grad(set_to_none=True)
        before = torch.get_rng_state()
        found = step(own, lambda images: own(images)["logits"], images), step(twin, call, images)
        assert all(torch.equal(a, b) for a, b in zip(*found))
        assert torch.equal(before, torch.get_rng_state()), "making a graph draws nothing"
    assert not torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(a, b) for a, b in zip(own.buffers(), twin.buffers())), "nothing stays of its first passes"
    assert made == [((4, 3, 32, 32), None), ((2, 3, 32, 32), None)], "one for each size"


def test_gradients_add_up_until_they_are_cleared(graphed):
    own, twin, call, _ = graphed
    for _ in range(2):
        images = torch.randn(4, 3, 32, 32)
        found = step(own, lambda images: own(images)["logits"], images), step(twin, call, images)
    assert all(torch.allclose(a, b, rtol=1e-5, atol=1e-7) for a, b in zip(*found))


def test_a_backward_pass_follows_its_forward_pass(graphed):
    _, _, call, _ = graphed
    first, second = (call(torch.randn(2, 3, 32, 32)).sum() for _ in range(2))
    with pytest.raises(RuntimeError, match="follows its own forward pass, once"):
        first.backward()
    second.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="follows its own forward pass, once"):
        second.backward()


def test_graphs_of_a_few_sizes_are_kept(graphed):
    _, _, call, made = graphed
    for size in (1, 2, 3, 4, 5, 5, 1):
        call(torch.randn(size, 3, 32, 32))
    assert [shape[0] for shape, _ in made] == [1, 2, 3, 4, 5, 1] and len(call._made) == graphs.FORMS
