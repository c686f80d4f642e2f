"""Hooks are called at their places, may stop a run, and go on with it when it is resumed; modules of --import."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from backbone.classification.config import default_config, load_config
from backbone.common.errors import ConfigError
from backbone.engine import checkpoint, curves, extensions, hooks
from backbone.engine.arguments import overrides_of
from backbone.engine.curves import CurvesPage
from backbone.engine.early_stopping import EarlyStopping
from backbone.engine.hooks import Hook, register_hook, registered_hooks
from backbone.engine.record import read_metrics
from backbone.engine.schedule import MultiStep
from backbone.engine.state import Settings, State
from backbone.engine.task import Task
from backbone.engine.trainer import Trainer
from backbone.localization import default_config as localization
from backbone.segmentation.config import default_config as segmentation

STEPS = 6


class Line(Task):
    """One weight that grows by 0.1 a step; its value is the metric."""

    def __init__(self) -> None:
        self.model = nn.Linear(1, 1, bias=False)
        nn.init.zeros_(self.model.weight)
        self.ended = 0

    def batches(self, start: int, end: int) -> Iterator[int]:
        yield from range(start, end)

    def losses(self, model: nn.Module, batch: int, iteration: int) -> dict[str, Tensor]:
        return {"loss": -model(torch.ones(1)).sum()}

    def evaluate(self, *, final: bool = True) -> dict[str, dict[str, float]]:
        return {"set": {"value": self.model.weight.item(), "final": int(final)}}

    def finish(self) -> None:
        self.ended += 1


class Diary(Hook):
    """Writes down where it was called, and stops at a place after as many steps."""

    def __init__(self, stop_at: tuple[str, int] | None = None) -> None:
        self.lines: list[str] = []
        self.stop_at = stop_at
        self.seen = 0

    def __getattribute__(self, name: str) -> object:
        if name in vars(Hook) and name.startswith(("before_", "after_")):
            return lambda trainer: self.write(name, trainer)
        return super().__getattribute__(name)

    def write(self, place: str, trainer: Trainer) -> None:
        self.lines.append(f"{place} {trainer.state.iteration}")
        self.seen += place == "after_step"
        if (place, trainer.state.iteration) == self.stop_at:
            trainer.stop("far enough")
        if place == "after_step":
            trainer.log({"own/loss": trainer.losses["loss"].item()})

    def state_dict(self) -> dict:
        return {"seen": self.seen}

    def load_state_dict(self, state: dict) -> None:
        self.seen = state["seen"]


def train(folder, *own: Hook, resume: bool = False, **changes) -> tuple[State, Line]:
    task = Line()
    given = {"max_iter": STEPS, "batch_size": 1, "log_period": 3, "eval_period": 3, "loggers": (), "best": "set/value"}
    settings = Settings(folder, torch.device("cpu"), **{**given, **changes})
    trainer = Trainer(task, torch.optim.SGD(task.model.parameters(), lr=0.1), MultiStep(()), settings, own)
    if resume:
        trainer.resume(checkpoint.newest(folder))
    return trainer.train(), task


def test_every_place_is_called_in_order(tmp_path):
    diary = Diary()
    state, _ = train(tmp_path, diary)
    expected = ["before_run 0"]
    for step in range(STEPS):
        expected += [f"before_step {step}", f"after_step {step + 1}"]
        if step + 1 in (3, 6):
            expected += [f"before_evaluation {step + 1}", f"after_evaluation {step + 1}"]
    assert diary.lines == [*expected, f"after_run {STEPS}"]
    assert state.finished and not state.stopped
    own = [line for line in read_metrics(tmp_path / "metrics.jsonl") if "own/loss" in line]
    assert [line["iteration"] for line in own] == list(range(1, STEPS + 1))
    assert own[1]["own/loss"] == pytest.approx(-0.1)


@pytest.mark.parametrize(
    ("place", "at", "last"),
    [
        ("after_step", 2, 2),
        ("before_step", 3, 4),
        ("after_evaluation", 3, 4),
        ("before_run", 0, 1),
        ("after_step", 6, 6),
    ],
)
def test_a_hook_stops_the_run(tmp_path, place, at, last):
    """It ends as a run of so many steps does: finished, evaluated for the last time, saved."""
    state, task = train(tmp_path, Diary((place, at)))
    assert (state.iteration, state.stopped, task.ended) == (last, "far enough", 1)
    assert state.results == {"set": {"value": pytest.approx(0.1 * last), "final": 1}}
    final = checkpoint.load(tmp_path / checkpoint.FINAL)
    assert final["iteration"] == last
    assert checkpoint.newest(tmp_path).name == f"model_{last:07d}.pth"
    # Resumed, it has ended; with more steps it goes on to them, and ends as one that was never stopped.
    again, task = train(tmp_path, Diary(), resume=True)
    assert (again.iteration, task.ended, again.results["set"]["final"]) == (last, 0, 1)
    longer, task = train(tmp_path, Diary(), resume=True, max_iter=9)
    assert (longer.iteration, longer.stopped) == (9, "")
    assert task.model.weight.item() == pytest.approx(0.9)


def test_a_hook_goes_on_with_its_run(tmp_path):
    train(tmp_path, Diary(), max_iter=3)
    diary, other = Diary(), Hook()
    train(tmp_path, other, diary, resume=True)
    assert diary.seen == STEPS
    assert diary.lines[0] == "before_run 3"


def test_after_run_is_called_however_a_run_ends(tmp_path):
    class Fails(Hook):
        def after_step(self, trainer: Trainer) -> None:
            raise KeyError("mine")

    diary = Diary()
    with pytest.raises(KeyError, match="mine"):
        train(tmp_path, diary, Fails())
    assert diary.lines[-1] == "after_run 1"


def test_the_page_of_curves_is_written_on_the_way_and_where_a_run_breaks_off(tmp_path, monkeypatch):
    """The last one is written when the run has its results."""
    pages: list[int] = []
    monkeypatch.setattr(
        curves, "write_curves", lambda folder: pages.append(len(read_metrics(folder / "metrics.jsonl")))
    )
    train(tmp_path / "whole", CurvesPage(), log_period=9, eval_period=2)
    assert pages == [1, 2]

    class Fails(Hook):
        def after_step(self, trainer: Trainer) -> None:
            if trainer.state.iteration == 3:
                raise KeyError

    with pytest.raises(KeyError):
        train(tmp_path / "broken", CurvesPage(), Fails(), log_period=1, eval_period=2)
    assert pages[2:] == [3, 3]


VALUES = (0, 3, 1, 2, 2, 3, 4, 1, 0, 5)  # of the metric, by iteration


@pytest.mark.parametrize("first", [None, 2])
@pytest.mark.parametrize(("patience", "last"), [(2, 4), (3, 5), (4, 6), (5, 9)])
@pytest.mark.parametrize("best", ["set/value", "set/total_loss"])
def test_patience_ends_a_run_that_gets_no_better(tmp_path, monkeypatch, patience, last, first, best):
    """Evaluated after each step; a step more is taken. A run that was interrupted counts on. A loss is to fall."""

    def evaluate(task, final):
        value = VALUES[round(10 * task.model.weight.item())]
        return {"set": {"value": value, "total_loss": 9 - value}}

    monkeypatch.setattr(Line, "evaluate", evaluate)
    if first:
        train(tmp_path, EarlyStopping(patience), eval_period=1, max_iter=first, best=best)
    state, _ = train(tmp_path, EarlyStopping(patience), eval_period=1, max_iter=9, resume=bool(first), best=best)
    assert (state.iteration, bool(state.stopped)) == (last, last < 9)
    if last < 9:
        assert f"of {best} in {patience} evaluations, the best was at iteration 1 " in state.stopped


# -- modules of one's own


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Write my_module.py into the working directory; what it registers is forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(hooks, "_makers", {})
    monkeypatch.setattr(extensions, "_extensions", {})

    def write(text: str, name: str = "my_module") -> str:
        monkeypatch.delitem(sys.modules, name, raising=False)
        (tmp_path / f"{name}.py").write_text(text)
        return name

    yield write
    sys.modules.pop("my_module", None)


OWN = """
from backbone.engine.early_stopping import EarlyStopping
from backbone.engine.hooks import Hook, register_hook

@register_hook
class Mine(Hook):
    pass

def extend_config(config):
    config.MINE = type(config)({"RATE": 0.5})
"""


def test_a_module_registers_hooks_and_keys(module):
    name = module(OWN)
    arguments = Namespace(imports=[name], overrides=["MINE.RATE", "0.25"])
    for flag in ("data_root", "weights", "part", "seed", "device", "num_gpus", "output_dir"):
        setattr(arguments, flag, None)
    arguments.config, arguments.eval_only = "cifar10_resnet20.yaml", False
    overrides = overrides_of(arguments, root_key="DATA.ROOT")
    assert [type(hook).__name__ for hook in registered_hooks()] == ["Mine"]
    assert load_config("cifar10_resnet20.yaml", overrides).MINE.RATE == 0.25
    assert [task().MINE.RATE for task in (localization, segmentation)] == [0.5, 0.5]
    with pytest.raises(ConfigError, match=r"unknown key MINE\.RAT; did you mean 'MINE\.RATE'"):
        load_config("cifar10_resnet20.yaml", ["MINE.RAT", 1.0])
    # Registered a second time, it is there once.
    register_hook(type(registered_hooks()[0]))
    extensions.import_modules([name, name])
    assert len(registered_hooks()) == 1


@pytest.mark.parametrize(
    ("text", "name", "said"),
    [
        (None, "no_such_module", "no such module in "),
        ("", "my_module.part", "no such module in "),
        ("import not_installed_thing", "my_module", "my_module.py, line 1: ModuleNotFoundError: No module named 'not_"),
        ("x = 1\nraise ValueError('own words')", "my_module", "my_module.py, line 2: ValueError: own words"),
        ("def f(:\n", "my_module", "my_module.py, line 1: "),
        ("import sys; sys.exit(3)", "my_module", "SystemExit: 3"),
        ("", "my_module.py", "write a module, as in `import`: my_module"),
        ("", "./code/my_module.py", "as in `import`: code.my_module"),
    ],
)
def test_a_module_that_cannot_be_imported(module, text, name, said):
    if text is not None:
        module(text)
    with pytest.raises(ConfigError, match="^--import ") as caught:
        extensions.import_modules([name])
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_an_extension_that_fails_is_named(module):
    extensions.import_modules([module("def extend_config(config):\n    config.NO.SUCH = 1\n")])
    with pytest.raises(ConfigError, match="my_module.extend_config: AttributeError"):
        default_config()
