"""The page of the error analysis: well-formed, alone, the same each time, and alive in a real browser."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from xml.etree import ElementTree

import cv2
import numpy as np
import pytest
from hand_made import BESIDE, BOX, FAR, make_case
from planted import plant

from backbone.common.errors import DataError
from detection.analysis import Analysis, Case, analyze, case_of_coco, report, with_images, write_report
from detection.analysis.gallery import worst_images
from detection.evaluation import load_ground_truth, load_predictions

VOID = {"meta", "br", "link", "img", "input"}
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")


class Page(HTMLParser):
    """Checks that every tag is closed in order and every id is unique; keeps what the page would load."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.headings: list[str] = []
        self.words: list[str] = []
        self.feed(text)
        assert not self.open
        assert len(self.ids) == len(set(self.ids))

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self.links += [values[key] for key in ("src", "href", "xlink:href", "action", "srcset") if key in values]
        self.ids += [values["id"]] if "id" in values else []
        if tag in ("h1", "h2", "h3"):
            self.headings.append(tag)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


@pytest.fixture
def small() -> Case:
    """One error of each kind."""
    objects = [(0, 0, BOX), (1, 1, BOX), (2, 0, BOX), (3, 0, BOX), (4, 1, BOX), (0, 1, FAR, "difficult")]
    detections = [
        *((0, 0, BOX, 0.9), (0, 0, BOX, 0.8), (1, 0, BOX, 0.7), (2, 0, BESIDE, 0.7), (3, 1, BESIDE, 0.6)),
        (5, 1, BOX, 0.5),
    ]
    return make_case(objects, detections, images=6)


@pytest.fixture(scope="module")
def real(shared_data) -> Analysis:
    """Predictions with planted errors on the COCO samples, with their images."""
    folder = shared_data / "coco"
    truth = json.loads((folder / "annotations" / "instances_val2017.json").read_text(encoding="utf-8"))
    ground_truth = load_ground_truth(truth)
    found = load_predictions(plant(truth, 1)[0], ground_truth)
    return analyze(with_images(case_of_coco(ground_truth, found, truth), folder / "val2017"))


def check_alone(text: str) -> Page:
    page = Page(text)
    assert all(link.startswith(("#", "data:image/jpeg;base64,")) for link in page.links)
    assert {link[1:] for link in page.links if link.startswith("#")} <= set(page.ids)
    # Beside the images, whose letters may spell anything.
    rest = re.sub(r"base64,[A-Za-z0-9+/=]+", "", text)
    assert not re.search(r"https?:|//[a-z]|@import|url\(", rest)
    for svg in re.findall(r"<svg.*?</svg>", text, re.DOTALL):
        ElementTree.fromstring(svg)
    return page


def test_page_of_real_images(real):
    text = report(real)
    page = check_alone(text)
    assert page.headings[:2] == ["h1", "h2"]
    assert "h3" in page.headings
    assert len(text) < 10e6
    pictures = [link for link in page.links if link.startswith("data:")]
    assert len(pictures) == 24
    assert len(re.findall(r'<figure class="shot">', text)) == 24
    assert text == report(real)


def test_page_shows_every_kind_and_figure(small):
    analysis = analyze(small, score=0.1)
    words = " ".join(check_alone(report(analysis, title="<b> & more")).words)
    assert "<b> & more" in words
    for name, number in (("Cls", 1), ("Loc", 1), ("Both", 1), ("Dupe", 1), ("Bkg", 1)):
        assert f"{number} {name}" in words
    assert analysis.to_json()["kinds"]["Miss"]["count"] == 2
    assert "Boxes alone" in words


def test_class_names_cannot_break_the_page(small):
    names = ['</script><script>alert("1")</script>', "a & b"]
    text = report(analyze(replace(small, class_names=names), score=0.1))
    check_alone(text)
    assert "<script>alert" not in text


@pytest.mark.parametrize(
    ("objects", "detections"), [([], []), ([(0, 0, BOX)], []), ([], [(0, 0, BOX, 0.9)]), ([(0, 0, BOX)] * 2, [])]
)
def test_page_of_little(objects, detections):
    check_alone(report(analyze(make_case(objects, detections))))


def test_page_of_an_image_of_unknown_size(small):
    case = replace(small, image_sizes=[None] * 6)
    assert 'viewBox="0 0 250 200"' in report(analyze(case, score=0.1))


def test_scores_beyond_one(small):
    case = replace(small, detections=replace(small.detections, scores=small.detections.scores * 20 - 8))
    text = report(analyze(case))
    assert "Calibration" not in "".join(check_alone(text).words)


def test_worst_images_come_first(small):
    analysis = analyze(small, score=0.55)
    worst = worst_images(analysis)
    # Image 3: a false detection of 0.6 and a missed object; 4: a missed object; 0: a duplicate of 0.8.
    assert [one.image for one in worst] == [3, 4, 0, 1, 2]
    assert [one.weight for one in worst] == pytest.approx([1.6, 1.0, 0.8, 0.7, 0.7])
    assert [one.image for one in worst_images(analysis, 2)] == [3, 4]


def test_images_are_embedded_with_boxes_to_their_scale(small, tmp_path):
    for index in range(6):
        cv2.imwrite(str(tmp_path / f"{index}.jpg"), np.full((960, 1280, 3), 30 * index, dtype=np.uint8))
    case = replace(small, image_sizes=[(960, 1280)] * 6)
    text = report(analyze(with_images(case, tmp_path), score=0.1))
    assert 'viewBox="0 0 640 480"' in text
    # BESIDE, halved.
    assert '<rect x="75.0" y="50.0" width="50.0" height="50.0">' in text
    (tmp_path / "3.jpg").unlink()
    assert "where the image file is missing" in report(analyze(with_images(case, tmp_path), score=0.1))


def test_folders_without_the_images_are_refused(small, tmp_path):
    with pytest.raises(DataError, match="holds none of the 6 images, such as 0.jpg"):
        with_images(small, tmp_path)
    with pytest.raises(DataError, match="is no folder"):
        with_images(small, tmp_path / "nowhere")


PROBE = """<script>
{
const choice = document.getElementById("class"), line = document.querySelector("[data-curves=pr] .line");
const before = line.getAttribute("points");
choice.value = "1";
choice.dispatchEvent(new Event("change"));
const heads = document.querySelectorAll("table.sortable th button");
const body = document.querySelector("table.sortable tbody");
heads[1].click();
const numbers = [...body.rows].map(row => Number(row.cells[1].textContent));
document.querySelector("[data-shows=Loc]").click();
document.querySelector(".shot button").click();
document.body.dataset.probe = [document.documentElement.dataset.ready, choice.options.length,
  before !== line.getAttribute("points"), numbers.every((number, row) => row === 0 || numbers[row - 1] >= number),
  document.body.classList.contains("hideLoc"), document.querySelector("dialog").open,
  document.querySelectorAll("dialog svg image").length].join(" ");
}
</script></body>"""


def test_page_lives_in_a_browser(real, tmp_path):
    browser = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if browser is None:
        pytest.skip(f"no browser: none of {', '.join(BROWSERS)} is installed")
    page = tmp_path / "report.html"
    write_report(page, real)
    page.write_text(page.read_text(encoding="utf-8").replace("</body>", PROBE), encoding="utf-8")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--dump-dom"]
    command = [browser, *flags, f"--user-data-dir={tmp_path / 'profile'}", page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    probe = re.search(r'data-probe="([^"]*)"', done.stdout)
    assert probe, done.stderr[-2000:]
    assert probe[1] == "yes 81 true true true true 1"
