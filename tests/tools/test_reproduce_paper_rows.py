"""Every row of Tables 7 to 12 by its real command on the samples, to its report: a few here, all when slow."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from paper_data import write_paper_root

# The networks, heads and methods are the rows'; images, regions and schedules are small.
SMALL = {
    "INPUT.MIN_SIZE_TRAIN": "(64,)",
    "INPUT.MIN_SIZE_TEST": 64,
    "TEST.MULTI_SCALE.SIDES": "(64,96,128)",
    "SOLVER.IMS_PER_BATCH": 1,
    "SOLVER.AUTO_SCALE": False,
    "SOLVER.CHECKPOINT_PERIOD": 0,
    "MODEL.BACKBONE.CALIBRATION_IMAGES": 1,
    "MODEL.RPN.POST_NMS_TOPK_TRAIN": 10,
    "MODEL.RPN.POST_NMS_TOPK_TEST": 4,
    "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE": 4,
    # A network that has learned nothing is sure of nothing.
    "MODEL.ROI_HEADS.SCORE_THRESH_TEST": 0.0,
    "TEST.DETECTIONS_PER_IMAGE": 10,
    "TEST.EVAL_PERIOD": 0,
    "TEST.PICTURES": 0,
    "DATALOADER.NUM_WORKERS": 0,
}
IMAGES = 2
# 80,000 iterations on VOC become 1, 320,000 on COCO 3.
SCALE = "0.00001"
ROWS = {"7": 4, "8": 2, "9": 7, "10": 3, "11": 3, "12": 4}


@pytest.fixture
def reproduce(tool, shared_data, tmp_path, monkeypatch):
    """Call tools/reproduce.py on a root with a few images of each set; return its rows by name."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")

    def call(table: str, *rows: str) -> dict[str, dict]:
        root = tmp_path / "data"
        if not root.exists():
            write_paper_root(shared_data, root, images=IMAGES)
        chosen = [part for row in rows for part in ("--rows", row)]
        flags = ("--data-root", root, "--device", "cpu", "--scale", SCALE, "--output-dir", "out")
        pairs = [part for pair in SMALL.items() for part in pair]
        tool("reproduce.py", "--table", table, *chosen, *flags, "--json", "rows.json", *pairs).fine("report ")
        check_report(tmp_path / "out" / f"table{table}", table)
        return {row["row"]: row for row in json.loads((tmp_path / "rows.json").read_text())["rows"]}

    yield call
    # A VGG-16 with its momentum takes a gigabyte, and pytest keeps the folders of several sessions.
    for path in tmp_path.rglob("*.pth"):
        path.unlink()


def check_report(base: Path, table: str) -> None:
    text, page = (base.with_suffix(suffix).read_text(encoding="utf-8") for suffix in (".md", ".html"))
    for report in (text, page):
        assert f"Table {table} of the paper" in report
        # The share that a shortened schedule is of the config's stands beside its row, keys that differ below.
        assert re.search(r"0\.00\d+ % schedule", report)
        assert "INPUT.MIN_SIZE_TEST 64 (config: 600)" in report
    assert "://" not in re.sub(r"http://www.w3.org/\S+", "", page)


def check_row(row: dict, runs: Path) -> None:
    """A row on a set with annotations has each of its figures; another the file for its evaluation server."""
    measured = [figure["measured"] for figure in row["figures"].values()]
    assert row["failure"] is None and row["iteration"] == row["iterations"] and row["images"] == IMAGES
    folder = runs / (Path(row["config"]).stem + ("_test" if row["row"].endswith(", test") else ""))
    if row["state"] == "done":
        results = json.loads((folder / "results.json").read_text())["bbox"]
        expected = [100 * results[name.removesuffix(" %")] for name in row["figures"]]
        assert measured == pytest.approx(expected, abs=1e-3)
    else:
        assert row["state"] == "for the evaluation server" and set(measured) == {None}
        names = ("results/VOC2012/Main/comp4_det_test_*.txt", "detections_test-dev2015_*", "detections_imagenet_*")
        files = [file for name in names for file in folder.glob(name)]
        assert len(files) in (1, 20) and any(file.stat().st_size > 2 for file in files)


@pytest.mark.slow
def test_vgg16_on_voc(reproduce, tmp_path):
    row = reproduce("7", "VGG-16, 07 test")["VGG-16, 07 test"]
    check_row(row, tmp_path / "out" / "runs")
    assert row["state"] == "done"
    assert "vgg16, VGGROIHeads, no normalisation" in (tmp_path / row["folder"] / "log.txt").read_text()
    page = (tmp_path / "out" / "table7.html").read_text(encoding="utf-8")
    assert "voc_2007_test, IoU .5" in page and page.count("data:image/jpeg") >= 2


@pytest.mark.slow
def test_box_refinement_on_coco(reproduce, tmp_path):
    rows = reproduce("9", "+ box refinement")
    row, baseline = rows["+ box refinement, val"], rows["baseline, val"]
    check_row(row, tmp_path / "out" / "runs")
    assert row["state"] == "done"
    # The training is the baseline's, which has its own figures from it.
    assert row["folder"] == baseline["folder"] and baseline["state"] == "done"


@pytest.mark.slow
def test_every_row(reproduce, tmp_path):
    runs = tmp_path / "out" / "runs"
    for table, number in ROWS.items():
        rows = reproduce(table)
        assert len(rows) == number
        for row in rows.values():
            check_row(row, runs)
        assert {row["state"] for row in rows.values()} <= {"done", "for the evaluation server"}
    # Each training was made once, for all the tables that need it.
    assert len(list(runs.glob("*/config.yaml"))) == 15
