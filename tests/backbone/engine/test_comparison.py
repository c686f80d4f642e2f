"""Runs beside each other: tables, pages, model cards, and the seeds of one training."""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path

import pytest
import warm_commands

from backbone.common.errors import ConfigError, RunError
from backbone.engine import comparison
from backbone.engine.card import CARD, write_card
from backbone.engine.curves import comparison_page, curves_page
from backbone.engine.seeds import take_seeds, without_seeds

ROOT = Path(__file__).resolve().parents[3]
NAN = float("nan")


def write_run(folder: Path, *, rate: float = 0.1, ap: float | None = 0.5, more: dict | None = None) -> Path:
    """Write what a run leaves; `ap` None: it has not ended."""
    folder.mkdir(parents=True)
    names = '["own_train"]'
    (folder / "config.yaml").write_text(
        f"SEED: 0\nOUTPUT_DIR: {folder.name}\nSOLVER: {{BASE_LR: {rate}, MAX_ITER: 9, IMS_PER_BATCH: 2}}\n"
        f"MODEL: {{BACKBONE: {{NAME: resnet18_fpn}}, META_ARCHITECTURE: GeneralizedRCNN}}\n"
        f"DATASETS: {{TRAIN: {names}, TEST: {names}}}\n"
    )
    lines = [
        {"iteration": at, "total_loss": 3 / at, "loss_cls": 1 / at, "loss_box": 2 / at, "lr": rate} for at in (1, 2, 3)
    ]
    lines.insert(
        2, {"iteration": 2, "bbox/AP": 0.25, "bbox/AP50": 0.4, "bbox/AP-cat": 0.1, "bbox/APs": -1.0, "bbox/APl": NAN}
    )
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    if ap is not None:
        per_class = {"cat": {"AP": ap - 0.2}, "<b>dog": {"AP": ap + 0.2}, "none": {"AP": None}}
        results = {"bbox": {"AP": ap, "AP50": 0.9, "per_class": per_class}, "seconds": 61, "iteration": 3}
        (folder / "results.json").write_text(json.dumps({**results, "date": "2026-01-02T03:04", **(more or {})}))
    return folder


@pytest.fixture
def runs(tmp_path) -> list[comparison.FinishedRun]:
    write_run(tmp_path / "a", ap=0.5)
    write_run(tmp_path / "deep" / "b", ap=0.7, rate=0.2)
    write_run(tmp_path / "c", ap=None)
    (tmp_path / "no_run").mkdir()
    return comparison.find_runs(tmp_path)


def test_the_better_ones_come_first(runs):
    header, rows = comparison.overview(runs)
    assert header == ["run", "state", "bbox/AP", "bbox/AP50", "time", "date"]
    assert rows[0] == ["deep/b", "done", 0.7, 0.9, "1m01s", "2026-01-02"]
    # One that has not ended shows its last evaluation.
    assert rows[2] == ["c", "at 3 of 9", 0.25, 0.4, None, None]


def test_keys_and_classes(runs):
    assert comparison.differences(runs) == (["key", "a", "c", "deep/b"], [["SOLVER.BASE_LR", "0.1", "0.1", "0.2"]])
    header, rows = comparison.worst_classes(runs)
    assert header == ["class", "a", "deep/b"]
    assert [row[0] for row in rows] == ["cat", "<b>dog"] and rows[0][1:] == pytest.approx([0.3, 0.5])


def test_mean_and_deviation(runs):
    header, rows = comparison.spread(runs)
    values = [0.5, 0.25, 0.7]
    assert header[:3] == ["figure", "mean", "deviation"]
    assert rows[0] == ["bbox/AP", statistics.mean(values), statistics.stdev(values), 0.25, 0.7, 3]


def test_pages_hold_every_curve_and_escape_names(runs):
    page = comparison_page(runs)
    assert page.count("<figure") == 4 and "<b>dog" not in page and "&lt;b&gt;dog" in page
    one = curves_page(runs[0])
    titles = [part.split("<")[0] for part in one.split('class="title"')[1:]]
    assert len(titles) == 3 and "https://" not in one.replace("http://www.w3.org", "")
    # The points of a chart are those of metrics.jsonl.
    data = [json.loads(part.split("</script>")[0]) for part in one.split('<script type="application/json">')[1:]]
    assert {line["name"]: line["points"] for line in data[0]["series"]}["total_loss"] == [[1, 3.0], [2, 1.5], [3, 1.0]]


def test_the_loss_of_a_test_set_stands_beside_that_of_training_and_figures_before_counts():
    step = {"iteration": 1, "total_loss": 3.0, "loss_a": 1.0, "loss_b": 2.0, "head/accuracy": 0.1, "lr": 0.1}
    test = {"iteration": 1, "bbox/AP": 0.2, "bbox/AP-cat": 0.3, "validation/total_loss": 3.5}
    page = curves_page(comparison.FinishedRun("a", {}, [step, test], {}))
    titles = [part.split("<")[0].lstrip(">") for part in page.split('class="title"')[1:]]
    assert [title.rpartition(">")[2] for title in titles] == [
        "losses",
        "bbox",
        "validation",
        "learning rate",
        "head/accuracy",
    ]
    first = json.loads(page.split('<script type="application/json">')[1].split("</script>")[0])
    assert [line["name"] for line in first["series"]] == ["total_loss", "loss_a", "loss_b", "validation/total_loss"]
    assert "AP-cat" not in page


@pytest.mark.parametrize("broken", ["results.json", "config.yaml", "metrics.jsonl"])
def test_broken_files_are_named(tmp_path, broken):
    write_run(tmp_path / "a")
    (tmp_path / "a" / broken).write_text('[1]\n{"iteration": 1}\n')
    done = warm_commands.run([sys.executable, ROOT / "tools" / "runs.py", tmp_path])
    assert done.returncode == 2 and broken in done.stderr and len(done.stderr.splitlines()) == 1
    (tmp_path / "empty").mkdir()
    with pytest.raises(RunError, match="no run folder"):
        comparison.find_runs(tmp_path / "empty")


def test_a_card_says_data_figures_and_how_to_load(tmp_path):
    folder = write_run(tmp_path / "a")
    write_card(folder, "detection", ["cat", "dog"])
    text = (folder / CARD).read_text()
    for part in (
        "2 classes: cat, dog",
        "| bbox/AP ",
        "0.5000",
        "own_train",
        "the licence of your data",
        'detection.load("model_final.pth")',
        "0.1",
    ):
        assert part in text
    (folder / CARD).write_text("mine")
    write_card(folder, "detection", ["cat", "dog"])
    assert (folder / CARD).read_text() == "mine"
    # CIFAR is tested on its own part, whatever DATA.VAL says.
    folder = write_run(tmp_path / "b")
    (folder / "config.yaml").write_text("MODEL: {NAME: cifar_resnet20}\nDATA: {NAME: cifar100, TRAIN: train, VAL: val}")
    write_card(folder, "classification", ["cat", "dog"])
    assert "- trained on cifar100, train\n- tested on cifar100, test\n" in (folder / CARD).read_text()


class Flags:
    """What a parser gives."""

    def __init__(self, *seeds: str, **others) -> None:
        self.seeds, self.overrides, self.eval_only, self.seed = list(seeds), ["A", "1"], False, None
        self.plan, self.draw = False, None
        vars(self).update(others)


def test_seeds_end_where_keys_begin():
    flags = Flags("0", "2", "SOLVER.MAX_ITER", "5")
    assert take_seeds(flags) == [0, 2] and flags.overrides == ["SOLVER.MAX_ITER", "5", "A", "1"]
    for wrong in (Flags("x"), Flags("1", "1"), Flags("1", seed=3), Flags("1", eval_only=True), Flags("1", draw="d")):
        with pytest.raises(ConfigError, match="--seeds"):
            take_seeds(wrong)
    for given in (["--seeds", "0", "2"], ["--seeds=0"]):
        words = ["--resume", *given, "--device", "cpu", "A", "1"]
        assert without_seeds(words, begun=False) == words[1 + len(given) :]


@pytest.mark.slow
def test_seeds_run_for_real(tmp_path):
    tiny = ("SOLVER.MAX_ITER", "2", "SOLVER.IMS_PER_BATCH", "8", "DATA.SYNTHETIC", "True", "MODEL.NUM_CLASSES", "10")
    tiny += ("TEST.PRECISE_BN.NUM_IMAGES", "64")
    command = [sys.executable, ROOT / "tools" / "pretrain.py", "--config", "cifar10_resnet20.yaml", "--device", "cpu"]
    done = warm_commands.run([*command, "--output-dir", tmp_path, "--seeds", "0", "3", *tiny])
    assert done.returncode == 0, done.stderr[-2000:]
    rows = json.loads((tmp_path / "seeds.json").read_text())
    alone = [json.loads((tmp_path / f"seed{seed}" / "results.json").read_text())["single"] for seed in (0, 3)]
    top1 = next(row for row in rows if row["figure"] == "single/top1_error")
    assert top1["mean"] == pytest.approx(statistics.mean(one["top1_error"] for one in alone))
