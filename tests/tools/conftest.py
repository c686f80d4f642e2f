"""What the tests of the command lines share: a way to call them, own data, and one trained detector."""

from __future__ import annotations

import os
import runpy
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[1]
TOOLS = TESTS.parent / "tools"
for helpers in ("backbone", "backbone/weights", "detection/engine"):
    sys.path.append(str(TESTS / helpers))


@dataclass(frozen=True)
class Done:
    """What a command line did."""

    status: int
    out: str
    err: str

    def mistake(self, *said: str) -> str:
        """Check that it ended as for a user's mistake: status 2, one line, no traceback; return the line."""
        assert self.status == 2, (self.status, self.err[-3000:])
        assert self.err.count("\n") == 1 and self.err.endswith("\n"), self.err
        assert "Traceback" not in self.err + self.out
        for text in said:
            assert text in self.err
        return self.err

    def fine(self, *said: str) -> str:
        """Check that it went well and left standard error empty; return what it printed."""
        assert self.status == 0, self.err[-3000:]
        assert self.err == ""
        for text in said:
            assert text in self.out
        return self.out


Tool = Callable[..., Done]


@pytest.fixture
def tool(capfd: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Tool]:
    """Call a command line as its user does, but in this process, in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DETECTRON2_DATASETS", raising=False)
    path = list(sys.path)

    def call(name: str, *arguments: object) -> Done:
        capfd.readouterr()
        monkeypatch.setattr(sys, "argv", [str(TOOLS / name), *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            runpy.run_path(str(TOOLS / name), run_name="__main__")
        sys.path[:] = path
        return Done(int(caught.value.code or 0), *capfd.readouterr())

    yield call
    from backbone.engine.record import start_logging

    start_logging(None)


@pytest.fixture
def train(tool: Tool, tmp_path: Path) -> Callable[..., Done]:
    """Call tools/train_net.py for the tiny detector with `changes`, into the folder run."""
    from runs import keys
    from train_calls import CONFIG, QUICK

    def call(*arguments: object, config: str = CONFIG, changes: dict | None = None) -> Done:
        base = ("--config", config, "--output-dir", tmp_path / "run", "--device", "cpu")
        return tool("train_net.py", *base, *arguments, *keys({**QUICK, **(changes or {})}))

    return call


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of a tiny Mask R-CNN, trained for two steps on the mini set."""
    import runs

    folder = tmp_path_factory.mktemp("trained") / "run"
    changes = {
        "SOLVER.MAX_ITER": 2,
        "SOLVER.CHECKPOINT_PERIOD": 0,
        "DATALOADER.NUM_WORKERS": 0,
        "MODEL.MASK_ON": True,
        "MODEL.ROI_MASK_HEAD.NAME": "MaskRCNNConvUpsampleHead",
        "MODEL.ROI_MASK_HEAD.CONV_DIM": 8,
        "MODEL.ROI_MASK_HEAD.NUM_CONV": 1,
    }
    runs.train(folder, changes=changes)
    assert (folder / "model_final.pth").is_file(), os.listdir(folder)
    return folder
