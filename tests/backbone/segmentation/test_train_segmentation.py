"""tools/train_segmentation.py as people type it: plan, training, resume, tests, predictions, mistakes."""

from __future__ import annotations

import json
import os
import signal
import time

import numpy as np
import pytest
import torch
import warm_commands
from PIL import Image
from small_segmentation import command, run, write_folders, write_voc

from backbone.common.errors import ConfigError
from backbone.engine.record import read_metrics
from backbone.segmentation import default_config, load_config
from backbone.segmentation.data.labels import write_label
from backbone.segmentation.networks import build


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("segmentation") / "run"
    return folder, run(folder, "--save-predictions", str(folder / "labels"), "--json", str(folder / "copy.json"))


def weights(folder) -> dict[str, torch.Tensor]:
    return torch.load(folder / "model_final.pth", weights_only=True)["model"]


def test_a_run_leaves_what_a_run_leaves(trained):
    folder, printed = trained
    for line in ("Plan", "resnet18, bn, output stride 16; fcn", "9 classes", "poly 0.9", "mini val: 3 images"):
        assert line in printed
    results = json.loads((folder / "results.json").read_text())
    assert {"mIoU", "fwIoU", "mACC", "pACC", "mDice", "IoU-background", "ACC-mug"} <= set(results["sem_seg"])
    confusion = results["confusion"]
    pixels = np.array(confusion["pixels"])
    assert pixels.trace() / pixels.sum() == pytest.approx(results["sem_seg"]["pACC"])
    mug = confusion["classes"].index("mug")
    assert confusion["share_of_truth"][mug][mug] == pytest.approx(results["sem_seg"]["ACC-mug"])
    assert json.loads((folder / "copy.json").read_text()) == results and results["images"] == 3
    lines = read_metrics(folder / "metrics.jsonl")
    assert [line["iteration"] for line in lines if "train_accuracy" in line] == [1, 2, 3, 4]
    assert [line["iteration"] for line in lines if "sem_seg/mIoU" in line] == [4]
    # The rate falls as (1 - t / T) ** 0.9.
    rates = [line["lr"] for line in lines if "lr" in line]
    assert rates == pytest.approx([rates[0] * (1 - step / 4) ** 0.9 for step in range(4)])
    names = {path.name for path in folder.iterdir()}
    assert {"config.yaml", "log.txt", "model_best.pth", "backbone.safetensors", "results.md"} <= names
    assert {"segmentation.jpg", "pictures", "labels"} <= names and len(list((folder / "pictures").iterdir())) == 2
    with Image.open(folder / "labels" / "000001.png") as image:
        assert image.mode == "P" and np.asarray(image).max() < 9


def test_killed_and_resumed_it_ends_with_the_same_bits(trained, tmp_path):
    process = warm_commands.start(command(tmp_path / "run"))
    while not (tmp_path / "run" / "model_0000002.pth").exists() and process.poll() is None:
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "run" / "model_final.pth").exists()
    assert "resumed from" in run(tmp_path / "run", "--resume")
    first, second = weights(trained[0]), weights(tmp_path / "run")
    assert first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_testing_alone_gives_the_runs_figures(trained, tmp_path):
    run(tmp_path / "run", "--eval-only", "--weights", str(trained[0] / "model_final.pth"))
    ours = json.loads((tmp_path / "run" / "results.json").read_text())["sem_seg"]
    assert ours == json.loads((trained[0] / "results.json").read_text())["sem_seg"]


@pytest.mark.slow
def test_two_processes_train_with_synchronised_bn_and_test_every_image_once(tmp_path):
    keys = {"MODEL__NORM": "sync_bn", "SOLVER__MAX_ITER": 1, "MODEL__HEAD__NAME": "deeplabv3"}
    printed = run(tmp_path / "run", "--num-processes", "2", **keys)
    assert "1 in each of 2 processes" in printed and "deeplabv3 (rates 6, 12, 18)" in printed
    run(tmp_path / "one", "--eval-only", "--weights", str(tmp_path / "run" / "model_final.pth"), **keys)
    both, alone = (json.loads((tmp_path / name / "results.json").read_text())["sem_seg"] for name in ("run", "one"))
    assert both == alone


def test_own_folders_from_a_backbone_file(trained, tmp_path):
    root = write_folders(tmp_path / "set")
    keys = {"DATA__NAME": "folders", "SOLVER__MAX_ITER": 1, "DATA__VAL_IMAGES": 0}
    file = str(trained[0] / "backbone.safetensors")
    printed = run(tmp_path / "run", "--data-root", str(root), "--weights", file, **keys)
    assert "set train: 4 images" in printed and "backbone, " in printed and "3 classes" in printed


def test_a_set_without_labels_gives_predictions_alone(tmp_path):
    root = write_voc(tmp_path / "data")
    config = default_config()
    config.MODEL.NAME, config.MODEL.DEVICE = "resnet18", "cpu"
    torch.save(build(config, 21).state_dict(), tmp_path / "net.pth")
    flags = ("--eval-only", "--weights", str(tmp_path / "net.pth"), "--save-predictions", str(tmp_path / "cls"))
    keys = {"MODEL__NAME": "resnet18", "MODEL__NORM": "bn", "DATA__VAL_IMAGES": 0, "DATA__VAL": "test"}
    tta = {"TEST__SCALES": "(0.75,1.0)", "TEST__FLIP": True}
    printed = run(tmp_path / "run", "--data-root", str(root), *flags, config="voc_fcn_r50.yaml", **keys, **tta)
    assert "without labels: no figures; own size, scales 0.75, 1, flip" in printed
    assert {path.name for path in (tmp_path / "cls").iterdir()} == {f"2012_2{index}.png" for index in range(3)}


def test_real_coco_images(shared_data, tmp_path):
    keys = {"DATA__NAME": "coco", "DATA__TRAIN": "train2017", "DATA__VAL": "val2017", "SOLVER__MAX_ITER": 2}
    keys |= {"SOLVER__AMP__ENABLED": True, "MODEL__CHANNELS_LAST": True}
    printed = run(
        *(tmp_path / "run", "--data-root", str(shared_data)),
        config="voc_deeplabv3_r50.yaml",
        MODEL__NAME="resnet18",
        TEST__SHORTER_SIDE=120,
        **keys,
    )
    assert "coco val2017: 3 images" in printed and "21 classes" in printed
    assert "bfloat16 where it is safe, else float32, channels_last" in printed
    results = json.loads((tmp_path / "run" / "results.json").read_text())["sem_seg"]
    assert results["mIoU"] is not None and "IoU-tvmonitor" in results


def test_labels_that_are_wrong_are_named_in_one_line(tmp_path):
    root = write_folders(tmp_path / "set")
    label = np.zeros((72, 60), np.uint8)
    label[3, 5] = 9
    write_label(root / "labels" / "val" / "0.png", label)
    printed = run(tmp_path / "a", "--data-root", str(root), status=2, DATA__NAME="folders", SOLVER__MAX_ITER=1)
    assert "0.png: label 9 at x 5, y 3 is none of the 3 classes" in printed.splitlines()[-1]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("MODEL.HEAD.NAME", "deeplab"), "MODEL.HEAD.NAME is 'deeplab'; one of fcn, deeplabv3"),
        (("MODEL.OUTPUT_STRIDE", 4), "MODEL.OUTPUT_STRIDE is 4"),
        (("INPUT.SCALE", "(2.0,0.5)"), "INPUT.SCALE must be two factors in order"),
        (("TEST.SCALES", "(0.0,)"), "TEST.SCALES must be factors above 0"),
        (("MODEL.HEAD.ATROUS_RATES", "(0,)"), "MODEL.HEAD.ATROUS_RATES must be whole numbers above 0"),
        (("SOLVER.HEAD_LR_FACTOR", 0), "SOLVER.HEAD_LR_FACTOR must be above 0"),
        (("SOLVER.POLYPOWER", 1), "unknown key SOLVER.POLYPOWER; did you mean 'SOLVER.POLY_POWER'"),
    ],
)
def test_wrong_keys_are_named(overrides, message):
    with pytest.raises(ConfigError) as error:
        load_config("mini_fcn_r18.yaml", overrides)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("flags", "changes", "message"),
    [
        ((), {"MODEL__NAME": "cifar_resnet20"}, "output_stride and stem are not for CIFAR networks"),
        (("--save-prediction", "x"), {}, "unknown argument '--save-prediction'; did you mean '--save-predictions'"),
    ],
)
def test_mistakes_get_one_line(tmp_path, flags, changes, message):
    printed = run(tmp_path / "run", *flags, status=2, **changes)
    assert message in printed and len(printed.strip().splitlines()) == 1


@pytest.mark.parametrize("name", ["voc_fcn_r50", "voc_deeplabv3_r50", "voc_deeplabv3_r101", "mini_fcn_r18"])
def test_shipped_configs_build(name):
    config = load_config(name, ["MODEL.DEVICE", "cpu"])
    for stride in (16, 8):
        changed = load_config(name, ["MODEL.DEVICE", "cpu", "MODEL.OUTPUT_STRIDE", stride])
        with torch.device("meta"):
            network = build_on_meta(changed)
        assert network.backbone.feature_info["res5"].stride == stride
    assert config.SOLVER.LR_SCHEDULER_NAME == "WarmupPolyLR"


def build_on_meta(config):
    config = config.clone()
    config.defrost()
    config.MODEL.DEVICE = "meta"
    return build(config, 21)
