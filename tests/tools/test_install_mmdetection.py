"""tools/install_mmdetection.py: what pip is asked for, and the module in place of the compiled operators.

Nothing here installs into the environment that the tests run in: pip is replaced.
"""

from __future__ import annotations

import runpy
import sys
import types
from pathlib import Path

import pytest
import torch
from torchvision import ops

TOOL = Path(__file__).resolve().parents[2] / "tools" / "install_mmdetection.py"


@pytest.fixture
def installer(monkeypatch, tmp_path) -> types.SimpleNamespace:
    """The tool in an environment where `there` is installed; `calls` has what pip was asked for."""
    monkeypatch.syspath_prepend(str(TOOL.parent))
    names = runpy.run_path(str(TOOL), run_name="install_mmdetection")
    calls: list[tuple[str, ...]] = []
    there: set[str] = set()
    (tmp_path / "mmcv").mkdir()
    (tmp_path / "mmcv" / "__init__.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    # Where another test has imported the real one, its folder would be found.
    for name in [name for name in sys.modules if name.split(".")[0] == "mmcv"]:
        monkeypatch.delitem(sys.modules, name)

    def pip(*arguments: str) -> None:
        requirements = Path(arguments[-1]).read_text() if "--requirement" in arguments else ""
        calls.append((*arguments, requirements))

    inner = names["main"].__globals__
    inner |= {"pip": pip, "is_there": lambda name: name in there}

    def main(*arguments: object) -> int:
        monkeypatch.setattr(sys, "argv", [str(TOOL), *map(str, arguments)])
        return names["main"]()

    return types.SimpleNamespace(
        **{
            **names,
            "main": main,
            "calls": calls,
            "there": there,
            "inner": inner,
            "operators": tmp_path / "mmcv/_ext.py",
        }
    )


def test_what_pip_is_asked_for(installer, capsys):
    assert installer.main() == 0
    assert "is installed" in capsys.readouterr().out
    brought, built = installer.calls
    assert "--no-deps" in brought and {"addict", "shapely"} <= set(brought)
    assert str(TOOL.parents[1] / "constraints.txt") in brought
    assert "--no-deps" in built and "onedl-mmengine,onedl-mmcv,onedl-mmdetection" in built
    lines = built[-1].splitlines()
    assert len(lines) == 3 and all("--hash=sha256:" in line for line in lines)
    pinned = (TOOL.parents[1] / "constraints.txt").read_text()
    assert all(f"\n{name}==" in pinned for name in installer.REQUIRES)
    # What is there is kept as it is.
    installer.there.update((*installer.REQUIRES, "mmcv", "mmengine"))
    assert installer.main() == 0
    assert installer.calls[-1][-1].startswith("onedl-mmdetection==3.5.1 ") and len(installer.calls) == 3
    installer.there.add("mmdet")
    assert installer.main() == 0 and len(installer.calls) == 3


def test_the_operators(installer):
    assert installer.main() == 0
    module: dict = {}
    exec(installer.operators.read_text(), module)
    boxes = torch.tensor([[0.0, 0, 10, 10], [1, 1, 11, 11], [20, 20, 30, 30]])
    assert module["nms"](boxes, torch.tensor([0.1, 0.9, 0.5]), 0.5, 0).tolist() == [1, 2]
    with pytest.raises(NotImplementedError, match="offset"):
        module["nms"](boxes, torch.ones(3), 0.5, 1)
    maps, regions, none = torch.randn(1, 2, 8, 8), torch.tensor([[0.0, 4, 4, 20, 20]]), torch.zeros(0)
    output = torch.zeros(1, 2, 3, 3)
    module["roi_align_forward"](maps, regions, output, none, none, 3, 3, 0.25, 0, 1, True)
    assert torch.equal(output, ops.roi_align(maps, regions, 3, 0.25, 0, aligned=True))
    with pytest.raises(NotImplementedError, match="softnms is not compiled"):
        module["__getattr__"]("softnms")(boxes)
    with pytest.raises(AttributeError):
        module["__getattr__"]("__path__")


def test_compiled_operators_are_kept(installer):
    (installer.operators.parent / "_ext.cpython-311-x86_64-linux-gnu.so").touch()
    assert installer.main() == 0 and not installer.operators.exists()


def test_pip_fails(installer, capsys):
    def pip(*arguments: str) -> None:
        raise installer.InstallError("pip install failed: no network")

    installer.inner["pip"] = pip
    assert installer.main() == 2
    assert capsys.readouterr().err == "install_mmdetection.py: error: pip install failed: no network\n"
