"""tools/make_env.py: which folder becomes an environment, and what is left as it is. Nothing is installed here."""

from __future__ import annotations

import importlib.metadata
import runpy
import subprocess
import sys
import types
from pathlib import Path

import pytest

TOOL = Path(__file__).resolve().parents[2] / "tools" / "make_env.py"


@pytest.fixture
def maker(monkeypatch) -> types.SimpleNamespace:
    """The tool's functions; what it would run is noted in `commands`, and succeeds."""
    names = runpy.run_path(str(TOOL), run_name="make_env")
    commands: list[list[str]] = []
    inner = names["main"].__globals__
    inner["run"] = lambda *command: commands.append([str(part) for part in command])

    def main(*arguments: object) -> int:
        monkeypatch.setattr(sys, "argv", [str(TOOL), *map(str, arguments)])
        return names["main"]()

    return types.SimpleNamespace(**{**names, "main": main, "commands": commands, "inner": inner})


def environment(folder: Path, script: str = 'exec "{python}" "$@"', *, ours: bool = False) -> Path:
    """A folder that looks like an environment; its interpreter is a shell script, by default one that calls ours."""
    (folder / "bin").mkdir(parents=True)
    python = folder / "bin" / "python"
    python.write_text("#!/bin/sh\n" + script.replace("{python}", sys.executable) + "\n")
    python.chmod(0o755)
    if ours:
        (folder / ".made-by-make-env").touch()
    return folder


def mistake(capsys: pytest.CaptureFixture, *said: str) -> None:
    out, err = capsys.readouterr()
    assert err.startswith("make_env.py: error: ") and err.count("\n") == 1
    for text in said:
        assert text in err


# -- making one


def test_a_folder_that_holds_something_else_is_refused(maker, tmp_path, capsys):
    (tmp_path / "thesis.tex").write_text("years of work")
    assert maker.main(tmp_path) == 2
    mistake(capsys, str(tmp_path), "holds no environment", "VENV=")
    assert maker.main(tmp_path / "thesis.tex") == 2
    mistake(capsys, "thesis.tex", "holds no environment")
    assert maker.commands == []
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_an_old_python_is_refused(maker, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys, "version_info", (3, 9, 7, "final", 0))
    assert maker.main(tmp_path / "env") == 2
    mistake(capsys, "Python 3.10 or newer is needed", "PYTHON=")
    assert not (tmp_path / "env").exists()


def test_a_python_without_venv_is_refused(maker, tmp_path, capsys):
    maker.inner["output"] = lambda *command: None
    assert maker.main(tmp_path / "env") == 2
    mistake(capsys, "no venv module", "python3-venv")
    assert maker.commands == []


@pytest.mark.parametrize("there", [False, True])
def test_a_new_or_empty_folder_becomes_an_environment(maker, tmp_path, there):
    folder = tmp_path / "env"
    if there:
        folder.mkdir()

    def run(*command: object) -> None:
        maker.commands.append([str(part) for part in command])
        if "venv" in command:
            (folder / "bin").mkdir(parents=True)

    maker.inner["run"] = run
    maker.make(folder)
    assert maker.commands == [[sys.executable, "-m", "venv", str(folder)]]
    assert (folder / ".made-by-make-env").exists()


def test_a_command_that_fails(maker, tmp_path):
    names = runpy.run_path(str(TOOL), run_name="make_env")
    with pytest.raises(names["SetupError"], match="failed; its lines above say why"):
        names["run"](sys.executable, "-c", "raise SystemExit(3)")
    assert names["output"](sys.executable, "-c", "print('words ')") == "words"
    assert names["output"](sys.executable, "-c", "raise SystemExit(3)") is None


def test_the_interpreter_of_an_environment(maker, tmp_path):
    assert maker.interpreter(tmp_path) == tmp_path / "bin" / "python"
    (tmp_path / "Scripts").mkdir()
    (tmp_path / "Scripts" / "python.exe").touch()
    assert maker.interpreter(tmp_path) == tmp_path / "Scripts" / "python.exe"


# -- what to install with


def test_our_own_environment_gets_the_tested_set(maker, tmp_path):
    folder = environment(tmp_path / "env", ours=True)
    assert maker.constraints_for(folder, folder / "bin" / "python") == maker.CONSTRAINTS
    assert maker.CONSTRAINTS.is_file()


def test_someone_elses_environment_keeps_what_it_has(maker, tmp_path):
    """Every package that is there is pinned to its version; the one that is installed from a folder is not."""
    folder = environment(tmp_path / "env")
    path = maker.constraints_for(folder, Path(sys.executable))
    assert path.parent == folder
    lines = path.read_text().splitlines()
    assert f"torch=={importlib.metadata.version('torch')}" in lines
    assert all("==" in line and " @ " not in line for line in lines)
    assert not [line for line in lines if line.startswith("resnet-detection")]


def test_lines_that_pin_nothing_are_left_out(maker, tmp_path):
    maker.inner["output"] = lambda *command: "torch==2.6.0+cu124\nmine @ file:///home/me/mine\n-e git+x\nnumpy==2.0.0"
    path = maker.constraints_for(tmp_path, Path("python"))
    assert path.read_text() == "torch==2.6.0+cu124\nnumpy==2.0.0\n"


def test_an_environment_without_pip(maker, tmp_path):
    maker.inner["output"] = lambda *command: None
    with pytest.raises(maker.SetupError, match="has no pip; run `.* -m ensurepip`"):
        maker.constraints_for(tmp_path, Path("python"))


# -- completing one


def test_an_environment_of_an_old_python(maker, tmp_path, capsys):
    folder = environment(tmp_path / "env", "echo 3.9.18")
    assert maker.main(folder) == 2
    mistake(capsys, "is Python 3.9.18; 3.10 or newer is needed")
    assert maker.commands == []


def test_an_environment_whose_python_does_not_run(maker, tmp_path, capsys):
    folder = environment(tmp_path / "env", "exit 1")
    assert maker.main(folder) == 2
    mistake(capsys, "does not run")
    assert maker.commands == []


@pytest.mark.parametrize("ours", [True, False])
def test_it_is_completed_once(maker, tmp_path, capsys, ours):
    folder = environment(tmp_path / "env", ours=ours)
    assert maker.main(folder) == 0
    assert "is ready" in capsys.readouterr().out
    pip, detectron2, mmdetection = maker.commands
    python = str(folder / "bin" / "python")
    constraints = str(maker.CONSTRAINTS if ours else folder / ".constraints-of-make-env.txt")
    assert pip[:4] == [python, "-m", "pip", "install"]
    assert pip[-4:] == ["--constraint", constraints, "--editable", f"{TOOL.parents[1]}[test]"]
    assert "--upgrade" not in pip
    assert detectron2 == [python, str(TOOL.parent / "install_detectron2.py"), "--constraint", constraints]
    assert mmdetection == [python, str(TOOL.parent / "install_mmdetection.py"), "--constraint", constraints]
    # The second time nothing is run.
    assert maker.main(folder) == 0
    assert len(maker.commands) == 3
    # What it was made for has changed, or a package is gone: completed again.
    (folder / ".completed-by-make-env").write_text("another digest")
    assert maker.main(folder) == 0
    assert len(maker.commands) == 6
    without_torch = f'#!/bin/sh\ncase "$2" in *torch*) exit 1;; esac\nexec {sys.executable} "$@"\n'
    (folder / "bin" / "python").write_text(without_torch)
    assert maker.main(folder) == 0
    assert len(maker.commands) == 9


def test_an_installation_that_fails_is_not_taken_for_complete(maker, tmp_path, capsys):
    def run(*command: object) -> None:
        raise maker.SetupError("pip failed")

    maker.inner["run"] = run
    folder = environment(tmp_path / "env", ours=True)
    assert maker.main(folder) == 2
    assert "pip failed" in capsys.readouterr().err
    assert not (folder / ".completed-by-make-env").exists()


def test_an_environment_is_ready_without_mmdetection_too(maker, tmp_path, capsys):
    """Only tests need it; as there is no stamp, the next call tries again."""

    def run(*command: object) -> None:
        if "install_mmdetection" in str(command):
            raise maker.SetupError("pip failed")

    maker.inner["run"] = run
    folder = environment(tmp_path / "env", ours=True)
    assert maker.main(folder) == 0
    assert "warning: pip failed; the tests against MMDetection are skipped" in capsys.readouterr().err
    assert not (folder / ".completed-by-make-env").exists()


def test_wrong_usage():
    for arguments, status in ((["--help"], 0), ([], 2), (["a", "b"], 2)):
        done = subprocess.run([sys.executable, str(TOOL), *arguments], capture_output=True, text=True)
        assert done.returncode == status
        assert done.stderr.count("\n") == (1 if status else 0), done.stderr
