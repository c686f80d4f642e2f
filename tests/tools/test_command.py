"""tools/command.py, which is `resnet-detection`: its list, its subcommands, and how commands are named in messages."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from backbone.common import commands
from backbone.common.cli import run
from backbone.common.commands import COMMANDS, EXTRAS, as_typed, command_line
from backbone.common.errors import DataError

ROOT = Path(__file__).resolve().parents[2]
CHECKOUT_ONLY = {"benchmark", "install_mmdetection", "make_env", "command", "__init__"}


def test_every_tool_is_a_subcommand(tool):
    listed = {line.split()[0] for line in tool("command.py", "--help").fine().splitlines() if line.startswith("  ")}
    assert listed == set(COMMANDS)
    tools = {path.stem for path in (ROOT / "tools").glob("*.py")} - CHECKOUT_ONLY
    assert {command.module for command in COMMANDS.values()} == tools


def test_mistakes(tool):
    tool("command.py").mistake("resnet-detection: error: give a command (--help lists them)")
    tool("command.py", "trian").mistake("resnet-detection: error: unknown command 'trian'; did you mean 'train'?")
    tool("command.py", "train", "--confg", "a").mistake("resnet-detection train: error:")


def test_help_names_the_command_that_was_typed(tool):
    for name in ("train", "check-data", "install-detectron2"):
        text = tool("command.py", name, "--help").fine(f"usage: resnet-detection {name} ")
        assert "tools/" not in text


def test_messages_name_the_command_that_was_typed(tool, monkeypatch):
    text = "run `python tools/install_detectron2.py --force`, tools/check_data.py or tools/benchmark.py"
    assert as_typed(text) == text
    monkeypatch.setattr(sys, "argv", ["/env/bin/resnet-detection train"])
    typed = "run `resnet-detection install-detectron2 --force`, resnet-detection check-data or tools/benchmark.py"
    assert as_typed(text) == str(DataError(text)) == typed
    tool("command.py", "predict", "--weights", "no.pth", "--input", "a", "--output", "b").mistake("no.pth")


@pytest.mark.parametrize("installed", [False, True])
def test_a_tool_in_a_process_of_its_own(installed, monkeypatch):
    monkeypatch.setattr(commands, "INSTALLED", installed)
    _, file, *rest = command_line("train_net.py")
    assert (Path(file).name, rest) == (("command.py", ["train"]) if installed else ("train_net.py", []))


@pytest.mark.parametrize(("module", "said"), [("cv2", "[detection]'`"), ("onnx.helper", "[export]'`"), ("cv", None)])
def test_a_package_that_is_missing_is_one_line(module, said, capsys):
    def main() -> None:
        raise ModuleNotFoundError(f"No module named {module!r}", name=module)

    with pytest.raises(SystemExit if said else ModuleNotFoundError) as caught:
        run(main)
    if said:
        assert caught.value.code == 2
        assert f"is not installed; run `pip install 'resnet-detection{said}\n" in capsys.readouterr().err


def test_the_extras_are_those_of_setup_py():
    setup = (ROOT / "setup.py").read_text(encoding="utf-8")
    distributions = {"cv2": "opencv-python-headless", "yaml": "PyYAML"}
    for modules in EXTRAS.values():
        assert all(f'"{distributions.get(module, module)}>=' in setup for module in modules)
