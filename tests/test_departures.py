"""docs/departures.md: every config of the paper is there, with the values that it has."""

from __future__ import annotations

import fnmatch
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from yacs.config import CfgNode

import detection
from backbone import localization
from backbone.classification import load_config
from backbone.engine.config import CONFIG_FOLDER, get, read_yaml

PAGE = Path(__file__).parents[1] / "docs" / "departures.md"
NAMES = sorted(path.stem for path in CONFIG_FOLDER.glob("*.yaml") if read_yaml(path).get("PAPER"))
PAIR = re.compile(r"`([A-Z0-9_.]+) ([^`]+)`")


def rows(head: str) -> list[list[str]]:
    lines = PAGE.read_text(encoding="utf-8").split(head)[1].split("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def configs_of(row: list[str]) -> list[str]:
    patterns = re.findall(r"`([^`]+)`", row[1])
    assert patterns and all(fnmatch.filter(NAMES, pattern) for pattern in patterns), row[0]
    return [name for name in NAMES if any(fnmatch.fnmatch(name, pattern) for pattern in patterns)]


@cache
def config(name: str) -> Any:
    if name.startswith("imagenet_loc"):
        return localization.load_config(name)
    if name.startswith(("imagenet", "cifar10")) and "_det_" not in name:
        return load_config(name)
    return detection.get_config(name)


DIFFERENCES = rows("| no. ")


def test_every_config_of_the_paper_is_named_with_its_differences():
    listed = {row[0].strip("`").removesuffix(".yaml"): row[1] for row in rows("| config ")}
    assert list(listed) == NAMES
    for name, numbers in listed.items():
        assert numbers == ", ".join(row[0] for row in DIFFERENCES if name in configs_of(row)), name


@pytest.mark.parametrize("row", DIFFERENCES, ids=lambda row: row[0])
def test_the_values_are_those_of_the_configs(row):
    pairs = PAIR.findall(row[2])
    assert pairs and all(row)
    for name in configs_of(row):
        for key, value in pairs:
            own = config(name)
            stated = own.clone() if isinstance(own, CfgNode) else own
            stated.defrost()
            stated.merge_from_list([key, value])
            assert get(stated, key) == get(own, key), f"{name}: {key} is {get(own, key)}, the page says {value}"
