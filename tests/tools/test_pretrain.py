"""tools/pretrain.py as people type it: plan, training, resume, tests, ensembles, and on into a detector."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import warm_commands

from backbone.engine.record import read_metrics

ROOT = Path(__file__).resolve().parents[2]
TOOL = ROOT / "tools" / "pretrain.py"
KEYS = {
    "SOLVER.IMS_PER_BATCH": 16,
    "SOLVER.REFERENCE_BATCH_SIZE": 16,
    "SOLVER.BASE_LR": 0.05,
    "SOLVER.MAX_ITER": 8,
    "SOLVER.STEPS": "(5,)",
    "SOLVER.CHECKPOINT_PERIOD": 2,
    "SOLVER.LOG_PERIOD": 2,
    "TEST.EVAL_PERIOD": 4,
    "TEST.PRECISE_BN.NUM_IMAGES": 48,
    "DATALOADER.NUM_WORKERS": 1,
}


def pictures(number: int, side: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Images of ten classes, told apart by hue and by the direction of their stripes."""
    random = np.random.default_rng(seed)
    labels = np.arange(number) % 10
    rows, columns = np.mgrid[:side, :side]
    images = np.empty((number, side, side, 3), np.uint8)
    for index, label in enumerate(labels):
        angle = np.pi * label / 10
        wave = np.sin((rows * np.sin(angle) + columns * np.cos(angle)) * 0.8 + random.random() * 6)
        color = cv2.cvtColor(np.uint8([[[18 * label, 180, 200]]]), cv2.COLOR_HSV2RGB)[0, 0]
        images[index] = np.clip(color * (0.7 + 0.3 * wave[..., None]) + random.normal(0, 12, (side, side, 3)), 0, 255)
    return images, labels


@pytest.fixture(scope="module")
def cifar(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("cifar") / "small.npz"
    train, test = pictures(200, 32, 0), pictures(50, 32, 1)
    np.savez(path, train_images=train[0], train_labels=train[1], test_images=test[0], test_labels=test[1])
    return path


def command(output: Path, root: Path, *flags: str, config: str = "cifar10_resnet20.yaml", **changes) -> list[str]:
    keys = {**KEYS, **{key.replace("__", "."): value for key, value in changes.items()}}
    pairs = [str(part) for pair in keys.items() for part in pair]
    start = [sys.executable, str(TOOL), "--config", config, "--data-root", str(root), "--output-dir", str(output)]
    return [*start, "--device", "cpu", *flags, *pairs]


def run(*arguments, status: int = 0, **changes) -> str:
    done = warm_commands.run(command(*arguments, **changes))
    assert done.returncode == status, done.stdout[-1500:] + done.stderr[-3000:]
    assert "Traceback" not in done.stderr
    return done.stdout + done.stderr


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / "model_final.pth", weights_only=True)["model"]


def same(a: Path, b: Path) -> bool:
    first, second = weights(a), weights(b)
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.fixture(scope="module")
def trained(cifar, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pretrain") / "run"
    return folder, run(folder, cifar)


def test_a_run_leaves_what_a_run_leaves(trained):
    folder, printed = trained
    for line in ("Plan", "Table 6, ResNet-20", "0.27 M parameters", "200 images, in memory", "x0.1 at 5", "float32"):
        assert line in printed
    results = json.loads((folder / "results.json").read_text())
    assert set(results["single"]) >= {"top1_error", "top5_error", "images"} and results["single"]["images"] == 50
    assert results["paper"] == [["6", "ResNet-20", "single", 8.75, 0]] and results["network"] == "cifar_resnet20"
    lines = read_metrics(folder / "metrics.jsonl")
    assert [line["iteration"] for line in lines if "train_error" in line] == [2, 4, 6, 8]
    assert [line["iteration"] for line in lines if "single/top1_error" in line] == [4, 8]
    names = {path.name for path in folder.iterdir()}
    assert {"config.yaml", "log.txt", "model_best.pth", "backbone.safetensors", "results.md"} <= names
    assert any(name.startswith("events.out.tfevents") for name in names)


def test_statistics_of_bn_are_true_averages(trained):
    folder, _ = trained
    content = torch.load(folder / "model_final.pth", weights_only=True)
    numbered = torch.load(folder / "model_0000008.pth", weights_only=True)
    assert content["metadata"]["bn_statistics"] == "precise"
    changed = [name for name, value in content["model"].items() if not torch.equal(value, numbered["model"][name])]
    assert changed and all(name.endswith(("running_mean", "running_var")) for name in changed)


@pytest.mark.parametrize("average", [pytest.param(0.0, marks=pytest.mark.slow), 0.9])
def test_killed_and_resumed_it_ends_with_the_same_bits(trained, cifar, tmp_path, average):
    reference = trained[0]
    if average:
        reference = tmp_path / "whole"
        run(reference, cifar, SOLVER__EMA_DECAY=average)
    process = warm_commands.start(command(tmp_path / "run", cifar, SOLVER__EMA_DECAY=average))
    while not (tmp_path / "run" / "model_0000004.pth").exists() and process.poll() is None:
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "run" / "model_final.pth").exists()
    assert "resumed from" in run(tmp_path / "run", cifar, "--resume", SOLVER__EMA_DECAY=average)
    assert same(reference, tmp_path / "run")


def test_a_changed_config_is_named(trained, cifar):
    printed = run(trained[0], cifar, "--resume", SOLVER__WEIGHT_DECAY=0.1, status=2)
    assert "the config has changed since the run began: SOLVER.WEIGHT_DECAY; --force" in printed


def test_two_processes_take_part(cifar, tmp_path):
    printed = run(tmp_path / "run", cifar, "--num-processes", "2", SOLVER__MAX_ITER=2)
    assert "8 in each of 2 processes" in printed
    assert json.loads((tmp_path / "run" / "results.json").read_text())["single"]["images"] == 50


def test_testing_alone_and_as_an_ensemble(trained, cifar, tmp_path):
    folder, _ = trained
    final, best = folder / "model_final.pth", folder / "backbone.safetensors"
    run(tmp_path / "one", cifar, "--eval-only", "--weights", str(final))
    trained_error = json.loads((folder / "results.json").read_text())["single"]["top1_error"]
    # The checkpoint carries the mean image, so the test is the run's own.
    assert json.loads((tmp_path / "one" / "results.json").read_text())["single"]["top1_error"] == trained_error
    printed = run(
        *(tmp_path / "two", cifar, "--eval-only", "--weights", str(final), "--ensemble", str(best)),
        *("--protocol", "all"),
    )
    assert "ensemble of 2" in printed and "| single" in printed


def test_published_weights(shared_data, tmp_path):
    root = shared_data / "cifar10" / "cifar10_lossless_partial.npz"
    file = shared_data / "cifar_resnet_weights" / "resnet20-12fca82f.th"
    run(tmp_path / "run", root, "--eval-only", "--weights", str(file))
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["single"]["top1_error"] == pytest.approx(13 / 164)


def image_folder(root: Path) -> Path:
    for split, number, seed in (("train", 40, 0), ("val", 20, 1)):
        images, labels = pictures(number, 72, seed)
        for index, (image, label) in enumerate(zip(images, labels)):
            folder = root / split / f"n{label:08d}"
            folder.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(folder / f"{index}.JPEG"), image[:, :, ::-1])
    return root


SMALL = {
    "INPUT__TRAIN_SIZE": 32,
    "INPUT__SHORTER_SIDE": "(40,64)",
    "INPUT__TEST_SIZE": 32,
    "INPUT__TEST_SHORTER_SIDE": 40,
    "TEST__FINAL_PROTOCOLS": "('10crop','dense')",
    "TEST__DENSE_SIDES": "(32,48)",
    "SOLVER__MAX_ITER": 4,
    "SOLVER__STEPS": "()",
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> Path:
    return image_folder(tmp_path_factory.mktemp("imagenet"))


def test_the_papers_recipe_on_files(folders, tmp_path):
    printed = run(tmp_path / "run", folders, config="imagenet_resnet18.yaml", **SMALL)
    # Of ten classes, the figures of the paper say nothing.
    assert "on plateau" in printed and "Table 2" not in printed and "27.88" not in printed
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert {"1crop", "10crop", "dense"} <= set(results) and results["broken_images"] == 0


def test_todays_recipe_on_files(folders, tmp_path):
    changes = {
        **SMALL,
        "MODEL__COMPILE": False,
        "SOLVER__WARMUP_ITERS": 1,
        "INPUT__PROGRESSIVE": "((0.5,32),)",
        "INPUT__TRAIN_SIZE": 40,
        # Without instructions for bfloat16 each image takes ten times as long; the paper's recipe has more of them.
        "SOLVER__IMS_PER_BATCH": 8,
        "TEST__PRECISE_BN__NUM_IMAGES": 8,
        "TEST__FINAL_PROTOCOLS": "('dense',)",
    }
    printed = run(tmp_path / "run", folders, config="imagenet_modern_resnet18.yaml", **changes)
    for part in (
        "mixup 0.2",
        "cutmix 1",
        "progressive sizes",
        "cosine",
        "weights averaged",
        "bfloat16",
        "channels_last",
    ):
        assert part in printed
    assert "train_error" not in (tmp_path / "run" / "metrics.jsonl").read_text()


def test_broken_images_are_replaced_and_named(tmp_path):
    root = image_folder(tmp_path / "data")
    broken = root / "train" / "n00000003" / "3.JPEG"
    broken.write_bytes(broken.read_bytes()[:300])
    # Some epochs: an image that is broken counts once, not in each of them.
    once = {**SMALL, "DATA__MAX_BAD_IMAGES": 1, "SOLVER__MAX_ITER": 12, "TEST__FINAL_PROTOCOLS": "()"}
    once |= {"SOLVER__IMS_PER_BATCH": 8, "TEST__EVAL_PERIOD": 0, "TEST__PRECISE_BN__NUM_IMAGES": 16}
    printed = run(tmp_path / "run", root, config="imagenet_resnet18.yaml", **once)
    assert printed.count("broken image replaced by another (1 so far)") == 1 and "3.JPEG" in printed
    assert json.loads((tmp_path / "run" / "results.json").read_text())["broken_images"] == 1
    printed = run(tmp_path / "none", root, config="imagenet_resnet18.yaml", status=2, DATA__MAX_BAD_IMAGES=0, **SMALL)
    assert "DATA.MAX_BAD_IMAGES allows 0" in printed and "3.JPEG" in printed


def test_synthetic_data_need_no_root(tmp_path):
    changes = {**SMALL, "DATA__SYNTHETIC": True, "MODEL__NUM_CLASSES": 10, "TEST__FINAL_PROTOCOLS": "()"}
    printed = run(tmp_path / "run", tmp_path / "nowhere", config="imagenet_resnet18.yaml", **changes)
    assert "synthetic" in printed


def test_progress_without_a_figure(cifar, tmp_path):
    printed = run(tmp_path / "run", cifar, config="cifar10_plain20.yaml", SOLVER__MAX_ITER=2)
    assert "Fig. 6, plain-20, single: a curve, no figure" in printed


@pytest.mark.parametrize(
    ("flags", "changes", "message"),
    [
        ((), {"SOLVER__MAXITER": 3}, "unknown key SOLVER.MAXITER; did you mean"),
        ((), {"MODEL__NAME": "cifar_resnet21"}, "MODEL.NAME is 'cifar_resnet21'"),
        ((), {"MODEL__NUM_CLASSES": 7}, "the data has 10 classes"),
        ((), {"TEST__FINAL_PROTOCOLS": "('11crop',)"}, "TEST.FINAL_PROTOCOLS has '11crop'; did you mean '1"),
        ((), {"MODEL__SHORTCUT": "D"}, "MODEL.SHORTCUT is 'D'"),
        (("--eval-only",), {}, "--eval-only needs --weights"),
        (("--ensemble", "x.pth"), {}, "--ensemble is for --eval-only"),
        (("--weights", "nowhere.pth"), {}, "nowhere.pth: no such weights file"),
        (("--protocol", "5crop"), {}, "invalid choice: '5crop'"),
        (("--protocol", "dense"), {}, "--protocol: 'dense' cuts files of many sizes; cifar10 is tested as it is"),
        ((), {"TEST__FINAL_PROTOCOLS": "('10crop',)"}, "'10crop' cuts files of many sizes"),
        ((), {"INPUT__CROP": "area"}, "INPUT.CROP 'area' is for files of many sizes; for cifar10 it is 'pad'"),
        (("SOLVER.MAX_ITER",), {}, "KEY VALUE pairs, '1' has no value"),
    ],
)
def test_mistakes_get_one_line(cifar, tmp_path, flags, changes, message):
    printed = run(tmp_path / "run", cifar, *flags, status=2, **changes)
    assert message in printed
    assert not list(tmp_path.glob("run/model_*"))


def test_a_reader_that_goes_away(cifar, tmp_path):
    """`| head -1`: the run goes on, and log.txt has what the terminal lacks."""
    arguments = command(tmp_path / "run", cifar, SOLVER__MAX_ITER=4)
    environment = dict(os.environ, OMP_NUM_THREADS="1")
    with subprocess.Popen(
        arguments, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "Plan\n"
        process.stdout.close()
        said = process.stderr.read()
    assert process.returncode == 0 and not said
    assert "iter 4/4" in (tmp_path / "run" / "log.txt").read_text()
    assert (tmp_path / "run" / "results.json").is_file()


def test_a_missing_root(tmp_path):
    printed = run(tmp_path / "run", tmp_path / "nowhere", status=2)
    assert "the data root does not exist; give --data-root" in printed
