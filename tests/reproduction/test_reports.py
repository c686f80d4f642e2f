"""Markdown, JSON and the page, on made-up runs."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import pytest
from fake_runs import make_run

from backbone.common.pages.chart import Scale, Series, draw, fit_scale, thin_out, tick_step
from backbone.engine.schedule import Cosine, MultiStep, WarmUp
from reproduction import Request, reproduce
from reproduction.classification import classification_table
from reproduction.records import drops_of

VOID = {"meta", "br", "link", "img", "input"}


class Checked(HTMLParser):
    """Checks that every tag is closed in order; keeps what a page would load."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loads: list[str] = []
        self.texts: list[str] = []

    def handle_starttag(self, tag, attributes):
        self.loads += [value for name, value in attributes if name in ("src", "href", "xlink:href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        pass

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


@pytest.fixture
def report(tmp_path):
    """Make the report of a table from the runs in `tmp_path`/runs; returns Markdown, page and JSON."""

    def make(number):
        request = Request(
            classification_table(number), output=tmp_path, report_only=True, json=tmp_path / "figures.json"
        )
        assert reproduce(request, lambda line: None)
        return (
            (tmp_path / f"table{number}.md").read_text(),
            (tmp_path / f"table{number}.html").read_text(),
            json.loads((tmp_path / "figures.json").read_text()),
        )

    return make


def lines_of(markdown: str, name: str) -> list[list[str]]:
    return [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in markdown.splitlines()
        if line.startswith(f"| {name} ")
    ]


def test_paper_against_measured(tmp_path, report):
    make_run(tmp_path / "runs", "cifar10_resnet20", error=0.0912)
    make_run(tmp_path / "runs", "cifar10_plain20", error=0.0955)
    make_run(tmp_path / "runs", "cifar10_resnet56", iterations=16000, finished=False)
    markdown, page, figures = report("6")
    assert lines_of(markdown, "ResNet-20")[0] == [
        "ResNet-20",
        "8.75",
        "9.12 ± 0.56 (+0.37)",
        "10,000",
        "64,000 iterations",
    ]
    assert lines_of(markdown, "plain-20")[0][1:3] == ["-", "9.55 ± 0.58"]
    assert lines_of(markdown, "ResNet-32")[0] == ["ResNet-32", "7.51", "-", "-", "not run"]
    assert "stopped at iteration 16,000 of 64,000" in lines_of(markdown, "ResNet-56")[0][-1]
    assert lines_of(markdown, "ResNet-20")[1][1:5] == [
        "0",
        "Some GPU",
        "python 3.11.7, torch 2.11.0, torchvision 0.26.0",
        "2026-01-02 03:04",
    ]
    assert "1 of 6 rows" in markdown
    rows = {row["row"]: row for row in figures["rows"]}
    assert rows["ResNet-20"]["figures"] == {"top-1 error %": {"paper": 8.75, "measured": 9.12}}
    assert (rows["ResNet-32"]["state"], rows["ResNet-56"]["state"]) == ("not run", "unfinished")
    for text in ("9.12 ± 0.56 (+0.37)", "not run", "stopped at iteration 16,000"):
        assert text in page
    # 8.75 lies within 9.12 +- 0.56; the page marks it, and draws it across the chart of its curve.
    assert "The paper's figure is within the interval: ResNet-20." in markdown and "It is outside" not in markdown
    assert '<td class="number within">9.12 ± 0.56 (+0.37)</td>' in page
    assert page.count("<title>ResNet-20, paper: 8.75 %</title>") == 1 and "plain-20, paper" not in page
    assert '<span class="last within">9.12 %, paper 8.75 %</span>' in page
    drawn = next(part for part in re.findall(r"<svg.*?</svg>", page, re.DOTALL) if "ResNet-20, paper" in part)
    tree = ElementTree.fromstring(drawn)
    (line,) = [one for one in tree.iter("line") if one.findtext("title", "").startswith("ResNet-20, paper")]
    color = line.get("class").removeprefix("paper ")
    (curve,) = [one for one in tree.iter("polyline") if one.get("class") == f"line {color}"]
    assert line.get("y1") == line.get("y2") and float(line.get("y1")) > float(curve.get("points").split(",")[-1])
    # Errors of ten crops are not those of the centre crop, whose curve it is.
    make_run(tmp_path / "runs", "imagenet_resnet50", error=0.23)
    assert "ResNet-50, paper" not in report("3")[1]


def test_top_5_stands_beside_top_1(tmp_path, report):
    make_run(tmp_path / "runs", "imagenet_resnet50", error=0.23)
    markdown, _, _ = report("3")
    top_1, top_5 = ["22.85", "23.00 ± 0.82 (+0.15)"], ["6.71", "4.60 ± 0.41 (-2.11)"]
    expected = ["ResNet-50", *top_1, *top_5, "10,000", "600,000 iterations"]
    assert lines_of(markdown, "ResNet-50")[0] == expected


def test_a_shortened_schedule_cannot_pass_for_a_whole_one(tmp_path, report):
    make_run(tmp_path / "runs", "cifar10_resnet20", overrides=["SOLVER.MAX_ITER", 640])
    markdown, page, _ = report("6")
    for text in (markdown, page):
        assert "640 iterations (1 % schedule), not as in the config (below)" in text
        assert "SOLVER.MAX_ITER 640 (config: 64000)" in text
        assert "shortened or changed schedules among them: 1 % schedule" in text


@pytest.mark.parametrize("number", ["2", "3", "4", "6"])
def test_the_page_is_well_formed_and_loads_nothing(tmp_path, report, number):
    for stem in ("cifar10_resnet20", "cifar10_plain20", "cifar10_plain56", "imagenet_plain18", "imagenet_resnet50"):
        make_run(tmp_path / "runs", stem)
    _, page, _ = report(number)
    parser = Checked()
    parser.feed(page)
    parser.close()
    assert parser.open == []
    assert parser.loads == []
    assert not re.search(r"https?://|@import|url\((?!#)", page)
    charts = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    assert charts
    for chart in charts:
        ElementTree.fromstring(chart)
    for data in re.findall(r'<script type="application/json">(.*?)</script>', page, re.DOTALL):
        json.loads(data)


def test_curves_of_plain_and_residual_nets_stand_in_their_panels(tmp_path, report):
    for stem in ("cifar10_resnet20", "cifar10_plain20"):
        make_run(tmp_path / "runs", stem)
    _, page, _ = report("6")
    data = [json.loads(text) for text in re.findall(r'<script type="application/json">(.*?)</script>', page)]
    named = [[line["name"] for line in chart["series"]] for chart in data]
    plain, residual = ["plain-20 training", "plain-20"], ["ResNet-20 training", "ResNet-20"]
    # Fig. 1: training and test of the plain net; Fig. 6: plain, residual; the panel of 110 and 1202 is left out.
    assert named == [["plain-20"], ["plain-20"], plain, residual]
    assert {chart["iterations"] for chart in data} == {64000}
    assert page.count(">error (%)</text>") == len(data)


def test_without_any_run_the_page_says_so(report):
    markdown, page, _ = report("6")
    assert markdown.count("not run") == 10
    assert "not run: plain-20, plain-56" in page
    assert "<polyline" in page and 'class="line' not in page


def test_text_from_records_can_neither_break_the_table_nor_the_page(tmp_path, report):
    folder = make_run(tmp_path / "runs", "cifar10_resnet20")
    record = json.loads((folder / "results.json").read_text())
    record["device"] = "<script>alert(1)</script> | a"
    (folder / "results.json").write_text(json.dumps(record))
    markdown, page, _ = report("6")
    assert "<script>alert" not in page
    assert "\\<script>alert(1)\\</script> \\| a" in markdown


def test_the_interval_is_wilsons(tmp_path, report):
    make_run(tmp_path / "runs", "cifar10_resnet20", error=0.085)
    folder = tmp_path / "runs" / "cifar10_resnet20"
    results = json.loads((folder / "results.json").read_text())
    results["single"]["images"] = 1000
    (folder / "results.json").write_text(json.dumps(results))
    markdown, _, figures = report("6")
    # The errors p from which 0.085 is 1.96 deviations away: (0.085 - p)^2 = 1.96^2 p (1 - p) / 1000.
    z = 1.96**2 / 1000
    low, high = sorted(np.roots([1 + z, -(2 * 0.085 + z), 0.085**2]))
    half = next(row for row in figures["rows"] if row["row"] == "ResNet-20")["half_intervals"]["top-1 error %"]
    assert half == pytest.approx(100 * (high - low) / 2, abs=1e-3)
    assert lines_of(markdown, "ResNet-20")[0][2:4] == [f"8.50 ± {half:.2f} (-0.25)", "1,000"]


def test_resnet_110_is_the_best_of_five_seeds_with_their_mean(tmp_path, report):
    errors = (0.067, 0.0643, 0.068, 0.0655, 0.0662)
    make_run(tmp_path / "runs", "cifar10_resnet110", error=errors[0])
    markdown, _, _ = report("6")
    assert "best of 1 of 5 seeds, mean 6.70 (paper: best of 5; 6.61 ± 0.16)" in lines_of(markdown, "ResNet-110")[0][-1]
    for seed, error in enumerate(errors[1:], 1):
        made = make_run(tmp_path / f"seed{seed}", "cifar10_resnet110", error=error, overrides=["SEED", seed])
        made.rename(tmp_path / "runs" / f"cifar10_resnet110_seed{seed}")
    markdown, page, figures = report("6")
    mean, deviation = 100 * np.mean(errors), 100 * np.std(errors, ddof=1)
    for text in (lines_of(markdown, "ResNet-110")[0][-1], page):
        assert f"best of 5 seeds, mean {mean:.2f} ± {deviation:.2f}" in text
    row = next(row for row in figures["rows"] if row["row"] == "ResNet-110")
    assert row["figures"]["top-1 error %"]["measured"] == 6.43
    assert row["seeds"] == pytest.approx([100 * error for error in errors])


# -- charts


def test_the_drops_of_the_rate_are_marked(tmp_path, report):
    make_run(tmp_path / "runs", "cifar10_resnet20")
    _, page, _ = report("6")
    charts = [ElementTree.fromstring(chart) for chart in re.findall(r"<svg.*?</svg>", page, re.DOTALL)]
    marks = [[float(part.get("x1")) for part in chart.iter("line") if part.get("class") == "drop"] for chart in charts]
    scale = Scale(64000, 0, 1)
    expected = [pytest.approx(scale.x(at), abs=0.1) for at in (32000, 48000)]
    # Fig. 1 and the plain panel of Fig. 6 have no run.
    assert marks == [[], [], [], expected]


@pytest.mark.parametrize("schedule", [Cosine(1000), MultiStep(()), MultiStep((), warm_up=WarmUp(100, 0.1))])
def test_a_rate_that_falls_slowly_has_no_drops(schedule):
    assert drops_of([(at, schedule.multiplier(at)) for at in range(0, 1001, 10)]) == ()


def test_thinning_keeps_means_and_the_last_iteration():
    points = [(at, float(at)) for at in range(1, 1001)]
    thin = thin_out(points, 100)
    assert len(thin) == 100
    assert thin[0] == (10, 5.5)
    assert thin[-1][0] == 1000
    assert thin_out([], 100) == []
    assert thin_out(points[:7], 100) == points[:7]


@pytest.mark.parametrize(("length", "step"), [(25, 5), (100, 20), (6.4, 2), (0.06, 0.01), (60, 10), (1, 0.2)])
def test_ticks_are_round(length, step):
    assert tick_step(length) == pytest.approx(step)


def test_the_scale_shows_the_end_of_the_curves_and_not_chance():
    curve = [(0, 90.0), (32000, 12.0), (64000, 9.0)]
    scale = fit_scale([Series("a", 0, False, curve)], 64000)
    assert (scale.iterations, scale.low) == (64000, 0)
    assert 9 < scale.high <= 20


@pytest.mark.parametrize("curve", [[(1, 0.0)], [(1, 100.0)], [(1, 50.0), (2, 50.0)], [(5, 100.0), (9, 99.5)]])
def test_flat_curves_and_single_points_can_be_drawn(curve):
    scale = fit_scale([Series("a", 0, False, curve)], 0)
    assert scale.low < scale.high
    assert scale.low <= curve[-1][1] <= scale.high
    ElementTree.fromstring(draw("a", [Series("a", 0, False, curve)], scale, axis="loss (%)", number=0, empty=""))


def test_points_are_drawn_where_the_axes_say():
    series = [Series("a", 2, False, [(0, 0.0), (100, 50.0)])]
    svg = ElementTree.fromstring(draw("t", series, Scale(100, 0, 50), axis="AP (%)", number=0, empty=""))
    assert [element.text for element in svg.iter("text") if element.get("class") == "name"] == ["iteration", "AP (%)"]
    line = next(element for element in svg.iter("polyline") if "line" in element.get("class").split())
    axis = next(element for element in svg.iter("polyline") if element.get("class") == "axis")
    (left, top), (_, bottom), (right, _) = ([float(v) for v in p.split(",")] for p in axis.get("points").split())
    first, last = ([float(v) for v in p.split(",")] for p in line.get("points").split())
    assert first == [left, bottom]
    assert last == [right, top]


@pytest.mark.parametrize("iterations", [1, 2, 3, 7, 90, 9999])
def test_ticks_of_iterations_are_whole_numbers(iterations):
    svg = draw("a", [], Scale(iterations, 0.0, 100.0), axis="error", number=0, empty="none")
    below = [
        part
        for part in ElementTree.fromstring(svg).iter("text")
        if part.get("class") == "tick" and part.get("y") == "312"
    ]
    assert below and all(float(part.text) == int(part.text) for part in below)
