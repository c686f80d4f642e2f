"""Small runs of tools/train_net.py on the mini set, as a user would start them."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
import warm_commands

ROOT = Path(__file__).resolve().parents[3]

# A detector small enough that a step takes about a tenth of a second.
TINY = {
    "SOLVER.IMS_PER_BATCH": 2,
    "SOLVER.REFERENCE_BATCH_SIZE": 2,
    "SOLVER.BASE_LR": 0.005,
    "SOLVER.STEPS": (100,),
    "SOLVER.WARMUP_ITERS": 3,
    "SOLVER.MAX_ITER": 6,
    "SOLVER.CHECKPOINT_PERIOD": 2,
    "SOLVER.LOG_PERIOD": 1,
    "INPUT.MIN_SIZE_TRAIN": (64, 80),
    "INPUT.MIN_SIZE_TEST": 64,
    "MODEL.FPN.OUT_CHANNELS": 16,
    "MODEL.ROI_BOX_HEAD.FC_DIM": 32,
    "DATALOADER.NUM_WORKERS": 1,
    "DATASETS.TEST": (),
}


def command(output: Path, *flags: str, config: str = "mini_faster_rcnn_r18.yaml", **_) -> list[str]:
    return [
        *(sys.executable, str(ROOT / "tools" / "train_net.py"), "--config", config),
        *("--output-dir", str(output), "--device", "cpu", *flags),
    ]


def keys(changes: dict[str, object] | None = None) -> list[str]:
    """Return KEY VALUE pairs: the tiny detector's, with changes."""
    values = {**TINY, **(changes or {})}
    return [text for key, value in values.items() for text in (key, str(value))]


def start(output: Path, *flags: str, changes: dict[str, object] | None = None) -> warm_commands.Started:
    return warm_commands.start([*command(output, *flags), *keys(changes)], merged=True)


def finish(process: warm_commands.Started, status: int = 0) -> str:
    """Wait for a run, check its exit status and return what it printed."""
    output = process.communicate(timeout=300)[0]
    assert process.returncode == status, output[-3000:]
    return output


def train(output: Path, *flags: str, changes: dict[str, object] | None = None, status: int = 0) -> str:
    done = warm_commands.run([*command(output, *flags), *keys(changes)], merged=True)
    assert done.returncode == status, done.stdout[-3000:]
    return done.stdout


def final_weights(output: Path) -> dict[str, torch.Tensor]:
    return torch.load(output / "model_final.pth", weights_only=True)["model"]


def same_bits(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
