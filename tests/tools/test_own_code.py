"""--import on the real commands: hooks that stop a run, and modules that cannot be imported."""

from __future__ import annotations

import json
import sys

import pytest

from backbone.engine import extensions, hooks
from backbone.engine.record import read_metrics

MODULE = """
from backbone.engine.hooks import Hook, register_hook

@register_hook
class Mine(Hook):
    def after_step(self, trainer):
        trainer.log({"mine": trainer.state.iteration})
        trainer.stop("enough for a test")

def extend_config(config):
    config.MINE = 3
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    monkeypatch.setattr(hooks, "_makers", {})
    monkeypatch.setattr(extensions, "_extensions", {})
    (tmp_path / "my_module.py").write_text(MODULE)
    yield "my_module"
    sys.modules.pop("my_module", None)


def test_a_hook_stops_the_command(train, tmp_path, module):
    text = train("--import", module, "MINE", "4", changes={"SOLVER.MAX_ITER": 5}).fine()
    assert "stopped after 1 of 5 iterations: enough for a test" in text
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert (results["iteration"], results["stopped"], results["unit"]) == (1, "enough for a test", "fraction (0 to 1)")
    assert (tmp_path / "run" / "model_final.pth").is_file()
    assert {"iteration": 1, "mine": 1} in read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert "MINE: 4" in (tmp_path / "run" / "config.yaml").read_text()


@pytest.mark.parametrize(
    "command",
    [
        ("train_net.py", "--config", "mini_faster_rcnn_r18.yaml"),
        ("pretrain.py", "--config", "cifar10_resnet20.yaml"),
        ("train_segmentation.py", "--config", "voc_fcn_r50.yaml"),
        ("predict.py", "--weights", "x.pth", "--input", "x.jpg", "--output", "out"),
        ("export_detector.py", "--weights", "x.pth", "--output", "out.onnx"),
    ],
    ids=lambda command: command[0],
)
def test_a_wrong_module_is_one_line(tool, tmp_path, command):
    tool(*command, "--import", "no_such_module").mistake("--import no_such_module: no such module in ")
    assert list(tmp_path.iterdir()) == []
