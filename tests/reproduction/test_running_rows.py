"""Which commands are run for rows, in what order, and what becomes of those that fail."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import threading
import time
from pathlib import Path

import pytest
from fake_runs import make_run

from backbone import ConfigError, DataError, RunError
from backbone.common import commands
from reproduction import Request, reproduce
from reproduction.classification import classification_table


class Bench:
    """A fake tool and an output folder."""

    def __init__(self, folder: Path) -> None:
        self.tools = folder / "tools"
        self.output = folder / "output"
        self.tools.mkdir()
        shutil.copy(Path(__file__).with_name("fake_tool.py"), self.tools / "pretrain.py")
        self.said: list[str] = []

    def fail(self, **plan: object) -> None:
        (self.tools / "fail.json").write_text(json.dumps(plan))

    def run(self, number: str, *rows: str, **changes: object) -> bool:
        self.said.clear()
        request = Request(classification_table(number), rows=rows, output=self.output)
        return reproduce(dataclasses.replace(request, **changes), self.said.append)

    def calls(self) -> list[list[str]]:
        path = self.tools / "calls.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []

    def folders(self) -> list[str]:
        return [Path(call[call.index("--output-dir") + 1]).name for call in self.calls()]

    def figures(self) -> dict[str, dict]:
        path = next(iter(self.output.glob("*.json")))
        return {row["row"]: row for row in json.loads(path.read_text())["rows"]}


@pytest.fixture
def bench(tmp_path, monkeypatch):
    monkeypatch.setattr(commands, "TOOLS", tmp_path / "tools")
    return Bench(tmp_path)


def test_a_row_is_one_command_with_all_that_was_asked_for(bench, tmp_path):
    assert bench.run(
        "6", "ResNet-20", data_root=tmp_path, flags=("--device", "cpu"), overrides=("SOLVER.LOG_PERIOD", "5")
    )
    folder = str(bench.output / "runs" / "cifar10_resnet20")
    expected = ["--config", "cifar10_resnet20.yaml", "--output-dir", folder, "--data-root", str(tmp_path)]
    assert bench.calls() == [[*expected, "--device", "cpu", "SOLVER.LOG_PERIOD", "5"]]
    assert (bench.output / "table6.md").is_file() and (bench.output / "table6.html").is_file()


def test_resnet_110_is_trained_with_five_seeds(bench):
    assert bench.run("6", "ResNet-110")
    name = "cifar10_resnet110"
    assert bench.folders() == [name, *(f"{name}_seed{seed}" for seed in (1, 2, 3, 4))]
    assert [call[-2:] for call in bench.calls()[1:]] == [["SEED", str(seed)] for seed in (1, 2, 3, 4)]


def test_rows_run_in_order_and_done_ones_are_left_alone(bench):
    assert bench.run("6", "ResNet-32", "ResNet-20")
    assert bench.folders() == ["cifar10_resnet20", "cifar10_resnet32"]
    # The fake run's config is short and of another schedule; what counts here is that it has come to its end.
    assert bench.run("6", "ResNet-20", "ResNet-44", overrides=("SOLVER.MAX_ITER", "10", "SOLVER.IMS_PER_BATCH", "256"))
    assert bench.folders()[2:] == ["cifar10_resnet44"]


def test_a_begun_run_is_resumed(bench):
    make_run(bench.output / "runs", "cifar10_resnet20", iterations=100, finished=False)
    assert bench.run("6", "ResNet-20")
    assert "--resume" in bench.calls()[0]


def test_a_folder_with_a_log_alone_is_begun_anew(bench):
    folder = bench.output / "runs" / "cifar10_resnet20"
    folder.mkdir(parents=True)
    (folder / "log.txt").write_text("a mistake")
    assert bench.run("6", "ResNet-20")
    assert "--resume" not in bench.calls()[0]


def test_what_a_training_has_not_tested_is_tested_from_its_weights(bench):
    run = make_run(bench.output / "runs", "imagenet_resnet50", protocols=["10crop"])
    assert bench.run("3", "ResNet-50")
    assert bench.calls() == []
    assert bench.run("4", "ResNet-50", json=bench.output / "figures.json")
    (call,) = bench.calls()
    assert call[:5] == ["--config", "imagenet_resnet50.yaml", "--eval-only", "--protocol", "dense"]
    assert call[call.index("--weights") + 1] == str(run / "model_final.pth")
    assert bench.folders() == ["imagenet_resnet50_dense"]
    assert bench.figures()["ResNet-50"]["figures"]["top-1 error %"] == {"paper": 20.74, "measured": 20.0}
    assert bench.run("4", "ResNet-50")
    assert len(bench.calls()) == 1


def test_a_failing_row_is_named_and_the_others_go_on(bench):
    bench.fail(cifar10_resnet32=1)
    rows = ("ResNet-20", "ResNet-32", "ResNet-44")
    assert not bench.run("6", *rows, json=bench.output / "figures.json")
    assert bench.folders() == ["cifar10_resnet20", "cifar10_resnet32", "cifar10_resnet44"]
    assert "failed       ResNet-32: ValueError: out of luck (status 1)" in bench.said
    figures = bench.figures()
    assert figures["ResNet-32"]["failure"] == "ValueError: out of luck (status 1)"
    assert figures["ResNet-44"]["failure"] is None
    assert "failed: ValueError: out of luck" in (bench.output / "table6.md").read_text()


def test_a_killed_row_is_told_from_one_that_failed(bench):
    bench.fail(cifar10_resnet20="killed")
    assert not bench.run("6", "ResNet-20")
    said = "ended by SIGKILL, as when memory runs out; the same command goes on from there; it said last: iter 7/10"
    assert any(line.startswith(f"failed       ResNet-20: {said}") and "(status 137)" in line for line in bench.said)


def test_rows_are_counted(bench):
    bench.fail(cifar10_resnet32=1)
    bench.run("6", "ResNet-20", "ResNet-32")
    rows = [line for line in bench.said if line.startswith("row ")]
    assert rows[0] == "row          1 of 2: ResNet-20" and rows[1].startswith("row          ResNet-20: done after ")
    assert rows[2] == "row          2 of 2: ResNet-32" and rows[3].startswith("row          ResNet-32: failed after ")


def test_a_users_mistake_in_the_first_row_ends_it_before_the_others(bench):
    bench.fail(cifar10_resnet20=2, cifar10_resnet32=2)
    with pytest.raises(RunError, match="^ResNet-20: /nowhere: the data root does not exist; give --data-root$"):
        bench.run("6", "ResNet-20", "ResNet-32")
    assert bench.folders() == ["cifar10_resnet20"]
    assert not (bench.output / "table6.md").exists()


def test_a_users_mistake_in_a_later_row_is_that_rows_failure(bench):
    bench.fail(cifar10_resnet32=2)
    assert not bench.run("6", "ResNet-20", "ResNet-32", "ResNet-44")
    assert len(bench.calls()) == 3


def test_a_command_that_ends_well_without_its_figure_is_a_failure(bench):
    # Newer than what the test will write: as with a clock that runs backwards.
    make_run(bench.output / "runs", "imagenet_resnet50", protocols=["10crop"], date="2030-01-01T00:00:00+00:00")
    assert not bench.run("4", "ResNet-50")
    assert "no dense/top1_error" in bench.said[-1]


def test_several_rows_run_at_once_and_name_themselves(bench):
    assert bench.run("6", "ResNet-20", "ResNet-32", "ResNet-44", jobs=2)
    assert sorted(bench.folders()) == ["cifar10_resnet20", "cifar10_resnet32", "cifar10_resnet44"]
    assert "ResNet-44    | iter 10/10  loss 1.0" in bench.said


def test_report_only_runs_nothing(bench):
    assert bench.run("6", report_only=True)
    assert bench.calls() == []
    assert (bench.output / "table6.md").is_file()


def test_a_scaled_run_gets_its_schedule_and_a_folder_of_its_own(bench, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert bench.run("6", "ResNet-20", scale=0.01, output=None)
    (call,) = bench.calls()
    keys = dict(zip(call[call.index("SOLVER.MAX_ITER") :: 2], call[call.index("SOLVER.MAX_ITER") + 1 :: 2]))
    assert keys["SOLVER.MAX_ITER"] == "640"
    assert keys["SOLVER.STEPS"] == "(320, 480)"
    assert Path("output/reproduce_scale_0.01/table6.md").is_file()
    assert not Path("output/reproduce").exists()


def test_scale_counts_from_the_schedule_of_the_batch_that_was_asked_for(bench):
    assert bench.run("6", "ResNet-20", scale=0.5, overrides=("SOLVER.IMS_PER_BATCH", "256"))
    (call,) = bench.calls()
    # 64,000 steps of 128 images are 32,000 of 256; half of them.
    assert call[call.index("SOLVER.MAX_ITER") + 1] == "16000"


def test_a_finished_run_of_another_schedule_is_not_taken_for_the_one_asked_for(bench):
    make_run(bench.output / "runs", "cifar10_resnet20", overrides=["SOLVER.MAX_ITER", 640])
    with pytest.raises(ConfigError, match=r"cifar10_resnet20 is a run of another config: SOLVER.MAX_ITER 640 \(now 64"):
        bench.run("6", "ResNet-20")
    assert bench.calls() == []
    assert bench.run("6", "ResNet-20", overrides=("SOLVER.MAX_ITER", "640"))
    assert bench.run("6", report_only=True)


@pytest.mark.parametrize(
    ("changes", "error", "said"),
    [
        ({"rows": ("ResNet20",)}, ConfigError, "did you mean 'ResNet-20'"),
        ({"overrides": ("SOLVER.MAX_ITERS", "4")}, ConfigError, "did you mean 'SOLVER.MAX_ITER'"),
        ({"overrides": ("SOLVER.MAX_ITER",)}, ConfigError, "has no value"),
        ({"data_root": Path("/no/such/folder")}, DataError, "--data-root /no/such/folder: does not exist"),
    ],
)
def test_mistakes_are_found_before_anything_runs(bench, changes, error, said):
    with pytest.raises(error, match=said):
        bench.run("6", **changes)
    assert bench.calls() == []
    assert not bench.output.exists()


def test_sigterm_ends_the_commands_too(bench):
    bench.fail(cifar10_resnet20="wait")
    waiting = bench.output / "runs" / "cifar10_resnet20" / "waiting"

    def terminate() -> None:
        while not waiting.exists():
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=terminate)
    thread.start()
    with pytest.raises(SystemExit) as caught:
        bench.run("6", "ResNet-20", "ResNet-32")
    thread.join()
    assert caught.value.code == 143
    assert not waiting.with_name("waited").exists()
    assert bench.folders() == ["cifar10_resnet20"]
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
