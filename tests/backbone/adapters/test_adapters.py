"""What holds of the adapters of every project."""

from __future__ import annotations

import subprocess
import sys

import pytest
from torch import nn

import backbone
from backbone import ArchitectureError, RunError, adapters


def test_importing_the_adapters_imports_no_other_project():
    code = (
        "import sys, backbone.adapters; "
        "print([name for name in ('torchvision', 'timm', 'transformers', 'detectron2') if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_all_names_are_there():
    for name in adapters.__all__:
        assert callable(getattr(adapters, name))


@pytest.mark.parametrize(
    ("package", "call"),
    [
        ("timm", lambda: adapters.timm_features("cifar_resnet20")),
        ("transformers", lambda: adapters.transformers_config("cifar_resnet20")),
        ("transformers", adapters.register_transformers),
    ],
)
def test_a_missing_package_is_named_with_its_remedy(package, call, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)  # as if it were not installed
    with pytest.raises(RunError, match=f"needs {package}, which is not installed: pip install {package}$"):
        call()


def test_network_inside_a_detector():
    net = backbone.create("cifar_resnet20")
    assert adapters.network_of(net) is net
    assert adapters.network_of(nn.Sequential(nn.ReLU(), nn.Sequential(net))) is net
    folded = backbone.fold(net)
    assert adapters.network_of(folded) is folded.network
    with pytest.raises(ArchitectureError, match="Sequential: none of its modules"):
        adapters.network_of(nn.Sequential(nn.ReLU()))
    with pytest.raises(ArchitectureError, match="2 of its modules"):
        adapters.network_of(nn.Sequential(net, backbone.create("cifar_resnet20")))
