"""Which commands are run for the rows of detection tables, and what becomes of rows that fail."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import pytest

from backbone import ConfigError, RunError
from backbone.common import commands
from reproduction import Request, reproduce
from reproduction.tables import detection_table

CONTEXT = "coco_paper_r101_context_trainval"


class Bench:
    """A fake tool and an output folder."""

    def __init__(self, folder: Path) -> None:
        self.tools = folder / "tools"
        self.output = folder / "output"
        self.tools.mkdir()
        shutil.copy(Path(__file__).with_name("fake_train_net.py"), self.tools / "train_net.py")
        self.said: list[str] = []

    def plan(self, **plans: object) -> None:
        for name, plan in plans.items():
            (self.tools / f"{name}.json").write_text(json.dumps(plan))

    def run(self, number: str, *rows: str, **changes: object) -> bool:
        self.said.clear()
        request = Request(detection_table(number), rows=rows, output=self.output, json=self.output / "figures.json")
        return reproduce(dataclasses.replace(request, **changes), self.said.append)

    def calls(self) -> dict[str, list[str]]:
        """Return the arguments of the calls, by the names of their run folders, in order."""
        lines = (self.tools / "calls.jsonl").read_text().splitlines()
        calls = [json.loads(line) for line in lines]
        found = {Path(call[call.index("--output-dir") + 1]).name: call for call in calls}
        assert len(found) == len(calls), "a step ran twice"
        return found

    def final(self, folder: str) -> str:
        return str(self.output / "runs" / folder / "model_final.pth")

    def rows(self) -> dict[str, dict]:
        return {row["row"]: row for row in json.loads((self.output / "figures.json").read_text())["rows"]}


@pytest.fixture
def bench(tmp_path, monkeypatch):
    monkeypatch.setattr(commands, "TOOLS", tmp_path / "tools")
    return Bench(tmp_path)


def test_methods_are_tests_of_one_training(bench):
    assert bench.run("9", "baseline", "+ box refinement", overrides=("TEST.PICTURES", "0"))
    train, test = bench.calls().values()
    assert train[:2] == ["--config", "coco_paper_r101.yaml"] and "--eval-only" not in train
    assert test[:3] == ["--config", "coco_paper_r101_refinement.yaml", "--eval-only"]
    assert test[test.index("--weights") + 1] == bench.final("coco_paper_r101")
    assert train[-2:] == test[-2:] == ["TEST.PICTURES", "0"]
    assert bench.rows()["+ box refinement, val"]["figures"]["AP50 %"] == {"paper": 49.9, "measured": 50.0}


def test_a_test_alone_brings_its_training_and_does_not_take_its_figures(bench):
    bench.plan(server=["coco_paper_r101_refinement"])
    # The training has AP50, the test leaves none: the row has failed.
    assert not bench.run("9", "+ box refinement")
    assert list(bench.calls()) == ["coco_paper_r101", "coco_paper_r101_refinement"]
    assert "left no bbox/AP50, bbox/AP" in bench.said[-1]


def test_the_report_says_how_many_images_were_tested(bench):
    assert bench.run("9", "baseline", "+ box refinement")
    rows = bench.rows()
    assert rows["baseline, val"]["images"] == rows["+ box refinement, val"]["images"] == 42
    assert rows["+ context, val"]["images"] is None
    assert "test images" in (bench.output / "table9.md").read_text()


def test_the_ensemble_trains_what_is_missing_and_tests_all_three(bench):
    names = [CONTEXT, f"{CONTEXT}_seed1", f"{CONTEXT}_seed2"]
    test = "coco_paper_r101_ensemble_trainval"
    bench.plan(server=[*names, test])
    assert bench.run("9", "+ context, test-dev", "ensemble")
    calls = bench.calls()
    assert sorted(calls) == sorted([*names, test]) and list(calls)[-1] == test
    assert calls[names[2]][-2:] == ["SEED", "2"]
    weights = calls[test][calls[test].index("--weights") + 1]
    assert weights == bench.final(names[0])
    assert calls[test][-2:] == ["TEST.ENSEMBLE", str((bench.final(names[1]), bench.final(names[2])))]
    row = bench.rows()["ensemble, test-dev"]
    assert (row["state"], row["figures"]["AP50 %"]["measured"]) == ("for the evaluation server", None)
    markdown = (bench.output / "table9.md").read_text()
    assert (
        "detections_test-dev2015_coco_paper_r101_ensemble_trainval_results.json for the evaluation server" in markdown
    )
    # All there: nothing runs again.
    done = ("SOLVER.MAX_ITER", "10", "SOLVER.IMS_PER_BATCH", "8")
    assert bench.run("9", "ensemble", overrides=done)
    assert len(bench.calls()) == 4


def test_a_training_anew_makes_the_tests_of_the_ensemble_old(bench):
    names = [CONTEXT, f"{CONTEXT}_seed1", f"{CONTEXT}_seed2"]
    assert bench.run("9", "ensemble")
    results = bench.output / "runs" / names[1] / "results.json"
    results.write_text(json.dumps({**json.loads(results.read_text()), "date": "2026-02-01T00:00:00+00:00"}))
    assert bench.run("9", report_only=True)
    assert bench.rows()["ensemble, test-dev"]["figures"]["AP50 %"]["measured"] is None


def test_baseline_plus_goes_on_from_coco(bench, tmp_path):
    for network in ("vgg16", "resnet101"):
        (tmp_path / f"{network}.pth").touch()
    weights = {network: tmp_path / f"{network}.pth" for network in ("vgg16", "resnet101")}
    bench.plan(server=[CONTEXT])
    assert bench.run("10", weights=weights)
    calls = bench.calls()
    given = {name: call[call.index("--weights") + 1] for name, call in calls.items()}
    assert given == {
        "voc_paper_vgg16_07": str(weights["vgg16"]),
        "voc_paper_r101_07": str(weights["resnet101"]),
        CONTEXT: str(weights["resnet101"]),
        "voc_paper_r101_from_coco_07": bench.final(CONTEXT),
    }
    assert list(calls).index(CONTEXT) < list(calls).index("voc_paper_r101_from_coco_07")


def test_rows_without_their_data_fail_by_name_and_the_others_go_on(bench):
    bench.plan(fail={"voc_paper_vgg16_07": 2, "voc_paper_r101_07": 2})
    assert not bench.run("7")
    assert list(bench.calls())[2:] == ["voc_paper_vgg16_12", "voc_paper_r101_12"]
    states = {name: row["failure"] for name, row in bench.rows().items()}
    assert states["VGG-16, 07 test"] == "voc_paper_vgg16_07: no data there (status 2)"
    assert states["ResNet-101, 07 test"] == "voc_paper_r101_07: no data there (status 2)"
    assert states["VGG-16, 12 test"] is states["ResNet-101, 12 test"] is None


def test_a_training_that_failed_is_not_tried_again_for_the_next_row(bench):
    bench.plan(fail={"coco_paper_r101": 1})
    assert not bench.run("9", "baseline", "+ box refinement", "+ context, val")
    assert list(bench.calls()) == ["coco_paper_r101", "coco_paper_r101_context"]
    rows = bench.rows()
    assert "no data there" in rows["+ box refinement, val"]["failure"]
    assert rows["+ context, val"]["state"] == "done"


def test_one_mistake_of_all_rows_is_one_line_that_names_them(bench):
    bench.plan(fail={"coco_paper_r101": 2})
    with pytest.raises(RunError, match=r"^baseline, val, \+ box refinement, val: coco_paper_r101: no data there$"):
        bench.run("9", "baseline", "+ box refinement")


def test_scale_shortens_every_training_and_no_test(bench):
    assert bench.run("10", "baseline+++ ResNet-101", scale=0.01)
    keys = {
        name: dict(zip(call[call.index("SOLVER.MAX_ITER") :: 2], call[call.index("SOLVER.MAX_ITER") + 1 :: 2]))
        for name, call in bench.calls().items()
    }
    assert keys[CONTEXT]["SOLVER.MAX_ITER"] == "3200"
    assert keys[CONTEXT]["SOLVER.STEPS"] == "(2400,)"
    assert keys["voc_paper_r101_from_coco_07"]["SOLVER.MAX_ITER"] == "800"


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        ({"resnet50": "a.pth"}, "--weights resnet50=a.pth: no network of Table 8; one of resnet101, vgg16"),
        ({"vgg16": "nowhere.pth"}, "--weights vgg16=nowhere.pth: no such file"),
    ],
)
def test_wrong_weights_are_refused_before_anything_runs(bench, weights, said):
    with pytest.raises(ConfigError, match=said):
        bench.run("8", weights={name: Path(file) for name, file in weights.items()})
    assert not bench.output.exists()
