"""The rows of Tables 2, 3, 4 and 6 against the figures printed in the paper."""

from __future__ import annotations

import pytest

from backbone import ConfigError
from reproduction.classification import classification_table
from reproduction.rows import choose

# (row, top-1, top-5) in the order of the paper (arXiv 1512.03385).
PAPER = {
    "2": [
        ("plain-18", 27.94, None),
        ("plain-34", 28.54, None),
        ("ResNet-18", 27.88, None),
        ("ResNet-34", 25.03, None),
    ],
    "3": [
        ("VGG-16", 28.07, 9.33),
        ("plain-34", 28.54, 10.02),
        ("ResNet-34 A", 25.03, 7.76),
        ("ResNet-34 B", 24.52, 7.46),
        ("ResNet-34 C", 24.19, 7.40),
        ("ResNet-50", 22.85, 6.71),
        ("ResNet-101", 21.75, 6.05),
        ("ResNet-152", 21.43, 5.71),
    ],
    "4": [
        ("ResNet-34 B", 21.84, 5.71),
        ("ResNet-34 C", 21.53, 5.60),
        ("ResNet-50", 20.74, 5.25),
        ("ResNet-101", 19.87, 4.60),
        ("ResNet-152", 19.38, 4.49),
    ],
    "6": [
        ("ResNet-20", 8.75, None),
        ("ResNet-32", 7.51, None),
        ("ResNet-44", 7.17, None),
        ("ResNet-56", 6.97, None),
        ("ResNet-110", 6.43, None),
        ("ResNet-1202", 7.93, None),
    ],
}
PROTOCOL = {"2": "10crop", "3": "10crop", "4": "dense", "6": "single"}


@pytest.mark.parametrize("number", PAPER)
def test_rows_and_figures_are_the_papers_in_its_order(number):
    cited = [row for row in classification_table(number).rows if not row.paper_only_curve]
    found = []
    for row in cited:
        figures = {figure.name: figure.paper for figure in row.figures}
        found.append((row.name, figures["top-1 error %"], figures.get("top-5 error %")))
    assert found == PAPER[number]
    assert {figure.path[0] for row in cited for figure in row.figures} == {PROTOCOL[number]}


def test_table_6_has_the_plain_nets_as_curves_behind_its_rows():
    table = classification_table("6")
    assert [row.name for row in table.rows[6:]] == ["plain-20", "plain-32", "plain-44", "plain-56"]
    assert all(row.paper_only_curve for row in table.rows[6:])


def test_every_row_in_a_drawing_is_a_row_of_the_table():
    for number in PAPER:
        table = classification_table(number)
        names = {row.name for row in table.rows}
        panels = [panel for panels in table.drawings.values() for panel in panels]
        assert panels
        assert {name for panel in panels for name in panel.rows} <= names


def test_tables_of_one_config_share_its_training():
    ten_crops, dense = (
        next(row for row in classification_table(number).rows if row.name == "ResNet-50") for number in "34"
    )
    assert ten_crops.train == dense.train
    assert ten_crops.tests != dense.tests


@pytest.mark.parametrize("name", ["ResNet-34 A", "resnet-34 a", "imagenet_resnet34_a", "imagenet_resnet34_a.yaml"])
def test_a_row_is_found_by_its_name_and_by_its_config(name):
    assert [row.name for row in choose(classification_table("3"), [name])] == ["ResNet-34 A"]


def test_chosen_rows_stand_in_the_tables_order():
    rows = choose(classification_table("6"), ["plain-20", "ResNet-56", "ResNet-20"])
    assert [row.name for row in rows] == ["ResNet-20", "ResNet-56", "plain-20"]


def test_an_unknown_row_is_refused_with_the_nearest():
    with pytest.raises(ConfigError, match=r"--rows ResNet-57: no such row in Table 6; did you mean 'ResNet-56'"):
        choose(classification_table("6"), ["ResNet-57"])
