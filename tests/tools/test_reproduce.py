"""The command line of tools/reproduce.py: a real run of two small rows, and mistakes."""

from __future__ import annotations

import json

import pytest

TINY = {
    "DATA.SYNTHETIC": True,
    "SOLVER.MAX_ITER": 4,
    "SOLVER.IMS_PER_BATCH": 8,
    "SOLVER.LOG_PERIOD": 1,
    "TEST.EVAL_PERIOD": 2,
    "TEST.PRECISE_BN.NUM_IMAGES": 8,
    "DATALOADER.NUM_WORKERS": 0,
}


@pytest.fixture
def call(tool, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")

    def call(*arguments, changes=None):
        pairs = [part for pair in (TINY if changes is None else changes).items() for part in pair]
        return tool("reproduce.py", *arguments, *pairs)

    return call


def test_rows_are_trained_reported_and_not_trained_again(call, tmp_path):
    asked = ("--table", "6", "--rows", "ResNet-20", "--device", "cpu", "--json", "figures.json")
    call(*asked).fine("iter 4/4", "table6.md", "table6.html", "figures.json")
    folder = tmp_path / "output" / "reproduce"
    results = json.loads((folder / "runs" / "cifar10_resnet20" / "results.json").read_text())
    rows = {row["row"]: row for row in json.loads((tmp_path / "figures.json").read_text())["rows"]}
    assert rows["ResNet-20"]["state"] == "done"
    measured = rows["ResNet-20"]["figures"]["top-1 error %"]["measured"]
    assert measured == pytest.approx(100 * results["single"]["top1_error"], abs=1e-3)
    assert rows["ResNet-32"]["state"] == "not run"
    markdown = (folder / "table6.md").read_text()
    assert "DATA.SYNTHETIC True (config: False)" in markdown
    # Two evaluations and four steps in the curves of the page.
    page = (folder / "table6.html").read_text()
    assert '"name":"ResNet-20 training"' in page and '"name":"ResNet-20"' in page
    again = call(*asked).fine("trained already")
    assert "iter 4/4" not in again


def test_data_that_is_not_there_ends_it_in_one_line(call, tmp_path):
    (tmp_path / "empty").mkdir()
    done = call("--table", "6", "--data-root", "empty", "--device", "cpu", changes={})
    done.mistake("reproduce.py: error: ResNet-20: empty: no CIFAR-10 there")
    assert not (tmp_path / "output" / "reproduce" / "table6.md").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "--table"),
        (("--table", "5"), "'5'"),
        (("--table", "6", "--scale", "0"), "must be above 0 and at most 1, not '0'"),
        (("--table", "6", "--scale", "2"), "must be above 0 and at most 1, not '2'"),
        (("--table", "6", "--scale", "nan"), "must be above 0 and at most 1, not 'nan'"),
        (("--table", "6", "--jobs", "0"), "must be a whole number above 0, not '0'"),
        (("--table", "6", "--row", "ResNet-20"), "did you mean '--rows'"),
        (("--table", "6", "--rows", "ResNet20"), "did you mean 'ResNet-20'"),
        (("--table", "6", "--data-root", "nowhere"), "--data-root nowhere: does not exist"),
    ],
)
def test_mistakes(call, tmp_path, arguments, said):
    call(*arguments, changes={}).mistake(said)
    assert not (tmp_path / "output").exists()


def test_report_only(call, tmp_path):
    call("--table", "2", "--report-only", changes={}).fine("table2.md")
    assert (tmp_path / "output" / "reproduce" / "table2.md").read_text().count("not run") == 4
