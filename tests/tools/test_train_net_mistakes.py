"""tools/train_net.py given flags, configs and weights that it cannot use: status 2, one line, nothing half written."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hostile import write_hostile
from own_data import flags, write_set
from runs import ROOT
from train_calls import CONFIG, left, untouched

from backbone.engine import lock

NO_GPU = not torch.cuda.is_available()

# -- flags


def test_no_arguments(tool):
    tool("train_net.py").mistake("the following arguments are required: --config", "--help")


def test_help_shows_an_example(tool):
    text = tool("train_net.py", "--help").fine("example:", "tools/train_net.py --config coco_faster_rcnn_r101.yaml")
    for flag in ("--data-root", "--output-dir", "--weights", "--resume", "--eval-only", "--num-gpus", "--num-machines",
                 "--machine-rank", "--dist-url", "--device", "--seed", "--train-json", "--val-images"):  # fmt: skip
        assert flag in text


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--weigths", "a.pth"], "unknown argument '--weigths'; did you mean '--weights'?"),
        (["--numgpus", "2"], "did you mean '--num-gpus'?"),
        (["--overwite"], "did you mean '--overwrite'?"),
        (["--output", "x"], "unknown argument '--output'"),
        (["--seed", "one"], "argument --seed: invalid int value: 'one'"),
        (["--seed"], "argument --seed: expected one argument"),
        (["--device", "gpu"], "argument --device: invalid choice: 'gpu'"),
        (["--num-gpus", "two"], "argument --num-gpus: invalid int value: 'two'"),
        (["--num-gpus", "1", "--num-processes", "2"], "not allowed with argument --num-gpus"),
        (["--resume", "--overwrite"], "--resume and --overwrite exclude each other"),
    ],
)
def test_wrong_flags(tool, tmp_path, arguments, said):
    tool("train_net.py", "--config", CONFIG, *arguments).mistake(said)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--seed", "-1"], "SEED must be 0 or more, not -1"),
        (["--num-processes", "3"], "SOLVER.IMS_PER_BATCH 2 cannot be shared out to 3 processes"),
        (["--num-processes", "0"], "at least one process must run, not 0"),
        (["--num-processes", "-2"], "at least one process must run, not -2"),
        (["--num-machines", "0"], "--num-machines must be 1 or more, not 0"),
        (["--num-machines", "2"], "needs --dist-url"),
        (["--num-machines", "2", "--machine-rank", "2", "--dist-url", "tcp://127.0.0.1:1"], "--machine-rank must be"),
        (["--train-json", "a.json"], "--train-json and --train-images belong together; --train-images is missing"),
        (["--val-images", "here"], "--val-json and --val-images belong together; --val-json is missing"),
        (["--eval-only"], "--eval-only needs --weights"),
        (["--eval-only", "--resume"], "--eval-only"),
    ],
)
def test_flags_that_do_not_fit(train, tmp_path, arguments, said):
    train(*arguments).mistake(said)
    assert untouched(tmp_path)


@pytest.mark.skipif(not NO_GPU, reason="needs a machine without a GPU")
@pytest.mark.parametrize("arguments", [["--device", "cuda"], ["--num-gpus", "1"], ["--num-gpus", "8"]])
def test_more_gpus_than_there_are(tool, tmp_path, arguments):
    tool("train_net.py", "--config", CONFIG, *arguments).mistake("torch sees no GPU; use --device cpu")
    assert list(tmp_path.iterdir()) == []


def test_more_gpus_than_two(tool, monkeypatch, tmp_path):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    tool("train_net.py", "--config", CONFIG, "--num-gpus", "4").mistake(
        "4 GPUs asked for, torch sees 2", "--num-gpus 2"
    )
    assert list(tmp_path.iterdir()) == []


# -- the config


@pytest.mark.parametrize(
    ("config", "overrides", "said"),
    [
        ("mini_faster_rcnn_r81.yaml", [], "did you mean 'mini_faster_rcnn_r18.yaml'?"),
        ("coco_faster_rcnn_r101.yml", [], "did you mean 'coco_faster_rcnn_r101.yaml'?"),
        (CONFIG, ["SOLVER.BASE_LRATE", "1"], "unknown key SOLVER.BASE_LRATE; did you mean 'SOLVER.BASE_LR'?"),
        (CONFIG, ["SOLVER.MAX_ITER"], "'SOLVER.MAX_ITER' has no value"),
        (CONFIG, ["SOLVER.MAX_ITER", "many"], "SOLVER.MAX_ITER is 'many', expected a whole number"),
        (CONFIG, ["SOLVER.MAX_ITER", "-1"], "SOLVER.MAX_ITER must be 0 or more, not -1"),
        (CONFIG, ["SOLVER.IMS_PER_BATCH", "0"], "SOLVER.IMS_PER_BATCH must be above 0, not 0"),
        (CONFIG, ["SOLVER.STEPS", "soon"], "SOLVER.STEPS is 'soon', expected a tuple such as (320, 410)"),
        (CONFIG, ["SOLVER.AMP.DTYPE", "float8"], "SOLVER.AMP.DTYPE is 'float8'; one of bfloat16, float16"),
        (CONFIG, ["MODEL.BACKBONE.NAME", "resnet81_fpn"], "did you mean 'resnet18_fpn'?"),
        (CONFIG, ["MODEL.RESNETS.NORM", "BatchNorm"], "MODEL.RESNETS.NORM is 'BatchNorm'"),
        (CONFIG, ["MODEL.ROI_HEADS.NAME", "StandardROIHead"], "did you mean 'StandardROIHeads'?"),
        (CONFIG, ["MODEL.BACKBONE.FREEZE_AT", "9"], "MODEL.BACKBONE.FREEZE_AT"),
        (CONFIG, ["MODEL.DEVICE", "tpu"], "must be cuda or cpu, not 'tpu'"),
        (CONFIG, ["DATASETS.TRAIN", "mini_trian"], "did you mean 'mini_train'?"),
        (CONFIG, ["DATASETS.BAD_BOXES", "ignore"], "one of auto, refuse, skip"),
        (CONFIG, ["TEST.EVAL_ENGINE", "cocoapi"], "TEST.EVAL_ENGINE is 'cocoapi'"),
        (CONFIG, ["INPUT.MIN_SIZE_TRAIN", "()"], "INPUT.MIN_SIZE_TRAIN must hold sizes"),
        (CONFIG, ["INPUT.MIN_SIZE_TRAIN", "-1"], "INPUT.MIN_SIZE_TRAIN must hold sizes"),
        (CONFIG, ["MODEL.ANCHOR_GENERATOR.SIZES", "[[16], [32]]"], "MODEL: its keys do not fit together"),
        (CONFIG, ["MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS", "[]"], "MODEL"),
        (CONFIG, ["MODEL.FPN.IN_FEATURES", "['res9']"], "res9"),
        (CONFIG, ["MODEL.ROI_HEADS.IN_FEATURES", "['p9']"], "p9"),
    ],
)
def test_wrong_config(tool, tmp_path, config, overrides, said):
    # No step is made if the mistake is overlooked.
    arguments = ("--config", config, "--output-dir", tmp_path / "run", "SOLVER.MAX_ITER", "0", "DATASETS.TEST", "()")
    tool("train_net.py", *arguments, *overrides).mistake(said)
    assert untouched(tmp_path)


def test_a_config_that_runs_code(tool, tmp_path):
    path = tmp_path / "hostile.yaml"
    path.write_text(f"SOLVER:\n  BASE_LR: !!python/object/apply:os.system ['touch {tmp_path}/marker']\n")
    line = tool("train_net.py", "--config", path).mistake("refused, a tag that is not plain data")
    assert "hostile.yaml:2" in line
    assert list(tmp_path.iterdir()) == [path]


def test_a_number_of_classes_that_the_data_has_not(train, tmp_path):
    train("MODEL.ROI_HEADS.NUM_CLASSES", "80").mistake("MODEL.ROI_HEADS.NUM_CLASSES is 80, but the data has 8")
    assert untouched(tmp_path)


# -- where things are


def test_missing_data_root(tool, tmp_path):
    config = ("--config", "coco_faster_rcnn_r50_fpn.yaml", "--output-dir", tmp_path / "run", "--device", "cpu")
    tool("train_net.py", *config, "--data-root", "/nowhere").mistake("/nowhere/coco/annotations", "--data-root")
    tool("train_net.py", *config).mistake("datasets/coco/annotations", "$DETECTRON2_DATASETS")
    assert untouched(tmp_path)


def test_an_output_folder_that_cannot_be_written(train, tmp_path):
    (tmp_path / "run").write_text("a file")
    train().mistake(str(tmp_path / "run"), "cannot be")
    train("OUTPUT_DIR", "x").mistake(str(tmp_path / "run"))
    assert (tmp_path / "run").read_text() == "a file"


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a file system that takes no files")
@pytest.mark.parametrize("arguments", [(), ("--eval-only", "--weights", "x.pth")])
def test_an_output_folder_on_a_file_system_that_takes_no_files(tool, arguments):
    tool("train_net.py", "--config", CONFIG, "--output-dir", "/proc/run", *arguments).mistake("/proc/run")


def test_resume_without_a_run_begins_one_and_says_so(train, tmp_path):
    text = train("--resume").fine("holds no checkpoint to resume from: a new run")
    assert "resumed from" not in text
    assert torch.load(tmp_path / "run" / "model_final.pth", weights_only=True)["iteration"] == 1
    assert "resumed from" in train("--resume").fine()


def test_a_mistake_does_not_cost_the_former_run(train, tmp_path):
    """--overwrite throws a run away when the new one begins, not when it turns out that it cannot."""
    train().fine()
    (tmp_path / "run" / "notes.txt").write_text("mine")
    before = {name: (tmp_path / "run" / name).read_bytes() for name in left(tmp_path) - {"log.txt"}}
    train("--overwrite", "--weights", "nowhere.pth").mistake("no such weights file")
    train("--overwrite", "DATASETS.TRAIN", "coco_2017_train").mistake("does not exist")
    assert {name: (tmp_path / "run" / name).read_bytes() for name in left(tmp_path) - {"log.txt"}} == before
    # Weights out of the very run that is overwritten, and files that are no run's.
    weights = tmp_path / "run" / "model_final.pth"
    train("--overwrite", "--weights", weights, "--seed", "1").fine("whole detector")
    assert weights.read_bytes() != before["model_final.pth"]
    assert (tmp_path / "run" / "notes.txt").read_text() == "mine"
    assert len(list((tmp_path / "run").glob("events*"))) == 1
    assert (tmp_path / "run" / "log.txt").read_text().count("Plan") == 1


# -- weights


def weights_of(tmp_path: Path, name: str, change=lambda name: name, **keywords) -> Path:
    import backbone

    network = backbone.create(name, norm="bn", **keywords)
    path = tmp_path / f"{name}.pth"
    torch.save({change(name): value for name, value in network.state_dict().items()}, path)
    return path


def test_weights_that_fit(train, tmp_path):
    done = train("--weights", weights_of(tmp_path, "resnet18", num_classes=1000))
    done.fine("resnet18.pth: torch file, torchvision layout, backbone, 90 tensors")


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("resnet34", lambda name: name, "does not fit MODEL.BACKBONE.NAME 'resnet18_fpn'"),
        ("resnet50", lambda name: name, "of another shape"),
        ("resnet18", lambda name: name.replace("layer", "stage"), "missing (layer1.0.conv1.weight"),
    ],
)
def test_weights_of_another_depth_or_layout(train, tmp_path, name, change, said):
    path = weights_of(tmp_path, name, change)
    train("--weights", path).mistake(str(path), said)
    assert untouched(tmp_path)


def test_weights_that_are_none(train, tmp_path):
    marker = tmp_path / "marker"
    path = write_hostile(tmp_path / "hostile", "os.system", "beside weights", "torch zip", marker)
    train("--weights", path).mistake("refused, it holds more than tensors and could run code")
    data = flags(write_set(tmp_path / "data"), "val")
    train("--eval-only", "--weights", path, *data).mistake("refused")
    assert not marker.exists()
    train("--weights", "nowhere.pth").mistake("nowhere.pth: no such weights file")
    (tmp_path / "page.pth").write_text("<!DOCTYPE html>")
    train("--weights", tmp_path / "page.pth").mistake("HTML")
    assert untouched(tmp_path)


def test_a_detector_for_other_classes(train, tmp_path, trained):
    path = write_set(tmp_path / "data")
    weights = trained / "model_final.pth"
    train("--eval-only", "--weights", weights, *flags(path, "val")).mistake("was trained on 8 classes", "cat, dog")
    backbone_only = weights_of(tmp_path, "resnet18")
    train("--eval-only", "--weights", backbone_only, *flags(path, "val")).mistake("holds a backbone only")
    train("--weights", weights, *flags(path)).mistake("does not fit the detector of this config")
    assert untouched(tmp_path)


def test_a_checkpoint_that_is_none_is_not_resumed(train, tmp_path):
    train().fine()
    newest = tmp_path / "run" / "model_0000001.pth"
    content = torch.load(newest, weights_only=True)
    del content["optimizer"]
    torch.save(content, newest)
    train("--resume").mistake("holds weights only, a run cannot be resumed from it")
    newest.write_bytes(newest.read_bytes()[:-1000])
    train("--resume").mistake("every checkpoint are damaged (model_0000001.pth)")
    (tmp_path / "run" / "config.yaml").write_text("!!python/object/apply:os.system ['false']")
    train("--resume").mistake("config.yaml:1: refused")


# -- losses


@pytest.mark.parametrize("period", [1, 1000])
def test_a_loss_that_is_not_finite(train, tmp_path, period):
    changes = {"SOLVER.BASE_LR": 1000, "SOLVER.WARMUP_ITERS": 0, "SOLVER.MAX_ITER": 8, "SOLVER.LOG_PERIOD": period}
    changes["SOLVER.CHECKPOINT_PERIOD"] = 0
    train(changes=changes).mistake("not finite near iteration", "lower SOLVER.BASE_LR")
    assert not any("model" in name for name in left(tmp_path))


def test_the_real_command_ends_the_same_way():
    """Once as a process of its own: what a shell sees."""
    done = subprocess.run(
        [sys.executable, ROOT / "tools" / "train_net.py", "--config", "mini_faster_rcn_r18.yaml"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "train_net.py: error: no config file 'mini_faster_rcn_r18.yaml' here or in configs/; "
        "did you mean 'mini_faster_rcnn_r18.yaml'?\n"
    )


# -- a run folder that another run holds


def test_a_folder_that_is_being_written(train, tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "PATIENCE", 0.0)
    (tmp_path / "run").mkdir()
    with lock.locked(tmp_path / "run"):
        train().mistake(f"{tmp_path / 'run'}: another run is writing into it")
        assert untouched(tmp_path)
    assert train().status == 0
