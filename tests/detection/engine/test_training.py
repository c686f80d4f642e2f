"""Runs of the real command: resumed to the same bits, stopped by signals, in several processes."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from functools import partial
from pathlib import Path

import pytest
import torch
from runs import final_weights, finish, same_bits, start, train

from backbone.common.mini_set import mini_set_root
from backbone.engine.record import read_metrics


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory) -> Path:
    """A run of twelve steps with nothing in its way."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    train(folder, changes={"SOLVER.MAX_ITER": 12})
    return folder


def wait_for(condition, process, seconds: float = 600) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()[0][-2000:]
        assert time.monotonic() < end
        time.sleep(0.01)


def has_reached(folder: Path, iteration: int) -> bool:
    return max(iterations(folder), default=0) >= iteration


def iterations(folder: Path) -> list[int]:
    return [line["iteration"] for line in read_metrics(folder / "metrics.jsonl")]


def test_same_seed_same_bits(uninterrupted, tmp_path):
    train(tmp_path, changes={"SOLVER.MAX_ITER": 12, "DATALOADER.NUM_WORKERS": 0})
    assert same_bits(final_weights(tmp_path), final_weights(uninterrupted))


def test_another_seed_other_weights(uninterrupted, tmp_path):
    train(tmp_path, "--seed", "1", changes={"SOLVER.MAX_ITER": 2})
    assert not same_bits(final_weights(tmp_path), final_weights(uninterrupted))


@pytest.mark.parametrize("kills", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_killed_and_resumed_to_the_same_bits(uninterrupted, tmp_path, kills):
    """kill -9 at a random moment behind the first checkpoint, once or more; then --resume."""
    chance = random.Random(kills)
    changes = {"SOLVER.MAX_ITER": 12}
    seen = 0
    for attempt in range(kills):
        process = start(tmp_path, *(["--resume"] if attempt else []), changes=changes)
        wait_for(partial(has_reached, tmp_path, min(3 + 3 * attempt, 8)), process)
        time.sleep(chance.random() * 0.4)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        seen = max(iterations(tmp_path))
    assert seen < 12, "the run was over before it was killed"
    assert not (tmp_path / "model_final.pth").exists()
    text = train(tmp_path, "--resume", changes=changes)
    assert "resumed from" in text
    assert same_bits(final_weights(tmp_path), final_weights(uninterrupted))
    # Steps that were lost and done again stand in the metrics once.
    assert iterations(tmp_path) == list(range(1, 13))


def test_sigterm_writes_a_checkpoint_and_leaves(uninterrupted, tmp_path):
    changes = {"SOLVER.MAX_ITER": 12, "SOLVER.CHECKPOINT_PERIOD": 0}
    process = start(tmp_path, changes=changes)
    wait_for(lambda: len(iterations(tmp_path)) >= 3, process)
    process.send_signal(signal.SIGTERM)
    output = finish(process, status=143)
    assert "SIGTERM: checkpoint written after" in output
    saved = sorted(tmp_path.glob("model_*.pth"))
    assert len(saved) == 1
    train(tmp_path, "--resume", changes=changes)
    assert same_bits(final_weights(tmp_path), final_weights(uninterrupted))


def test_evaluation_that_was_killed_is_done_again(tmp_path):
    changes = {"SOLVER.MAX_ITER": 2, "DATASETS.TEST": ("mini_val",), "INPUT.MIN_SIZE_TEST": 160}
    process = start(tmp_path, changes=changes)
    wait_for(lambda: (tmp_path / "model_0000002.pth").exists(), process)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "results.json").exists()
    train(tmp_path, "--resume", changes=changes)
    results = json.loads((tmp_path / "results.json").read_text())
    assert "AP" in results["bbox"]
    assert (tmp_path / "model_best.pth").exists()


def test_resume_with_a_changed_config(tmp_path):
    train(tmp_path, changes={"SOLVER.MAX_ITER": 2})
    changed = {"SOLVER.MAX_ITER": 4, "SOLVER.MOMENTUM": 0.8}
    output = train(tmp_path, "--resume", changes=changed, status=2)
    assert "SOLVER.MAX_ITER" in output
    assert "SOLVER.MOMENTUM" in output
    assert "--force" in output
    assert "Traceback" not in output
    assert "--force" in train(tmp_path, "--resume", "--force", changes=changed)
    assert torch.load(tmp_path / "model_final.pth", weights_only=True)["iteration"] == 4
    # What changes neither weights nor numbers may differ.
    train(tmp_path, "--resume", changes={**changed, "DATALOADER.NUM_WORKERS": 0, "SOLVER.LOG_PERIOD": 5})


def test_a_former_run_is_not_written_over(tmp_path):
    train(tmp_path, changes={"SOLVER.MAX_ITER": 1})
    before = (tmp_path / "model_final.pth").read_bytes()
    output = train(tmp_path, status=2)
    assert "--resume" in output
    assert "--overwrite" in output
    assert (tmp_path / "model_final.pth").read_bytes() == before
    train(tmp_path, "--overwrite", changes={"SOLVER.MAX_ITER": 2})
    assert torch.load(tmp_path / "model_final.pth", weights_only=True)["iteration"] == 2


def test_the_newest_checkpoints_are_kept(tmp_path):
    train(tmp_path, changes={"SOLVER.MAX_ITER": 5, "SOLVER.CHECKPOINT_PERIOD": 1, "SOLVER.CHECKPOINTS_TO_KEEP": 2})
    names = sorted(path.name for path in tmp_path.glob("model_0*.pth"))
    assert names == ["model_0000004.pth", "model_0000005.pth"]
    assert (tmp_path / "last_checkpoint").read_text() == "model_0000005.pth"


# Everything that draws at random, pads or averages unevenly is taken out, so that two processes with half the batch
# each must reach what one reaches with all of it: images of one size, and every anchor and every proposal counts.
EVEN = {
    "INPUT.MIN_SIZE_TRAIN": (64,),
    "SOLVER.IMS_PER_BATCH": 4,
    "SOLVER.REFERENCE_BATCH_SIZE": 4,
    "SOLVER.MAX_ITER": 3,
    "MODEL.RESNETS.NORM": "FrozenBN",
    "MODEL.FPN.NORM": "",
    "MODEL.RPN.BATCH_SIZE_PER_IMAGE": 100000,
    "MODEL.RPN.NMS_THRESH": 1.0,
    "MODEL.RPN.POST_NMS_TOPK_TRAIN": 50,
    "MODEL.PROPOSAL_GENERATOR.MIN_SIZE": 0,
    "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE": 100000,
    "MODEL.ROI_HEADS.PROPOSAL_APPEND_GT": False,
}


@pytest.fixture(scope="module")
def landscapes(tmp_path_factory) -> list[str]:
    """Flags for the images of the mini set that are 208 x 160."""
    root = mini_set_root()
    data = json.loads((root / "annotations" / "instances_train.json").read_text())
    data["images"] = [image for image in data["images"] if image["width"] == 208]
    ids = {image["id"] for image in data["images"]}
    data["annotations"] = [annotation for annotation in data["annotations"] if annotation["image_id"] in ids]
    path = tmp_path_factory.mktemp("landscapes") / "train.json"
    path.write_text(json.dumps(data))
    return ["--train-json", str(path), "--train-images", str(root / "train")]


def test_two_processes_equal_one_with_the_doubled_batch(tmp_path, landscapes):
    train(tmp_path / "one", *landscapes, changes=EVEN)
    text = train(tmp_path / "two", *landscapes, "--num-processes", "2", changes=EVEN)
    assert "2 in each of 2 processes" in text
    one, two = final_weights(tmp_path / "one"), final_weights(tmp_path / "two")
    start_of_run = {**EVEN, "SOLVER.MAX_ITER": 0}
    train(tmp_path / "start", *landscapes, changes=start_of_run)
    fresh = final_weights(tmp_path / "start")
    moved = [(one[name] - fresh[name]).abs().max().item() for name in one if one[name].is_floating_point()]
    apart = [(one[name] - two[name]).abs().max().item() for name in one if one[name].is_floating_point()]
    assert max(moved) > 1e-4
    assert max(apart) < 1e-3 * max(moved)


@pytest.mark.slow
def test_processes_share_the_evaluation(tmp_path):
    changes = {"SOLVER.MAX_ITER": 2, "DATASETS.TEST": ("mini_val",)}
    train(tmp_path / "two", "--num-gpus", "2", changes=changes)
    weights = str(tmp_path / "two" / "model_final.pth")
    train(tmp_path / "one", "--eval-only", "--weights", weights, changes=changes)
    a, b = (json.loads((tmp_path / name / "results.json").read_text())["bbox"] for name in ("one", "two"))
    assert a.pop("per_class").keys() == b.pop("per_class").keys()
    assert a == pytest.approx(b, abs=1e-6)


def test_torchrun(tmp_path):
    import subprocess
    import sys

    from runs import ROOT, command, keys

    arguments = [*command(tmp_path)[1:], *keys({"SOLVER.MAX_ITER": 2})]
    environment = dict(os.environ, OMP_NUM_THREADS="1")
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *arguments],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "1 in each of 2 processes" in done.stdout
    assert (tmp_path / "model_final.pth").exists()
