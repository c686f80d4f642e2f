"""tools/analyze.py, as its user calls it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import backbone

TOOL = "analyze.py"


def test_one_network(tool):
    done = tool(TOOL, "--backbone", "resnet101", "--json", "f.json", "--stride-in-1x1")
    done.fine("resnet101, 1 x 3 x 224 x 224", "| res4 ", "1024x14x14", "7.570", "44.549", "MiB: weights 170.3")
    figures = json.loads(Path("f.json").read_text())
    assert [stage["name"] for stage in figures["stages"]] == ["stem", "res2", "res3", "res4", "res5", "logits"]
    assert figures["keywords"] == {"num_classes": 1000, "stride_in_1x1": True}
    assert round(figures["total"]["macs"] / 1e9, 3) == 7.570
    for name in ("parameters", "macs", "activations", "field", "kept", "peak"):
        assert name in figures["stages"][2]


def test_every_keyword(tool):
    size = ("--input-size", 64, 96, "--batch-size", 2)
    network = ("--num-classes", "none", "--out-features", "res2", "res4", "--output-stride", 8, "--norm", "frozen_bn")
    more = ("--freeze-at", 3, "--shortcut", "C", "--stem", "deep", "--effective", 1, "--json", "f.json")
    tool(TOOL, "--backbone", "resnet18", *size, *network, *more).fine("2 x 3 x 64 x 96", "effective")
    figures = json.loads(Path("f.json").read_text())
    stages = {stage["name"]: stage for stage in figures["stages"]}
    assert list(stages) == ["stem", "res2", "res3", "res4"]
    assert stages["res4"]["output"] == [256, 8, 12] and stages["res4"]["stride"] == 8
    assert stages["res3"]["kept"]["frozen_bn"] == 0 < stages["res4"]["kept"]["frozen_bn"]
    assert 0 < stages["res4"]["effective_field"] <= stages["res4"]["field"]


def test_all_networks(tool, monkeypatch):
    monkeypatch.setattr(backbone, "list_backbones", lambda: ["cifar_resnet20", "preact_resnet18", "vgg16"])
    out = tool(TOOL, "--all", "--json", "all.json", "--batch-size", 2).fine("| cifar_resnet20 ", "138.358")
    assert len(out.splitlines()) == 5
    assert list(json.loads(Path("all.json").read_text())) == ["cifar_resnet20", "preact_resnet18", "vgg16"]


@pytest.mark.slow
def test_the_whole_list(tool):
    out = tool(TOOL, "--all").fine()
    assert len(out.splitlines()) == 2 + len(backbone.list_backbones())


def test_responses(tool, tmp_path):
    torch.manual_seed(0)
    torch.save(backbone.create("cifar_resnet20", num_classes=7).state_dict(), "r20.pth")
    networks = ("--networks", "cifar_plain20", "cifar_resnet20", "--num-images", 8)
    done = tool(
        TOOL, "--responses", *networks, "--weights", "cifar_resnet20=r20.pth", "--output", "o", "--json", "r.json"
    )
    done.fine("8 made-up images, no photographs", "cifar_plain20 (untrained)", "cifar_resnet20 (trained)", "note: BN")
    assert (tmp_path / "o" / "responses.png").read_bytes().startswith(b"\x89PNG")
    assert len((tmp_path / "o" / "responses.csv").read_text().splitlines()) == 1 + 2 * 19
    figures = json.loads(Path("r.json").read_text())
    assert figures["cifar_resnet20"]["trained"] and len(figures["cifar_resnet20"]["std"]) == 19


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "--backbone --all --responses is required"),
        (["--backbone", "resnet10"], "unknown backbone 'resnet10'; did you mean 'resnet1"),
        (["--backbone", "resnet50", "--all"], "not allowed with"),
        (["--backbone", "resnet50", "--input-size", "0", "32"], "each must be at least 1"),
        (["--backbone", "vgg16", "--input-size", "12", "12"], "12x12 pixels are too small; the smallest side is 32"),
        (["--backbone", "resnet50", "--num-classes", "many"], "must be a number or none, not 'many'"),
        (["--backbone", "resnet50", "--num-classes", "0"], "num_classes must be at least 1"),
        (["--backbone", "resnet50", "--out-features", "res9"], "must list some of stem, res2"),
        (["--backbone", "resnet50", "--output-stride", "7"], "output_stride must be one of"),
        (["--backbone", "resnet50", "--norm", "ln"], "norm must be one of bn"),
        (["--backbone", "resnet50", "--freeze-at", "9"], "freeze_at must be 0 to 5"),
        (["--backbone", "cifar_resnet20", "--effective", "0"], "at least 1 image"),
        (["--backbone", "resnet50", "--images", "a"], "--images is not for --backbone"),
        (["--all", "--norm", "gn"], "--norm is not for --all"),
        (["--responses", "--images", "missing"], "missing: no such file or folder of images"),
        (["--responses", "--data", "missing.npz"], "missing.npz: no such file"),
        (["--responses", "--weights", "cifar_resnet20=missing.th"], "missing.th: no such file"),
        (["--responses", "--networks", "cifar_resnet21"], "unknown backbone 'cifar_resnet21'; did you mean"),
        (["--responses", "--num-images", "0"], "at least 1 image"),
    ],
)
def test_mistakes(tool, arguments, said):
    tool(TOOL, *arguments).mistake(said)


def test_weights_that_are_none(tool):
    Path("text.pth").write_text("no weights")
    weights = ("--networks", "cifar_resnet20", "--weights", "cifar_resnet20=text.pth", "--num-images", 2)
    tool(TOOL, "--responses", *weights).mistake("text.pth")


def test_help_and_what_it_imports(tool):
    """An example in the help; neither matplotlib nor detectron2 for the costs."""
    tool(TOOL, "--help").fine("example:", "--backbone resnet101", "--responses --images")
    code = "import sys, runpy; sys.argv[1:] = ['--backbone', 'cifar_resnet20']\ntry: runpy.run_path(sys.argv[0], "
    code += "run_name='__main__')\nexcept SystemExit as end: assert not end.code\n"
    code += "assert not {'matplotlib', 'detectron2', 'fvcore', 'cv2'} & set(sys.modules)"
    tools = Path(__file__).resolve().parents[2] / "tools"
    program = f"import sys; sys.argv[0] = {str(tools / TOOL)!r}\n{code}"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=tools.parent)
    assert done.returncode == 0, done.stderr
