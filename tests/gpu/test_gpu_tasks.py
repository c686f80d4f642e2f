"""Classification and segmentation on the GPU, and two processes with NCCL."""

from __future__ import annotations

import json

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


def test_cuda_graphs_learn_the_same(tool, device, tmp_path):
    if device == "cpu":
        pytest.skip("CUDA graphs are a GPU's")
    tool("pretrain.py", *CIFAR, "--output-dir", tmp_path / "plain", *SYNTHETIC)
    graphs = ("MODEL.COMPILE", True, "MODEL.COMPILE_MODE", "reduce-overhead")
    tool("pretrain.py", *CIFAR, "--output-dir", tmp_path / "graphs", *SYNTHETIC, *graphs)
    assert losses(tmp_path / "graphs")[:3] == pytest.approx(losses(tmp_path / "plain")[:3], rel=5e-2)


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
