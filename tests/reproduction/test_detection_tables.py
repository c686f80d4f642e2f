"""The rows of Tables 7 to 12 against the paper, and the steps that they are made of."""

from __future__ import annotations

import pytest

from backbone import ConfigError
from detection.data.voc import VOC_CLASSES
from reproduction.classes import PAPER
from reproduction.rows import choose
from reproduction.tables import detection_table

# (row, AP50, AP) in the order of the paper, each column of data after the other.
ROWS = {
    "7": [
        ("VGG-16, 07 test", 73.2, None),
        ("ResNet-101, 07 test", 76.4, None),
        ("VGG-16, 12 test", 70.4, None),
        ("ResNet-101, 12 test", 73.8, None),
    ],
    "8": [("VGG-16", 41.5, 21.2), ("ResNet-101", 48.4, 27.2)],
    "9": [
        ("baseline, val", 48.4, 27.2),
        ("+ box refinement, val", 49.9, 29.9),
        ("+ context, val", 51.1, 30.0),
        ("+ multi-scale testing, val", 53.8, 32.5),
        ("+ context, test-dev", 53.3, 32.2),
        ("+ multi-scale testing, test-dev", 55.7, 34.9),
        ("ensemble, test-dev", 59.0, 37.4),
    ],
    "10": [
        ("baseline VGG-16", 73.2, None),
        ("baseline ResNet-101", 76.4, None),
        ("baseline+++ ResNet-101", 85.6, None),
    ],
    "11": [
        ("baseline VGG-16", 70.4, None),
        ("baseline ResNet-101", 73.8, None),
        ("baseline+++ ResNet-101", 83.8, None),
    ],
    "12": [
        ("single model, val2", 60.5, None),
        ("ensemble, val2", 63.6, None),
        ("single model, test", 58.8, None),
        ("ensemble, test", 62.1, None),
    ],
}


def row(number: str, name: str):
    return next(row for row in detection_table(number).rows if row.name == name)


@pytest.mark.parametrize("number", ROWS)
def test_rows_and_figures_are_the_papers(number):
    found = []
    for one in detection_table(number).rows:
        figures = {figure.path: figure.paper for figure in one.figures}
        found.append((one.name, figures[("bbox", "AP50")], figures.get(("bbox", "AP"))))
    assert found == ROWS[number]


@pytest.mark.parametrize("number", PAPER)
def test_the_papers_classes_average_to_its_map(number):
    for name, mean, _ in ROWS[number]:
        values = PAPER[number][name]
        assert len(values) == len(VOC_CLASSES)
        assert sum(values) / len(values) == pytest.approx(mean, abs=0.0501)


def test_rows_that_differ_in_testing_share_a_training():
    baseline, refined = row("9", "baseline, val"), row("9", "+ box refinement, val")
    assert refined.train == baseline.train == row("8", "ResNet-101").train
    assert refined.test_only and not baseline.test_only
    assert refined.tests[0].weights_of == "coco_paper_r101"
    context, scales = row("9", "+ context, val"), row("9", "+ multi-scale testing, val")
    assert context.train == scales.train != baseline.train
    assert row("7", "VGG-16, 07 test").train == row("10", "baseline VGG-16").train


def test_the_ensemble_is_three_trainings_of_other_seeds_and_one_test():
    ensemble = row("9", "ensemble, test-dev")
    assert len({step.folder for step in ensemble.trainings}) == 3
    assert sorted(step.overrides for step in ensemble.trainings) == [(), ("SEED", "1"), ("SEED", "2")]
    assert len({step.config for step in ensemble.trainings}) == 1
    assert set(ensemble.tests[0].needs) == {step.folder for step in ensemble.trainings}


@pytest.mark.parametrize("number", ["10", "11"])
def test_baseline_plus_starts_from_the_coco_network_of_table_9(number):
    best = row(number, "baseline+++ ResNet-101")
    assert best.before == (row("9", "+ context, test-dev").train,)
    assert best.train.starts_from == best.before[0].folder
    assert (best.before[0].network, best.train.network) == ("resnet101", "")


def test_rows_for_a_server_are_those_without_annotations():
    waiting = {one.name for number in ROWS for one in detection_table(number).rows if one.server}
    assert waiting == {name for name, _, _ in ROWS["11"]} | {
        *("VGG-16, 12 test", "ResNet-101, 12 test"),
        *("+ context, test-dev", "+ multi-scale testing, test-dev", "ensemble, test-dev"),
        *("single model, test", "ensemble, test"),
    }


def test_the_test_set_of_imagenet_is_a_test_of_the_same_training():
    val2, test = row("12", "ensemble, val2"), row("12", "ensemble, test")
    assert val2.trainings == test.trainings and len({step.folder for step in test.trainings}) == 3
    assert test.tests[0].overrides == ("DATASETS.TEST", "('imagenet_det_test',)") and not val2.tests[0].overrides
    assert test.result_folder == "imagenet_det_r101_ensemble_test"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("ResNet-101", ["ResNet-101, 07 test", "ResNet-101, 12 test"]),
        ("resnet-101, 12 test", ["ResNet-101, 12 test"]),
        ("voc_paper_vgg16_07", ["VGG-16, 07 test"]),
    ],
)
def test_a_row_is_found_by_name_with_and_without_its_data(name, expected):
    assert [one.name for one in choose(detection_table("7"), [name])] == expected


def test_an_unknown_row_is_refused_with_the_nearest():
    with pytest.raises(ConfigError, match=r"--rows \+ contxt, val: no such row in Table 9; did you mean '\+ context"):
        choose(detection_table("9"), ["+ contxt, val"])
