"""The rows of Tables 13 and 14 against the paper, their configs, and the steps that they are made of."""

from __future__ import annotations

import pytest

from backbone.engine.config import CONFIG_FOLDER
from backbone.localization import load_config
from reproduction.localization import localization_table
from reproduction.runner import Calls

# He et al., Tables 13 and 14: (row, test, classes, %).
ROWS = {
    "13": [
        ("RPN, 1-crop", "1crop", "truth", 13.3),
        ("RPN, dense", "dense", "truth", 11.7),
        ("RPN, dense, predicted classes", "dense", "predicted", 14.4),
        ("RPN + R-CNN, dense, predicted classes", "dense", "predicted", 10.6),
        ("RPN + R-CNN, ensemble", "dense", "predicted", 8.9),
    ],
    "14": [("ours, val", "dense", "predicted", 8.9), ("ours, test", "dense", "predicted", 9.0)],
}


@pytest.mark.parametrize("number", ROWS)
def test_rows_and_figures_are_the_papers(number):
    found = []
    for row in localization_table(number).rows:
        config = load_config(row.config)
        (figure,) = row.figures
        metric = "true_class_error" if config.TEST.CLASSES == "truth" else "top5_error"
        assert figure.path == ("loc", metric)
        text = " ".join(line[2:] for line in (CONFIG_FOLDER / row.config).read_text().splitlines() if line[0] == "#")
        assert f"Table {number}" in text and f"{figure.paper:g}" in text.replace("9.0", "9")
        found.append((row.name, config.TEST.VIEWS, config.TEST.CLASSES, figure.paper))
    assert found == ROWS[number]


def test_the_system_is_the_papers():
    for row in (*localization_table("13").rows, *localization_table("14").rows):
        config = load_config(row.config)
        assert (config.MODEL.NAME, config.INPUT.TRAIN_SIZE, config.SOLVER.IMS_PER_BATCH) == ("resnet101", 224, 256)
        assert ("rcnn" if "R-CNN" in row.name or "ours" in row.name else "rpn") == config.MODEL.KIND
        assert (config.MODEL.ANCHORS_PER_IMAGE, config.MODEL.PROPOSALS) == (8, 200)


def test_rows_share_trainings_and_take_the_classifier():
    one_crop, dense, predicted, rcnn, ensemble = localization_table("13").rows
    assert one_crop.train == dense.train == predicted.train and not one_crop.test_only and dense.test_only
    assert rcnn.before == (one_crop.train,) and rcnn.train.needs == ("imagenet_loc_rpn_r101",)
    assert len({step.folder for step in ensemble.trainings}) == 6
    assert set(ensemble.tests[0].needs) == {step.folder for step in ensemble.trainings}
    val, test = localization_table("14").rows
    assert val.tests == ensemble.tests and test.trainings == val.trainings
    assert (test.server, test.tests[0].overrides) == ("submission.csv", ("DATA.VAL", "test"))
    train = {step.config: () for step in rcnn.trainings}
    calls = Calls(CONFIG_FOLDER, (), train=train, test=(), weights={"resnet101": "r101.pth"})
    words = calls.command(rcnn, rcnn.train, resume=False)
    assert words[words.index("--weights") + 1] == "r101.pth"
    assert words[words.index("TEST.CLASSIFIERS") + 1] == "('r101.pth',)"
    given = Calls(CONFIG_FOLDER, (), train, ("TEST.CLASSIFIERS", "('own.pth',)"), calls.weights)
    assert given.command(ensemble, ensemble.tests[0], resume=False).count("TEST.CLASSIFIERS") == 1
