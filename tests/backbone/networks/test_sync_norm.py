"""Synchronised BN over two processes on CPUs against BatchNorm2d, in float64, over the joined batch."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import warm_commands
from randomize import relative_error
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from backbone.networks.norm import SyncBatchNorm2d, synchronise_norm

SETTINGS = {
    "plain": {},
    "momentum": {"momentum": 0.3, "eps": 1e-3},
    "cumulative": {"momentum": None},
    "no affine": {"affine": False},
    "no statistics": {"track_running_stats": False},
}
CASES = {**{name: (name, 1.5, torch.float32) for name in SETTINGS}, "offset": ("plain", 1000.0, torch.float32)}
CASES["autocast"] = ("plain", 1.5, torch.bfloat16)
STEPS = 2


def layer(name: str) -> nn.BatchNorm2d:
    norm = nn.BatchNorm2d(3, **SETTINGS[name])
    with torch.no_grad():
        for parameter in norm.parameters():
            parameter.copy_(torch.linspace(0.5, 1.5, 3))
    return norm


def batches(offset: float) -> list[Tensor]:
    """Return STEPS batches of five images; the first process gets two of each, the second three."""
    generator = torch.Generator().manual_seed(2)
    return [torch.randn(5, 3, 4, 6, generator=generator) + offset for _ in range(STEPS)]


def steps(norm: nn.Module, inputs: list[Tensor], part: slice, dtype: torch.dtype) -> dict[str, Tensor]:
    """Run training steps; return the last output and gradient, and the state."""
    for x in inputs:
        x = x[part].clone().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            # What a convolution under autocast gives.
            out = norm(x.to(dtype))
        (out.double() ** 3).sum().backward()
    return {"out": out.detach(), "grad": x.grad, **{name: value.clone() for name, value in norm.state_dict().items()}}


def run(rank: int, folder: Path) -> None:
    os.environ |= {"OMP_NUM_THREADS": "1"}
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    part = slice(0, 2) if rank == 0 else slice(2, 5)
    found = {}
    for name, (settings, offset, dtype) in CASES.items():
        norm = synchronise_norm(layer(settings)).train()
        found[name] = steps(norm, batches(offset), part, dtype)
    # A user's own DistributedDataParallel, and a group of one's own.
    network = nn.Sequential(nn.Conv2d(3, 3, 1), SyncBatchNorm2d(3, process_group=dist.new_group([0, 1])))
    wrapped = DistributedDataParallel(network)
    wrapped(batches(0.0)[0][part]).sum().backward()
    found["wrapped"] = network[1].running_mean
    with pytest.raises(ValueError, match="more than 1 value"):
        SyncBatchNorm2d(3)(torch.ones(1 - rank, 3, 1, 1))
    torch.save(found, folder / f"{rank}.pth")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def found(tmp_path_factory) -> list[dict]:
    folder = tmp_path_factory.mktemp("sync")
    warm_commands.call(run, folder)
    return [torch.load(folder / f"{rank}.pth") for rank in (0, 1)]


@pytest.mark.parametrize("name", CASES)
def test_equals_bn_over_the_joined_batch(found, name):
    settings, offset, dtype = CASES[name]
    expected = steps(
        layer(settings).double(), [batch.double() for batch in batches(offset)], slice(0, 5), torch.float64
    )
    parts = [result[name] for result in found]
    assert all(part["out"].dtype == dtype for part in parts)
    assert parts[0].keys() == expected.keys()
    # A float32 of about 1000 is right to 6e-5 itself.
    limit = {1000.0: 2e-4}.get(offset, 0.02 if dtype == torch.bfloat16 else 2e-6)
    for key in ("out", "grad"):
        assert relative_error(torch.cat([part[key] for part in parts]).double(), expected[key]) < limit, key
    for key in expected.keys() - {"out", "grad"}:
        assert torch.equal(parts[0][key], parts[1][key])
        assert torch.allclose(parts[0][key].double(), expected[key].double(), rtol=limit, atol=limit), key


def test_in_a_users_own_ddp(found):
    assert torch.equal(found[0]["wrapped"], found[1]["wrapped"]) and found[0]["wrapped"].abs().max() > 0


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_one_process_alone_is_bn(settings, dtype, tmp_path):
    """Also where a process group of one has been made."""
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/meet", rank=0, world_size=1)
    try:
        found = steps(synchronise_norm(layer(settings)), batches(1.5), slice(0, 5), dtype)
    finally:
        dist.destroy_process_group()
    for key, value in steps(layer(settings), batches(1.5), slice(0, 5), dtype).items():
        assert torch.equal(found[key], value), key


@pytest.mark.parametrize("settings", SETTINGS)
def test_has_all_that_torchs_forward_asks_for(settings):
    """On a GPU nn.SyncBatchNorm.forward runs on this module."""
    norm, x = synchronise_norm(layer(settings)), batches(1.5)[0]
    assert torch.equal(nn.SyncBatchNorm.forward(norm, x), layer(settings)(x))
