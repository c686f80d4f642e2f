"""tools/doctor.py: every line is ok, or says how to mend it."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
import types
from pathlib import Path

import pytest
import torch

TOOL = Path(__file__).resolve().parents[2] / "tools" / "doctor.py"


@pytest.fixture
def doctor() -> types.SimpleNamespace:
    """The tool's functions, with a module of their own for each test."""
    return types.SimpleNamespace(**runpy.run_path(str(TOOL), run_name="doctor"))


def lines_by_subject(path: Path) -> dict[str, dict]:
    return {line["subject"]: line for line in json.loads(path.read_text())}


# -- the whole report


def test_the_environment_of_these_tests_is_well(tool, tmp_path):
    text = tool("doctor.py", "--data-root", tmp_path, "--json", "report.json").fine("all is well")
    lines = lines_by_subject(tmp_path / "report.json")
    assert set(lines) >= {
        *("Python", "torch", "torchvision", "detectron2", "packages", "evaluation", "memory", "disk", "data root"),
        *("COCO 2017", "COCO 2014", "PASCAL VOC 2007", "PASCAL VOC 2012"),
    }
    assert lines["Python"]["finding"] == f"{sys.version.split()[0]} at {sys.executable}"
    assert lines["torch"]["finding"].startswith(torch.__version__)
    assert "0.6, " in lines["detectron2"]["finding"]
    assert "numpy" in lines["packages"]["finding"]
    assert lines["data root"]["finding"] == str(tmp_path)
    for line in lines.values():
        assert line["status"] in ("ok", "warn")
        assert f"{line['status']:<5} {line['subject']}" in text
        # What is ok needs no advice on the terminal.
        assert line["status"] != "ok" or f"-> {line['mend']}" not in text


def test_a_data_root_that_is_not_there_is_no_fault(tool, tmp_path, monkeypatch):
    assert "warn  data root" in tool("doctor.py", "--data-root", "nowhere").fine("nowhere does not exist  -> give")
    monkeypatch.setenv("DETECTRON2_DATASETS", "/elsewhere")
    tool("doctor.py").fine("/elsewhere does not exist")
    tool("doctor.py", "--data-root", "nowhere").fine("nowhere does not exist")


def test_data_sets_are_found(tool, tmp_path):
    for name in ("coco/annotations/instances_val2017.json", "VOCdevkit/VOC2007/ImageSets/Main/test.txt"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text("")
    tool("doctor.py", "--data-root", tmp_path, "--json", "report.json").fine()
    found = {name: line["finding"] for name, line in lines_by_subject(tmp_path / "report.json").items()}
    assert found["COCO 2017"] == "coco/annotations/instances_val2017.json"
    assert found["COCO 2014"] == "not there"
    assert found["PASCAL VOC 2007"] == "VOCdevkit/VOC2007/ImageSets/Main"
    assert found["PASCAL VOC 2012"] == "not there"


def test_help_shows_an_example(tool):
    tool("doctor.py", "--help").fine("python tools/doctor.py --data-root /data")


def test_wrong_flags_and_a_report_that_cannot_be_written(tool, tmp_path):
    done = tool("doctor.py", "--data-root", tmp_path, "--json", tmp_path / "nowhere" / "report.json")
    done.mistake("report.json", "cannot be written")
    tool("doctor.py", "--dataroot", "x").mistake("unrecognized arguments: --dataroot")


def test_without_any_package_it_says_what_to_install(tmp_path):
    """A Python that has nothing but itself: no traceback, a mend in every bad line, status 2."""
    done = subprocess.run(
        [sys.executable, "-S", "-E", str(TOOL), "--data-root", str(tmp_path)],
        capture_output=True, text=True, check=False, cwd=tmp_path,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (2, "")
    bad = [line for line in done.stdout.splitlines() if line.startswith("MEND")]
    assert {line.split()[1] for line in bad} >= {"torch", "torchvision", "detectron2", "numpy", "yacs"}
    assert all("  -> " in line for line in bad), bad
    assert done.stdout.splitlines()[-1] == f"{len(bad)} to mend"


# -- single checks


def test_an_old_python(doctor, monkeypatch):
    monkeypatch.setattr(sys, "version_info", (3, 9, 1))
    line = doctor.check_python()
    assert (line.status, line.mend) == ("MEND", "use Python 3.10 or newer")


def without(monkeypatch: pytest.MonkeyPatch, *modules: str) -> None:
    for module in modules:
        monkeypatch.setitem(sys.modules, module, None)


def test_missing_packages_are_named_by_what_pip_calls_them(doctor, monkeypatch):
    without(monkeypatch, "cv2", "yaml")
    mends = {line.subject: line.mend for line in doctor.check_packages() if line.status == "MEND"}
    assert mends == {
        "opencv-python-headless": "pip install opencv-python-headless",
        "PyYAML": "pip install PyYAML",
    }


def test_opencv_without_its_system_library(doctor, monkeypatch):
    import_module = doctor.attempt.__globals__["importlib"].import_module

    def broken(name: str):
        if name == "cv2":
            raise ImportError("libGL.so.1: cannot open shared object file")
        return import_module(name)

    monkeypatch.setattr(doctor.attempt.__globals__["importlib"], "import_module", broken)
    (line,) = [line for line in doctor.check_packages() if line.status == "MEND"]
    assert "opencv-python-headless" in line.mend and "libGL" in line.finding


def test_a_torchvision_that_does_not_fit(doctor, monkeypatch):
    import torchvision

    def missing(*_):
        raise RuntimeError("operator torchvision::nms does not exist\nmore")

    monkeypatch.setattr(torchvision.ops, "nms", missing)
    monkeypatch.setattr(torch, "__version__", "2.4.1+cu121")
    line = doctor.check_torchvision()
    assert line.status == "MEND"
    assert line.finding.endswith("does not fit torch: operator torchvision::nms does not exist")
    assert line.mend == "pip install 'torchvision==0.19.*'"


def test_no_torch(doctor, monkeypatch):
    without(monkeypatch, "torch")
    assert [line.status for line in doctor.check_torch()] == ["MEND"]
    assert doctor.check_torchvision().status == "MEND"


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a torch that sees no GPU")
def test_a_gpu_that_torch_cannot_use(doctor, monkeypatch):
    monkeypatch.setattr(doctor.check_torch.__globals__["shutil"], "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setitem(doctor.check_torch.__globals__, "_has_gpu", lambda driver: True)
    line = doctor.check_torch()[-1]
    assert (line.status, line.subject) == ("MEND", "GPU")
    assert "torch cannot use it" in line.finding
    monkeypatch.setitem(doctor.check_torch.__globals__, "_has_gpu", lambda driver: False)
    assert doctor.check_torch()[-1].status == "ok"


def test_no_detectron2(doctor, monkeypatch):
    util = doctor.check_detectron2.__globals__["importlib"].util
    monkeypatch.setattr(util, "find_spec", lambda name: None)
    line = doctor.check_detectron2()
    assert (line.status, line.mend) == ("MEND", "run `python tools/install_detectron2.py`")


def test_a_detectron2_that_does_not_work(doctor, monkeypatch):
    import detection

    def broken() -> None:
        raise ImportError("cannot import name 'x'")

    monkeypatch.setattr(detection, "register", broken)
    line = doctor.check_detectron2()
    assert line.status == "MEND"
    assert "does not work: cannot import name 'x'" in line.finding


def test_evaluation_by_pycocotools_alone(doctor, monkeypatch):
    without(monkeypatch, "hotcoco", "faster_coco_eval")
    line = doctor.check_evaluation()
    assert (line.status, line.mend) == ("warn", "pip install hotcoco")
