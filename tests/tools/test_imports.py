"""What a command line imports before it has work: --help, a wrong flag and an evaluation do not wait for torch."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
from pathlib import Path

TOOLS = Path(__file__).resolve().parents[2] / "tools"
# Runs each line of arguments as a command line and prints its status and which of the slow libraries it imported.
RUNS = """
import contextlib, io, json, runpy, sys
sys.path.insert(0, sys.argv[2])
before = sys.path
for argv in json.loads(sys.argv[1]):
    sys.argv = argv
    # A script finds its neighbours.
    sys.path = [sys.argv[0].rpartition("/")[0], *before]
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        try:
            runpy.run_path(argv[0], run_name="__main__")
        except SystemExit as ended:
            status = ended.code or 0
    print(argv[0], status, *sorted({"torch", "torchvision", "numpy", "cv2", "detectron2"} & set(sys.modules)))
"""


def run(*calls: list[str]) -> list[str]:
    """Return, for each command line in turn and in one process, its status and what of the slow is imported by then."""
    given = [sys.executable, "-c", RUNS, json.dumps(calls), str(TOOLS.parent)]
    done = subprocess.run(given, capture_output=True, text=True, check=True)
    return [line.removeprefix(f"{argv[0]} ") for line, argv in zip(done.stdout.splitlines(), calls, strict=True)]


def test_help_and_wrong_flags_import_nothing_slow():
    tools = [str(path) for path in sorted(TOOLS.glob("[a-z]*.py"))]
    assert len(tools) >= 15
    assert run(*([tool, "--help"] for tool in tools)) == ["0"] * len(tools)
    assert run(*([tool, "--hepl"] for tool in tools)) == ["2"] * len(tools)


def test_evaluate_imports_no_torch(tmp_path):
    box = {"image_id": 1, "category_id": 1, "bbox": [1, 1, 5, 5]}
    truth = {
        "images": [{"id": 1, "width": 9, "height": 9, "file_name": "a.jpg"}],
        "annotations": [{"id": 1, "area": 25, "iscrowd": 0, **box}],
        "categories": [{"id": 1, "name": "cat"}],
    }
    (tmp_path / "gt.json").write_text(json.dumps(truth))
    (tmp_path / "found.json").write_text(json.dumps([{"score": 0.5, **box}]))
    files = ["--gt", str(tmp_path / "gt.json"), "--predictions", str(tmp_path / "found.json")]
    tool = str(TOOLS / "evaluate.py")
    outputs = ["--json", str(tmp_path / "out.json"), "--report", str(tmp_path / "out.html")]
    for done in run([tool, *files], [tool, *files, *outputs]):
        status, *imported = done.split()
        assert status == "0" and not {"torch", "torchvision", "detectron2"} & set(imported)


def test_names_that_a_command_line_repeats_are_those_of_the_library():
    from backbone.classification.predicting import SHOWN
    from backbone.segmentation.data.folders import LABEL_FILES, LABELS
    from backbone.weights import WRITABLE
    from detection.evaluation import ENGINES, IOU_TYPES
    from detection.evaluation.voc import METRICS
    from detection.inference.opening import ENGINES as RUNTIMES
    from detection.inference.predict import DRAWN, OVERLAP

    for name in ("convert_weights.py", "export_backbone.py"):
        assert runpy.run_path(str(TOOLS / name))["WRITABLE"] == WRITABLE
    evaluate = runpy.run_path(str(TOOLS / "evaluate.py"))
    assert (evaluate["ENGINES"], evaluate["IOU_TYPES"], evaluate["METRICS"]) == (tuple(ENGINES), IOU_TYPES, METRICS)
    assert evaluate["RUNTIMES"] == RUNTIMES
    check_data = runpy.run_path(str(TOOLS / "check_data.py"))
    assert evaluate["LABEL_FILES"] == check_data["LABEL_FILES"] == LABEL_FILES
    assert check_data["LABELS"] == LABELS
    predict = runpy.run_path(str(TOOLS / "predict.py"))
    assert (predict["SCORE"], predict["OVERLAP"], predict["TOP"]) == (DRAWN, OVERLAP, SHOWN)
