"""The names of `import backbone`, which are imported when they are first used."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import backbone

# Second names that scripts use.
ALIASES = {"freeze_bn": "freeze_norm"}
LAZY = """
import sys, backbone
assert set(backbone.__all__) <= set(dir(backbone))
backbone.ConfigError
assert "torch" not in sys.modules
from backbone import *
assert fold is backbone.networks.fold and MisfitError is backbone.weights.MisfitError
"""


def test_torch_is_imported_with_the_first_network():
    subprocess.run([sys.executable, "-c", LAZY], check=True, cwd=Path(__file__).parents[2])


@pytest.mark.parametrize("name", backbone.__all__)
def test_every_name_is_there_and_documented(name):
    value = getattr(backbone, name)
    assert value.__doc__ and getattr(value, "__name__", name) in (name, ALIASES.get(name))


def test_an_unknown_name_raises():
    with pytest.raises(AttributeError, match="module 'backbone' has no attribute 'creat'"):
        _ = backbone.creat
