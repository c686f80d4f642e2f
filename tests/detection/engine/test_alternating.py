"""The four steps through the real command: what is shared, resumed, evaluated and refused."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from pathlib import Path

import pytest
import torch
import warm_commands
from runs import command, final_weights, same_bits, start, train

from backbone import ConfigError
from backbone.engine.record import read_metrics
from detection import get_config

SCHEME = ("--scheme", "alternating")
STEPS = ("step1_rpn", "step2_fast_rcnn", "step3_rpn", "step4_fast_rcnn")
CHANGES = {
    "SOLVER.MAX_ITER": 4,
    "SOLVER.WARMUP_ITERS": 0,
    "DATALOADER.NUM_WORKERS": 0,
    "DATASETS.TEST": ("mini_val",),
    "TEST.PICTURES": 2,
    "TEST.LOSS": True,
    "TEST.BEST": "validation/total_loss",
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> tuple[Path, str]:
    """A run of four times four steps with nothing in its way, and what it printed."""
    folder = tmp_path_factory.mktemp("whole")
    return folder, train(folder, *SCHEME, changes=CHANGES)


def part(weights: dict[str, torch.Tensor], name: str) -> dict[str, torch.Tensor]:
    found = {key: value for key, value in weights.items() if key.startswith(name)}
    assert found
    return found


def test_each_step_trains_its_part_alone(whole):
    folder, _ = whole
    first, second, third, fourth = (final_weights(folder / name) for name in STEPS)
    for trained in ("backbone.", "proposal_generator."):
        assert not same_bits(part(first, trained), part(second, trained)), trained
    assert not same_bits(part(third, "proposal_generator."), part(second, "proposal_generator."))
    assert not same_bits(part(fourth, "roi_heads."), part(third, "roi_heads."))
    # The batch statistics of BN are among the tensors of the backbone.
    assert same_bits(part(third, "backbone."), part(second, "backbone."))
    assert same_bits(part(fourth, "backbone."), part(second, "backbone."))
    assert same_bits(part(third, "roi_heads."), part(second, "roi_heads."))
    assert same_bits(part(fourth, "proposal_generator."), part(third, "proposal_generator."))


def test_the_run_folder_holds_the_whole_detector_and_its_results(whole):
    folder, text = whole
    assert same_bits(final_weights(folder), final_weights(folder / STEPS[-1]))
    results = json.loads((folder / "results.json").read_text())
    assert results["bbox"]["AP50"] == json.loads((folder / STEPS[-1] / "results.json").read_text())["bbox"]["AP50"]
    assert results["scheme"] == "alternating"
    assert "AP50" in (folder / "results.md").read_text()
    assert (folder / "detections.jpg").is_file()
    assert (folder / "predictions_mini_val.json").is_file()
    assert all((folder / name / "curves.html").is_file() for name in STEPS)
    assert f"{folder}/model_best.pth: the best ones, validation/total_loss" in text
    positions = [text.index(f"Step {number} of 4") for number in (1, 2, 3, 4)]
    assert positions == sorted(positions)
    assert text.count("recall") == 2


def test_the_final_checkpoint_evaluates_to_the_same_figures(whole, tmp_path):
    folder, _ = whole
    train(tmp_path, "--eval-only", "--weights", str(folder / "model_final.pth"), changes=CHANGES)
    again, before = (json.loads((place / "results.json").read_text()) for place in (tmp_path, folder))
    assert again["validation"] == before["validation"] and before["validation"]["loss_rpn_cls"] > 0
    assert before["best"] == {"total_loss": before["validation"]["total_loss"], "iteration": 4}
    again, before = again["bbox"], before["bbox"]
    assert again == before
    assert max(before["AR100"], before["AP50"]) > 0


def kill_when(process, condition) -> None:
    end = time.monotonic() + 100
    while not condition():
        assert process.poll() is None, process.communicate()[0][-2000:]
        assert time.monotonic() < end
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@pytest.mark.slow
def test_killed_between_and_inside_steps_and_resumed_to_the_same_bits(whole, tmp_path):
    process = start(tmp_path, *SCHEME, changes=CHANGES)
    kill_when(process, (tmp_path / "step1_proposals.npz").is_file)
    assert not (tmp_path / STEPS[1] / "model_final.pth").exists()
    first = (tmp_path / STEPS[0] / "model_final.pth").stat().st_mtime_ns

    process = start(tmp_path, *SCHEME, "--resume", changes=CHANGES)
    inside = tmp_path / STEPS[2]
    kill_when(process, lambda: len(read_metrics(inside / "metrics.jsonl")) >= 3)
    assert not (inside / "results.json").exists(), "the step was over before it was killed"

    text = train(tmp_path, *SCHEME, "--resume", changes=CHANGES)
    assert f"resumed from {inside / 'model_0000002.pth'}" in text
    assert text.count("(done)") == 2
    assert (tmp_path / STEPS[0] / "model_final.pth").stat().st_mtime_ns == first
    assert same_bits(final_weights(tmp_path), final_weights(whole[0]))
    for name in ("step1_proposals.npz", "step3_proposals.npz"):
        assert (tmp_path / name).read_bytes() == (whole[0] / name).read_bytes()


def test_another_scheme_does_not_resume_it(whole):
    text = train(whole[0], "--resume", changes=CHANGES, status=2)
    assert "SOLVER.SCHEME" in text
    assert "Traceback" not in text


def test_broken_proposals_are_named(whole, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(whole[0], run)
    for name in STEPS[1:]:
        shutil.rmtree(run / name)
    (run / "step1_proposals.npz").write_bytes(b"PK nothing")
    text = train(run, *SCHEME, "--resume", changes=CHANGES, status=2)
    assert "step1_proposals.npz: no proposals can be read" in text
    assert "Traceback" not in text


@pytest.mark.slow
def test_overwrite_leaves_nothing_of_the_former_steps(whole, tmp_path):
    train(tmp_path, *SCHEME, "--seed", "1", changes={**CHANGES, "SOLVER.MAX_ITER": 1})
    train(tmp_path, *SCHEME, "--overwrite", changes=CHANGES)
    assert same_bits(final_weights(tmp_path), final_weights(whole[0]))
    train(tmp_path, "--overwrite", changes={"SOLVER.MAX_ITER": 1})
    assert not list(tmp_path.glob("step*"))


@pytest.mark.slow
def test_the_steps_run_in_two_processes(tmp_path):
    train(tmp_path, *SCHEME, "--num-processes", "2", changes=CHANGES)
    second, fourth = (final_weights(tmp_path / STEPS[index]) for index in (1, 3))
    assert same_bits(part(second, "backbone."), part(fourth, "backbone."))
    assert (tmp_path / "results.json").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["voc_paper_vgg16_07.yaml", "voc_paper_r101_07.yaml"])
def test_the_papers_detectors(name, shared_data, tmp_path):
    small = {
        "DATASETS.TRAIN": ("voc_2012_train",),
        "DATASETS.TEST": (),
        "SOLVER.MAX_ITER": 1,
        "INPUT.MIN_SIZE_TRAIN": (128,),
        "INPUT.MIN_SIZE_TEST": 128,
        "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE": 8,
        "MODEL.RPN.POST_NMS_TOPK_TRAIN": 50,
        "DATALOADER.NUM_WORKERS": 0,
    }
    if "r101" in name:
        small["MODEL.BACKBONE.NAME"] = "resnet50"
    text = run_config(name, tmp_path, "--data-root", str(shared_data), changes=small)
    second, third, fourth = (final_weights(tmp_path / step) for step in STEPS[1:])
    assert same_bits(part(second, "backbone."), part(fourth, "backbone.")), text
    assert not same_bits(part(third, "roi_heads."), part(fourth, "roi_heads."))


def run_config(name: str, folder: Path, *flags: str, changes: dict) -> str:
    pairs = [item for pair in changes.items() for item in pair]
    done = warm_commands.run([*command(folder, *SCHEME, *flags, config=name), *pairs])
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    return done.stdout


def test_a_detector_without_an_rpn_is_refused():
    with pytest.raises(ConfigError, match="RetinaNet"):
        get_config(
            "mini_faster_rcnn_r18.yaml", ["SOLVER.SCHEME", "alternating", "MODEL.META_ARCHITECTURE", "RetinaNet"]
        )
    with pytest.raises(ConfigError, match="joint, alternating"):
        get_config("mini_faster_rcnn_r18.yaml", ["SOLVER.SCHEME", "alternate"])
