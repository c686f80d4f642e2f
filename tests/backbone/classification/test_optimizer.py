"""Momentum in Caffe's form, the average of weights, and which parameters decay."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import backbone
from backbone.classification import load_config
from backbone.classification.optimizer import CaffeSGD, make_optimizer
from backbone.engine.moving_average import MovingAverage

RATES = [0.1, 0.1, 0.01, 0.01, 0.02, 0.001]


def caffe_steps(start: list[float], gradients, rates, momentum: float, decay: float) -> list[float]:
    """The update as Caffe's SGDSolver writes it: history = momentum * history + rate * (gradient + decay * w)."""
    weights, history = list(start), [0.0] * len(start)
    for rate, gradient in zip(rates, gradients):
        for index, value in enumerate(gradient):
            history[index] = momentum * history[index] + rate * (value + decay * weights[index])
            weights[index] -= history[index]
    return weights


def run(kind: type, rates: list[float]) -> list[float]:
    generator = torch.Generator().manual_seed(0)
    parameter = nn.Parameter(torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64))
    optimizer = kind([parameter], lr=rates[0], momentum=0.9, weight_decay=0.01)
    for rate in rates:
        parameter.grad = torch.randn(3, dtype=torch.float64, generator=generator)
        optimizer.param_groups[0]["lr"] = rate
        optimizer.step()
    return parameter.detach().tolist()


def expected(rates: list[float]) -> list[float]:
    generator = torch.Generator().manual_seed(0)
    gradients = [torch.randn(3, dtype=torch.float64, generator=generator).tolist() for _ in rates]
    return caffe_steps([1.0, -2.0, 0.5], gradients, rates, 0.9, 0.01)


def test_steps_are_caffes_where_the_rate_changes():
    assert run(CaffeSGD, RATES) == pytest.approx(expected(RATES), rel=1e-12)
    assert run(torch.optim.SGD, RATES) != pytest.approx(expected(RATES), rel=1e-3)


def test_with_one_rate_it_is_torchs():
    assert run(CaffeSGD, [0.1] * 5) == pytest.approx(run(torch.optim.SGD, [0.1] * 5), rel=1e-12)


def test_its_state_survives_a_checkpoint():
    generator = torch.Generator().manual_seed(0)
    gradients = [torch.randn(3, dtype=torch.float64, generator=generator) for _ in RATES]
    parameter = nn.Parameter(torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64))
    optimizer = CaffeSGD([parameter], lr=RATES[0], momentum=0.9, weight_decay=0.01)
    for step, (rate, gradient) in enumerate(zip(RATES, gradients)):
        if step in (2, 4):  # right before and behind a change of the rate
            again = CaffeSGD([parameter], lr=RATES[0], momentum=0.9, weight_decay=0.01)
            again.load_state_dict(optimizer.state_dict())
            optimizer = again
        parameter.grad = gradient.clone()
        optimizer.param_groups[0]["lr"] = rate
        optimizer.step()
    assert parameter.detach().tolist() == pytest.approx(expected(RATES), rel=1e-12)


def test_norms_and_biases_decay_on_their_own():
    config = load_config("cifar10_resnet20.yaml", ["SOLVER.WEIGHT_DECAY_NORM", "0.0"])
    network = backbone.create("cifar_resnet20", num_classes=10)
    plain, small = make_optimizer(network, config).param_groups
    assert plain["weight_decay"] == 1e-4 and small["weight_decay"] == 0
    assert all(parameter.ndim > 1 for parameter in plain["params"])
    assert len(plain["params"]) + len(small["params"]) == len(list(network.parameters()))


def test_moving_average():
    layer = nn.BatchNorm1d(2)
    average = MovingAverage(layer, decay=0.9)
    wanted = layer.weight.detach().clone()
    for step in range(1, 40):
        with torch.no_grad():
            layer.weight.add_(1.0)
        average.update(layer)
        decay = min(0.9, (1 + step) / (10 + step))
        wanted = decay * wanted + (1 - decay) * layer.weight.detach()
    assert torch.allclose(average.state["weight"], wanted)
    again = MovingAverage(layer, decay=0.9)
    again.load_state_dict(average.state_dict())
    assert again.steps == average.steps and torch.equal(again.state["weight"], average.state["weight"])
