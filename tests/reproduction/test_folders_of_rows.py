"""What is read from run folders, whole, unfinished, missing and broken."""

from __future__ import annotations

import pytest
from fake_runs import make_run, write_results

from backbone import ConfigError
from backbone.classification import load_config
from backbone.engine.config import dump
from reproduction.classification import classification_table
from reproduction.records import gather
from reproduction.rows import DONE, NOT_RUN, UNFINISHED, UNTESTED


def row(number: str, name: str):
    return next(row for row in classification_table(number).rows if row.name == name)


def test_a_finished_run(tmp_path):
    make_run(tmp_path, "cifar10_resnet20", error=0.0912)
    record = gather(row("6", "ResNet-20"), tmp_path)
    assert record.state == DONE
    assert record.measured == {"top-1 error %": 0.0912}
    assert (record.iteration, record.total, record.schedule_share, record.seed) == (64000, 64000, 1, 0)
    assert record.images == 10000
    assert record.changes == ()
    assert record.made["device"] == "Some GPU"


def test_curves_are_the_lines_of_the_metrics_in_order(tmp_path):
    folder = make_run(tmp_path, "cifar10_resnet20")
    lines = [
        '{"iteration": 100, "train_error": 0.5}',
        '{"iteration": 50, "train_error": 0.9}',
        '{"iteration": 100, "single/top1_error": 0.4}',
        '{"iteration": 150, "train_error": NaN}',
        '{"iteration": 200, "train_error": 0.',
    ]
    (folder / "metrics.jsonl").write_text("\n".join(lines))
    curves = gather(row("6", "ResNet-20"), tmp_path).curves
    assert curves == {"train": [(50, 0.9), (100, 0.5)], "test": [(100, 0.4)]}


def test_nothing_there_and_a_log_alone_are_not_run(tmp_path):
    assert gather(row("6", "ResNet-20"), tmp_path).state == NOT_RUN
    (tmp_path / "cifar10_resnet20").mkdir()
    (tmp_path / "cifar10_resnet20" / "log.txt").write_text("a mistake was made here")
    assert gather(row("6", "ResNet-20"), tmp_path).state == NOT_RUN


def test_an_unfinished_run_says_where_it_stands_and_gives_no_figure(tmp_path):
    make_run(tmp_path, "cifar10_resnet20", iterations=16000, finished=False)
    record = gather(row("6", "ResNet-20"), tmp_path)
    assert (record.state, record.iteration, record.total) == (UNFINISHED, 16000, 64000)
    assert record.measured == {}
    assert record.curves["test"]


def test_results_of_a_shorter_schedule_do_not_end_a_longer_one(tmp_path):
    folder = make_run(tmp_path, "cifar10_resnet20", overrides=["SOLVER.MAX_ITER", 1000])
    assert gather(row("6", "ResNet-20"), tmp_path).state == DONE
    # --resume --force with the whole schedule, killed on the way.
    (folder / "config.yaml").write_text(dump(load_config("cifar10_resnet20")))
    assert gather(row("6", "ResNet-20"), tmp_path).state == UNFINISHED


def test_a_shortened_run_says_its_share_and_all_that_was_changed(tmp_path):
    changed = ["SOLVER.MAX_ITER", 640, "DATA.SYNTHETIC", True, "SEED", 3, "DATALOADER.NUM_WORKERS", 0]
    changed += ["TEST.DENSE_SIDES", (224,), "DATA.ROOT", "/data/cifar"]
    make_run(tmp_path, "cifar10_resnet20", overrides=changed)
    record = gather(row("6", "ResNet-20"), tmp_path)
    assert record.schedule_share == pytest.approx(0.01)
    assert record.seed == 3
    assert record.data == "/data/cifar"
    assert record.changes == (
        "DATA.SYNTHETIC True (config: False)",
        "SOLVER.MAX_ITER 640 (config: 64000)",
        "TEST.DENSE_SIDES [224] (config: [224, 256, 384, 480, 640])",
    )


def test_half_the_batch_with_twice_the_iterations_is_the_whole_schedule(tmp_path):
    changed = ["SOLVER.IMS_PER_BATCH", 64, "SOLVER.MAX_ITER", 128000]
    make_run(tmp_path, "cifar10_resnet20", overrides=changed)
    assert gather(row("6", "ResNet-20"), tmp_path).schedule_share == 1


def test_a_test_of_its_own_gives_what_the_training_has_left_out(tmp_path):
    make_run(tmp_path, "imagenet_resnet50", protocols=["1crop", "10crop"], error=0.23)
    dense = row("4", "ResNet-50")
    assert gather(row("3", "ResNet-50"), tmp_path).state == DONE
    assert gather(dense, tmp_path).state == UNTESTED
    folder = tmp_path / "imagenet_resnet50_dense"
    write_results(folder, {"dense": 0.21}, iteration=None, date="2026-01-03T00:00:00+00:00")
    record = gather(dense, tmp_path)
    assert record.state == DONE
    assert record.measured == pytest.approx({"top-1 error %": 0.21, "top-5 error %": 0.042})
    assert record.made["date"] == "2026-01-03T00:00:00+00:00"


def test_a_test_older_than_its_training_does_not_count(tmp_path):
    make_run(tmp_path, "imagenet_resnet50", protocols=["1crop"])
    folder = tmp_path / "imagenet_resnet50_dense"
    write_results(folder, {"dense": 0.21}, iteration=None, date="2025-12-31T00:00:00+00:00")
    assert gather(row("4", "ResNet-50"), tmp_path).state == UNTESTED


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"single": 3, "iteration": 64000}', '{"iteration": true}'])
def test_broken_results_are_no_results(tmp_path, text):
    folder = make_run(tmp_path, "cifar10_resnet20")
    (folder / "results.json").write_text(text)
    record = gather(row("6", "ResNet-20"), tmp_path)
    assert record.state in (UNFINISHED, UNTESTED)
    assert record.measured == {}


def test_a_config_that_is_no_runs_is_named(tmp_path):
    folder = make_run(tmp_path, "cifar10_resnet20")
    (folder / "config.yaml").write_text("SOLVER: {}\n")
    with pytest.raises(ConfigError, match=r"cifar10_resnet20/config.yaml: .* no SOLVER.MAX_ITER"):
        gather(row("6", "ResNet-20"), tmp_path)
