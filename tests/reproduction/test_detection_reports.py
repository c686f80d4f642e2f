"""Markdown, page and JSON of detection tables, on made-up runs over the real samples."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest
from planted import plant

import detection
from backbone.engine.config import dump
from detection.data.voc import read_split, split_of_folder
from detection.evaluation import evaluate_coco, evaluate_voc
from reproduction import Request, reproduce
from reproduction.tables import detection_table

VOID = {"meta", "br", "link", "img", "input"}
MADE = {"versions": {"torch": "2.11.0"}, "device": "Some GPU", "date": "2026-01-02T03:04:05+00:00"}


class Checked(HTMLParser):
    """Checks that every tag is closed in order; keeps what a page would load."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loads: list[str] = []

    def handle_starttag(self, tag, attributes):
        self.loads += [value for name, value in attributes if name in ("src", "href", "xlink:href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.loads += [value for name, value in attributes if name in ("src", "href", "xlink:href")]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def make_run(
    runs: Path, stem: str, root: Path, test: str, figures: dict, predictions: list | None, *, trained: bool = True
) -> Path:
    """Write a run folder of configs/<stem>.yaml, of a training or a test."""
    folder = runs / stem
    folder.mkdir(parents=True)
    config = detection.get_config(stem, ["DATASETS.ROOT", str(root), "DATASETS.TEST", (test,)])
    extra = {}
    if trained:
        (folder / "config.yaml").write_text(dump(config), encoding="utf-8")
        extra = {"iteration": config.SOLVER.MAX_ITER}
    (folder / "results.json").write_text(json.dumps({**figures, **extra, **MADE}), encoding="utf-8")
    if predictions is not None:
        (folder / f"predictions_{test}.json").write_text(json.dumps(predictions), encoding="utf-8")
    return folder


@pytest.fixture
def report(tmp_path):
    """Make the report of a table from the runs in `tmp_path`/runs; returns Markdown, page and JSON."""

    def make(number: str) -> tuple[str, str, dict]:
        figures = tmp_path / "figures.json"
        request = Request(detection_table(number), output=tmp_path, report_only=True, json=figures)
        assert reproduce(request, lambda line: None)
        markdown, page = ((tmp_path / f"table{number}{end}").read_text(encoding="utf-8") for end in (".md", ".html"))
        return markdown, page, {row["row"]: row for row in json.loads(figures.read_text())["rows"]}

    return make


def check_page(page: str) -> int:
    """Check that a page is well-formed and loads nothing; return its number of pictures."""
    parser = Checked()
    parser.feed(page)
    parser.close()
    assert parser.open == []
    pictures = [load for load in parser.loads if load.startswith("data:image/jpeg")]
    assert pictures == parser.loads
    assert not re.search(r"https?://|@import|url\((?!#)", page)
    for chart in re.findall(r"<svg.*?</svg>", page, re.DOTALL):
        ElementTree.fromstring(chart)
    return len(pictures)


@pytest.fixture
def voc_run(shared_data, tmp_path):
    """A run of Table 10's ResNet-101 on the samples: all cats are missed, one bird is found twice."""
    truth = read_split(split_of_folder(shared_data / "VOCdevkit" / "VOC2012", "val"), need_images=False)
    records = []
    for image, label, (left, top, right, bottom) in zip(truth.image, truth.labels, truth.boxes.tolist()):
        box = [left - 1, top - 1, right - left + 1, bottom - top + 1]
        record = {"image_id": truth.ids[image], "category_id": int(label) + 1, "bbox": box, "score": 0.9}
        if label != 7:
            records.append(record)
        if label == 2 and not any(one["score"] == 0.5 for one in records):
            records.append({**record, "score": 0.5})
    figures = evaluate_voc(truth, records).to_json()
    folder = make_run(tmp_path / "runs", "voc_paper_r101_07", shared_data, "voc_2012_val", figures, records)
    return folder, figures


def cells(markdown: str, name: str) -> list[str]:
    line = next(line for line in markdown.splitlines() if line.startswith(f"| {name} "))
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_each_class_stands_beside_the_papers(voc_run, report):
    _, figures = voc_run
    markdown, page, rows = report("10")
    mean = 100 * figures["bbox"]["AP50"]
    assert cells(markdown, "baseline ResNet-101")[1:3] == ["76.40", f"{mean:.2f} ({mean - 76.4:+.2f})"]
    assert rows["baseline ResNet-101"]["figures"]["AP50 %"]["measured"] == pytest.approx(mean, abs=1e-3)
    assert cells(markdown, "cat") == ["cat", "86.4", "-", "89.8", "0.0 (-89.8)", "89.6", "-"]
    assert cells(markdown, "aeroplane")[3:5] == ["79.8", "100.0 (+20.2)"]
    assert "error" not in markdown
    assert "0.0 (-89.8)" in page


def test_the_page_has_curves_and_the_best_and_worst_images(voc_run, report):
    _, page, _ = report("10")
    # Two images of the samples have an error.
    assert check_page(page) == 4 + 2
    curves = re.findall(r'aria-label="(voc_2012_val, IoU \.\d+)"', page)
    assert curves == ["voc_2012_val, IoU .5", "voc_2012_val, IoU .75"]
    best, worst = page.index("<h4>best</h4>"), page.index("<h4>worst</h4>")
    assert "no error" in page[best:worst] and "Miss" not in re.sub("<svg.*?</svg>", "", page[best:worst])
    assert re.search(r"\d Miss", page[worst:])
    assert 'class="box kRight"' in page[best:worst]


def test_rows_on_one_set_share_a_chart(shared_data, tmp_path, report):
    gt = shared_data / "coco" / "annotations" / "instances_val2017.json"
    records = plant(json.loads(gt.read_text(encoding="utf-8")), 1)[0]
    figures = {"bbox": evaluate_coco(gt, records).to_json()["bbox"]}
    for stem, trained in (("coco_paper_r101", True), ("coco_paper_r101_refinement", False)):
        make_run(tmp_path / "runs", stem, shared_data, "coco_2017_val", figures, records, trained=trained)
    markdown, page, rows = report("9")
    assert check_page(page) == 16
    chart = re.search(r'<svg[^>]*aria-label="coco_2017_val, IoU \.5".*?</svg>', page, re.DOTALL)[0]
    assert len(re.findall('class="line c', chart)) == 2
    for name in ("baseline, val", "+ box refinement, val"):
        assert rows[name]["state"] == "done"
        assert rows[name]["figures"]["AP %"]["measured"] == pytest.approx(100 * figures["bbox"]["AP"], abs=1e-3)
    assert f"coco_paper_r101_refinement, weights of {tmp_path}" in markdown
    assert "DATASETS.TEST ['coco_2017_val'] (config: ['coco_2014_val'])" in markdown
    assert "none: random" in markdown


def test_a_training_does_not_lend_its_figures_to_a_test(voc_run, shared_data, tmp_path, report):
    make_run(
        tmp_path / "runs", "coco_paper_r101", shared_data, "coco_2017_val", {"bbox": {"AP": 0.3, "AP50": 0.5}}, None
    )
    markdown, _, rows = report("9")
    assert rows["baseline, val"]["figures"]["AP %"]["measured"] == 30
    assert rows["+ box refinement, val"]["state"] == "untested"
    assert rows["+ box refinement, val"]["figures"]["AP %"]["measured"] is None


def test_what_a_test_had_otherwise_than_its_config_is_said(shared_data, tmp_path, report):
    figures = {"bbox": {"AP": 0.3, "AP50": 0.5}}
    make_run(tmp_path / "runs", "coco_paper_r101", shared_data, "coco_2014_val", figures, None)
    stem = "coco_paper_r101_refinement"
    test = make_run(tmp_path / "runs", stem, shared_data, "coco_2014_val", figures, None, trained=False)
    results = json.loads((test / "results.json").read_text())
    # The config of the training has no voting either: against that, nothing would differ.
    command = "train_net.py --config a.yaml --eval-only --device cpu SOLVER.MAX_ITER 3 TEST.BOX_VOTING.ENABLED False"
    (test / "results.json").write_text(json.dumps({**results, "command": command}))
    _, _, rows = report("9")
    assert rows["+ box refinement, val"]["changes"] == ["TEST.BOX_VOTING.ENABLED False (config: True)"]
    assert rows["baseline, val"]["changes"] == []


def test_a_shortened_schedule_cannot_pass_for_a_whole_one(voc_run, report):
    folder, _ = voc_run
    path = folder / "config.yaml"
    path.write_text(path.read_text().replace("MAX_ITER: 80000", "MAX_ITER: 800"))
    for text in report("10")[:2]:
        assert "80,000 iterations (1 % schedule), not as in the config (below)" in text


def test_data_that_has_gone_leaves_the_figures_and_a_note(voc_run, report):
    folder, _ = voc_run
    path = folder / "config.yaml"
    path.write_text(re.sub("ROOT: .*", "ROOT: /nowhere/at/all", path.read_text()))
    markdown, page, rows = report("10")
    assert rows["baseline ResNet-101"]["state"] == "done"
    assert "baseline ResNet-101: no curves: voc_2012_val: " in page
    assert check_page(page) == 0


def test_without_any_run_the_page_says_so(report):
    _, page, _ = report("7")
    assert "No row has detections with figures yet." in page
    assert check_page(page) == 0
