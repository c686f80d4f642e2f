"""Appendix B on detectors that were trained for minutes: each method does for the figures what the paper says of it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import warm_commands
from runs import ROOT

CONFIG = "mini_faster_rcnn_r18.yaml"
REFINEMENT_AND_VOTING = ("TEST.BOX_REFINEMENT.ENABLED", "True", "TEST.BOX_VOTING.ENABLED", "True")
# Around the 160 pixels of the single scale.
MULTI_SCALE = ("TEST.MULTI_SCALE.ENABLED", "True", "TEST.MULTI_SCALE.SIDES", "(128,160,192)")


def run(output: Path, *arguments: str) -> dict[str, float]:
    """Run tools/train_net.py on a CPU; return the figures of the boxes."""
    command = [sys.executable, str(ROOT / "tools" / "train_net.py"), "--config", CONFIG, "--device", "cpu"]
    done = warm_commands.run([*command, "--output-dir", output, *arguments])
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads((output / "results.json").read_text())["bbox"]


@pytest.fixture(scope="module")
def detectors(tmp_path_factory) -> list[Path]:
    """The checkpoints of two trainings of `make quickstart`'s config with different seeds."""
    folders = [tmp_path_factory.mktemp(f"seed{seed}") for seed in (0, 1)]
    for seed, folder in enumerate(folders):
        run(folder / "run", "--seed", str(seed))
    return [folder / "run" / "model_final.pth" for folder in folders]


@pytest.mark.slow
def test_each_method_does_what_it_promises(detectors, tmp_path):
    first, second = map(str, detectors)

    def tested(name: str, *keys: str) -> dict[str, float]:
        return run(tmp_path / name, "--eval-only", "--weights", first, *keys)

    plain = tested("plain")
    # Without this much the detector has learned too little for the rest to mean anything.
    assert plain["AP50"] > 0.5
    assert tested("refined", *REFINEMENT_AND_VOTING)["AP75"] > plain["AP75"]
    assert tested("scales", *MULTI_SCALE)["AP"] >= plain["AP"]
    assert tested("ensemble", "TEST.ENSEMBLE", f"('{second}',)")["AP"] >= plain["AP"]
