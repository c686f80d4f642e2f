"""The page of the error analysis: well-formed, alone, the same each time, and alive in a real browser."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from dataclasses import replace
from html.parser import HTMLParser
from xml.etree import ElementTree

import cv2
import numpy as np
import pytest
from browser import NAMES, Browser, find
from hand_made import BESIDE, BOX, FAR, make_case
from planted import plant

from backbone.common.errors import DataError
from detection.analysis import (
    MEANING,
    Analysis,
    Case,
    Kind,
    OwnFigures,
    analyze,
    case_of_coco,
    report,
    with_images,
)
from detection.analysis.gallery import worst_images
from detection.evaluation import load_ground_truth, load_predictions

VOID = {"meta", "br", "link", "img", "input"}


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


@pytest.fixture(scope="module")
def real_text(real) -> str:
    return report(real)


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


def test_page_of_real_images(real, real_text):
    text = real_text
    page = check_alone(text)
    assert page.headings[:2] == ["h1", "h2"]
    assert "h3" in page.headings
    assert len(text) < 10e6
    pictures = [link for link in page.links if link.startswith("data:")]
    figures = re.findall(r'<figure class="shot" data-keys="[^"]*"( hidden)?>', text)
    assert len(pictures) == len(figures) > 24
    # The worst are shown; the others wait until their kind, class or cell is chosen.
    assert figures.count("") == 24
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
    assert 'viewBox="0 0 560 420"' in text
    # BESIDE, to 560 / 1280.
    assert '<rect x="65.6" y="43.8" width="43.8" height="43.8">' in text
    (tmp_path / "3.jpg").unlink()
    assert "where the image file is missing" in report(analyze(with_images(case, tmp_path), score=0.1))


def test_folders_without_the_images_are_refused(small, tmp_path):
    with pytest.raises(DataError, match="holds none of the 6 images, such as 0.jpg"):
        with_images(small, tmp_path)
    with pytest.raises(DataError, match="is no folder"):
        with_images(small, tmp_path / "nowhere")


def figures_of(text: str) -> list[tuple[set[str], bool, str]]:
    """Return keys, whether it is shown at first, and the HTML of each image."""
    found = re.findall(r'<figure class="shot" data-keys="([^"]*)"( hidden)?>(.*?)</figure>', text, re.DOTALL)
    return [(set(keys.split()), not hidden, body) for keys, hidden, body in found]


def test_every_kind_class_and_cell_leads_to_its_images(real, real_text):
    """By an independent count: the keys of an image are those of the errors and events that lie on it."""
    text = real_text
    case, names = real.case, [name for name, _, _ in MEANING.values()]
    wanted: dict[str, set[str]] = defaultdict(set)
    for row in np.flatnonzero(real.shown_false).tolist():
        image = case.image_names[case.detections.image[row]]
        wanted[f"k{names[int(real.errors.kind[row])]}"].add(image)
        wanted[f"c{case.detections.label[row]}"].add(image)
    for row in np.flatnonzero(real.shown_missed).tolist():
        image = case.image_names[case.objects.image[row]]
        wanted["kMiss"].add(image)
        wanted[f"c{case.objects.label[row]}"].add(image)
    for image, row, column in real.confusion.events.tolist():
        wanted[f"m{row}-{column}"].add(case.image_names[image])
    found: dict[str, set[str]] = defaultdict(set)
    for keys, _, body in figures_of(text):
        name = re.search(r"<strong>\d+\. (.*?)</strong>", body)[1]
        for key in keys:
            found[key].add(name)
    assert found.keys() == wanted.keys()
    assert all(found[key] <= wanted[key] for key in wanted)
    assert all(len(found[key]) >= min(len(wanted[key]), {"k": 8, "c": 2, "m": 1}[key[0]]) for key in wanted)
    buttons = dict(re.findall(r'data-find="([^"]*)" title="([^"]*)"', text))
    for key, title in buttons.items():
        assert f"{len(found[key])} of {len(wanted[key])} image" in title
    assert {f"k{name}" for name in names} <= buttons.keys()
    assert {key for key in wanted if key[0] == "c"} <= buttons.keys()
    matrix = text[text.index('<div class="matrix"') :]
    cells = re.findall(r'<td style="[^"]*" title="([\d,]+)"><button[^>]*data-find="(m[^"]*)"', matrix)
    assert len(cells) == len(re.findall("<td style=", matrix)) > 50
    for number, key in cells:
        row, column = map(int, key[1:].split("-"))
        assert int(number) == real.confusion.matrix[row, column]


def test_matrix_has_the_confused_classes_and_classes_without_objects_are_folded(real, real_text):
    text = real_text
    wrong = real.confusion.matrix[:-1, :-1] * (1 - np.eye(80, dtype=np.int64))
    confused = [name for name, one, other in zip(real.case.class_names, wrong.sum(0), wrong.sum(1)) if one or other]
    heads = re.search(r'<div class="matrix".*?<thead>(.*?)</thead>', text, re.DOTALL)[1]
    assert re.findall("<span>(.*?)</span>", heads) == [*confused, "not found"]
    classes = re.search(r'<section aria-labelledby="classes">(.*?)</section>', text, re.DOTALL)[1]
    shown, folded = classes.split("<details>")
    assert shown.count('<th scope="row">') == (real.wanted > 0).sum()
    assert folded.count('<th scope="row">') == (real.wanted == 0).sum() > 0


@pytest.mark.parametrize(
    ("gains", "said"),
    [
        (
            {Kind.MISS: 0.09, Kind.LOC: 0.031, Kind.DUPE: 0.0001},
            "lost to missed objects, 9.0; then to inexact boxes, 3.1.",
        ),
        ({Kind.BKG: 0.5}, "Most AP50 is lost to detections of background, 50.0."),
        ({Kind.CLS: 0.0}, "No kind of error costs"),
    ],
)
def test_first_sentence_says_what_costs_most(small, gains, said):
    analysis = analyze(small)
    analysis = replace(analysis, errors=replace(analysis.errors, gain=gains))
    assert said in analysis.costs


def test_first_sentence_comes_first(small):
    analysis = analyze(small)
    assert f'<h1>Error analysis</h1>\n<p class="first">{analysis.costs}</p>' in report(analysis)


def test_names_on_images(small):
    """Missed objects by name, the object of a wrong class, and no name over another."""
    text = report(analyze(small, score=0.1))
    for words in ("missed: class 1", "Cls: class 0 0.70 (class 1)", "Dupe: class 0 0.80", "Bkg: class 1 0.50"):
        assert f">{words}</text>" in text
    for svg in re.findall(r"<svg viewBox.*?</svg>", text, re.DOTALL):
        drawn = ElementTree.fromstring(svg)
        plates = [group.find("rect").attrib for group in drawn.iter("g") if "caption" in group.get("class")]
        places = [[float(plate[key]) for key in ("x", "y", "width", "height")] for plate in plates]
        for index, (x, y, width, height) in enumerate(places):
            for left, top, wide, high in places[:index]:
                assert x >= left + wide or left >= x + width or y >= top + high or top >= y + height


def test_keypoints_are_drawn(small):
    points = np.tile([[110.0, 120.0, 2.0, 0.0, 0.0, 0.0]], (len(small.objects), 1))
    objects = replace(small.objects, keypoints=points)
    found = replace(small.detections, keypoints=np.tile([[130.0, 140, 0.9, 150, 160, 0.8]], (len(small.detections), 1)))
    text = report(analyze(replace(small, objects=objects, detections=found), score=0.1))
    assert '<circle cx="96.7" cy="105.4" r="2.5"' in text  # (110.5, 120.5) to 560 / 640
    assert text.count("<circle") == len(objects) + 2 * len(found)


def test_own_figures_come_first(small):
    own = OwnFigures("voc07", {"mAP, voc07": 0.1234}, [0.3, float("nan")])
    text = report(analyze(small), own=own)
    assert text.index("<dt>mAP, voc07</dt><dd>12.3</dd>") < text.index("<dt>AP</dt>")
    assert '<th scope="col" class="number"><button type="button">voc07</button></th>' in text


@pytest.fixture(scope="module")
def browser():
    program = find()
    if program is None:
        pytest.skip(f"no browser: none of {', '.join(NAMES)} is installed")
    with Browser(program) as opened:
        yield opened


def test_page_lives_in_a_browser(browser, real, real_text, tmp_path):
    (tmp_path / "report.html").write_text(real_text, encoding="utf-8")
    browser.open((tmp_path / "report.html").as_uri(), width=400)
    assert browser.run("document.documentElement.dataset.ready") == "yes"
    # Narrow: nothing is wider than the page, and what a kind is stands below its row.
    assert browser.run("document.documentElement.scrollWidth <= innerWidth")
    assert browser.run(
        "(([kind, what]) => kind.bottom <= what.top + 1 && what.width > 300)"
        "([...document.querySelector('.kinds tbody tr').cells].map(cell => cell.getBoundingClientRect()))"
    )
    low = [one for theme in ("light", "dark") for one in browser.low_contrast(theme)]
    assert low == []
    browser.open((tmp_path / "report.html").as_uri(), width=1400)
    line = "document.querySelector('[data-curves=pr] .line').getAttribute('points')"
    before, place = browser.run(line), browser.run("document.querySelector('line.best').getAttribute('x1')")
    browser.run(
        "{const choice = document.getElementById('class'); choice.value = 1; "
        "choice.dispatchEvent(new Event('change'));}"
    )
    assert browser.run(line) != before
    assert browser.run("document.querySelector('line.best').getAttribute('x1')") != place
    assert f"{real.class_scores[0]:.2f}" in browser.run("document.querySelector('text.best').textContent")
    browser.run("document.querySelectorAll('table.sortable th button')[1].click()")
    numbers = browser.run(
        "[...document.querySelector('table.sortable tbody').rows].map(row => +row.cells[1].textContent)"
    )
    assert numbers == sorted(numbers, reverse=True)
    browser.run(
        "{const field = document.querySelector('[data-filter]'); field.value = 'BEAR'; "
        "field.dispatchEvent(new Event('input'));}"
    )
    names = "[...document.querySelectorAll('#classes ~ * tbody tr')].filter(row => row.checkVisibility())"
    assert browser.run(f"{names}.map(row => row.cells[0].textContent)") == ["bear", "teddy bear"]
    assert browser.errors == []
    assert all(url.startswith("file:") for url in browser.requests)


def test_images_are_found_and_enlarged_in_a_browser(browser, real, real_text, tmp_path):
    (tmp_path / "report.html").write_text(real_text, encoding="utf-8")
    browser.open((tmp_path / "report.html").as_uri())
    shown = "[...document.querySelectorAll('.shot:not([hidden])')]"
    assert browser.run(f"{shown}.length") == 24
    cell = browser.run("[...document.querySelectorAll('.matrix [data-find]')].at(-1).dataset.find")
    for key in ("kBkg", "c0", cell):
        browser.run(f"document.querySelector('[data-find=\"{key}\"]').click()")
        assert browser.run(f"{shown}.every(shot => shot.dataset.keys.split(' ').includes('{key}'))")
        assert browser.run(f"{shown}.length") > 0
        assert "image" in browser.run("document.querySelector('.chosen span').textContent")
    browser.run("document.querySelector('.chosen button').click()")
    assert browser.run(f"{shown}.length") == 24
    browser.run("document.querySelector('[data-shows=Loc]').click()")
    assert browser.run("document.body.classList.contains('hideLoc')")
    browser.run("document.querySelector('.shot button').click()")
    title = "document.querySelector('dialog strong').textContent"
    assert browser.run("document.querySelectorAll('dialog[open] svg image').length") == 1
    first = browser.run(title)
    browser.key("ArrowRight")
    second = browser.run(title)
    assert (first[:2], second[:2]) == ("1.", "2.")
    for _ in range(2):
        browser.key("ArrowLeft")
    assert browser.run(title)[:3] == "24."
    browser.key("ArrowRight")
    # Errors first: the names of what is found come on request.
    visible = (
        "[...document.querySelectorAll('dialog .caption')].filter(one => getComputedStyle(one).display !== 'none')"
    )
    assert browser.run(f"{visible}.every(one => !one.matches('.kTruth, .kRight, .kIgnored'))")
    errors = browser.run(f"{visible}.length")
    browser.run("document.querySelector('[data-names]').click()")
    assert browser.run(f"{visible}.length") > errors > 0
    browser.key("Escape")
    assert browser.errors == []
