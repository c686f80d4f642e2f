"""Classification and segmentation on the GPU, and two processes with NCCL."""

from __future__ import annotations

import copy
import json

import cv2
import numpy as np
import pytest
import torch

CIFAR = ("--config", "cifar10_resnet20.yaml")
SYNTHETIC = (
    *(
        "DATA.SYNTHETIC",
        True,
        "MODEL.NUM_CLASSES",
        10,
        "SOLVER.MAX_ITER",
        6,
        "SOLVER.STEPS",
        "(5,)",
    ),
    *("SOLVER.IMS_PER_BATCH", 16, "SOLVER.REFERENCE_BATCH_SIZE", 16, "SOLVER.LOG_PERIOD", 1),
)


def losses(folder) -> list[float]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line["total_loss"] for line in lines if "total_loss" in line]


def test_classification_starts_as_on_the_cpu(tool, tmp_path):
    for name, where in (("own", {}), ("cpu", {"where": "cpu"})):
        tool("pretrain.py", *CIFAR, "--output-dir", tmp_path / name, *SYNTHETIC, **where)
    own, cpu = losses(tmp_path / "own"), losses(tmp_path / "cpu")
    assert own[0] == pytest.approx(cpu[0], rel=5e-3)
    assert own[:3] == pytest.approx(cpu[:3], rel=5e-2)


@pytest.fixture(scope="module")
def plain(tool, tmp_path_factory):
    """Return the losses of a training without CUDA graphs."""
    folder = tmp_path_factory.mktemp("plain")
    tool("pretrain.py", *CIFAR, "--output-dir", folder, *SYNTHETIC)
    return losses(folder)


@pytest.mark.parametrize(
    "graphs",
    [("MODEL.COMPILE", True, "MODEL.COMPILE_MODE", "reduce-overhead"), ("MODEL.CUDA_GRAPHS", True)],
    ids=["compiled", "plain"],
)
def test_cuda_graphs_learn_the_same(tool, device, plain, tmp_path, graphs):
    if device == "cpu":
        pytest.skip("CUDA graphs are a GPU's")
    tool("pretrain.py", *CIFAR, "--output-dir", tmp_path, *SYNTHETIC, *graphs)
    assert losses(tmp_path)[:3] == pytest.approx(plain[:3], rel=5e-2)


def test_cuda_graphs_train_as_the_passes_that_they_hold(device):
    """Losses, gradients and statistics of BN over three steps, in float32 and bfloat16."""
    if device == "cpu":
        pytest.skip("CUDA graphs are a GPU's")
    import backbone
    from backbone.engine.graphs import GraphedNetwork

    torch.manual_seed(0)
    own = backbone.create("cifar_resnet20", num_classes=10, out_features=("logits",), norm="bn").to(device).train()
    other = copy.deepcopy(own)
    graphed = GraphedNetwork(other, "logits")
    with torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False):
        for step in range(6):
            images = torch.randn(16, 3, 32, 32, device=device)
            with torch.autocast("cuda", torch.bfloat16, enabled=step >= 3):
                found = [own(images)["logits"], graphed(images)]
            near = {"rtol": 1e-2, "atol": 1e-2} if step >= 3 else {"rtol": 1e-4, "atol": 1e-5}
            assert torch.allclose(*found, **near)
            for network, logits in zip((own, other), found):
                network.zero_grad(set_to_none=True)
                logits.float().square().mean().backward()
            for a, b in zip(own.parameters(), other.parameters()):
                assert torch.allclose(a.grad, b.grad, rtol=0, atol=float(near["rtol"] * a.grad.abs().max()))
    for a, b in zip(own.buffers(), other.buffers()):
        assert torch.allclose(a, b, rtol=1e-2, atol=1e-2)


def test_cuda_graphs_beside_a_loader(tool, tmp_path):
    """Its thread moves images to the GPU while graphs are made."""
    random = np.random.default_rng(0)
    for name in ("dark", "light"):
        (tmp_path / "images" / name).mkdir(parents=True)
        for number in range(16):
            pixels = random.integers(0, 128, (72, 80, 3)).astype(np.uint8) + np.uint8(100 * (name == "light"))
            cv2.imwrite(str(tmp_path / "images" / name / f"{number}.png"), pixels)
    keys = {
        "MODEL.CUDA_GRAPHS": True, "INPUT.TRAIN_SIZE": 64, "INPUT.TEST_SIZE": 64, "INPUT.TEST_SHORTER_SIDE": 64,
        "INPUT.SHORTER_SIDE": (64, 80), "DATALOADER.NUM_WORKERS": 2, "TEST.FINAL_PROTOCOLS": (),
        "TEST.PROTOCOL": "1crop", "TEST.PRECISE_BN.ENABLED": False, "TEST.MISTAKES": 0,
        "SOLVER.MAX_ITER": 4, "SOLVER.IMS_PER_BATCH": 8, "SOLVER.REFERENCE_BATCH_SIZE": 8, "SOLVER.LOG_PERIOD": 1,
    }  # fmt: skip
    flags = ("--config", "imagenet_resnet18.yaml", "--train", tmp_path / "images", "--val", tmp_path / "images")
    tool("pretrain.py", *flags, "--output-dir", tmp_path / "run", *[word for pair in keys.items() for word in pair])
    assert len(losses(tmp_path / "run")) == 4


def test_segmentation(tool, tmp_path):
    keys = ("SOLVER.MAX_ITER", 3, "SOLVER.IMS_PER_BATCH", 2, "SOLVER.REFERENCE_BATCH_SIZE", 2, "DATA.VAL_IMAGES", 3)
    sizes = ("INPUT.TRAIN_SIZE", 64, "SOLVER.WARMUP_ITERS", 0, "TEST.PICTURES", 0)
    tool("train_segmentation.py", "--config", "mini_fcn_r18.yaml", "--output-dir", tmp_path, *keys, *sizes)
    assert (tmp_path / "results.json").is_file()


def test_two_gpus(tool, device, tmp_path):
    if device == "cuda" and torch.cuda.device_count() < 2:
        pytest.skip("needs two GPUs")
    tool("pretrain.py", *CIFAR, "--output-dir", tmp_path, "--num-processes", 2, *SYNTHETIC)
    assert (tmp_path / "model_final.pth").is_file()
