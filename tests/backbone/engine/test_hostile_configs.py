"""Configs that were made to run code, or to take all time and memory."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from config_cases import defaults, refused, write

from backbone.engine.config import (
    find_config,
    merge_overrides,
    read_yaml,
)

RUNS_CODE = [
    "!!python/object/apply:os.system ['touch {marker}']",
    "!!python/object/new:os.system ['touch {marker}']",
    "!!python/object/apply:subprocess.check_output [['touch', '{marker}']]",
    "!!python/object/apply:eval [\"open('{marker}', 'w')\"]",
    "!!python/name:os.system",
    "!!python/module:os",
    "!!python/object:pathlib.Path {{}}",
    "!anything x",
]


@pytest.mark.parametrize("tag", RUNS_CODE)
@pytest.mark.parametrize("place", ["NAME: {}", "SOLVER:\n  STEPS: {}", "{}", "? {}\n: 1", "_BASE_: {}"])
def test_a_tag_that_runs_code_is_refused_and_runs_nothing(tmp_path, tag, place):
    marker = tmp_path / "marker"
    text = place.format(tag.format(marker=marker))
    assert "refused, a tag that is not plain data" in refused(read_yaml, write(tmp_path, "hostile.yaml", text))
    assert not marker.exists()


def test_the_hostile_yaml_would_run_in_an_unsafe_reader(tmp_path):
    """So that the test above cannot pass because its YAML is harmless anyway."""
    marker = tmp_path / "marker"
    yaml.unsafe_load("NAME: " + RUNS_CODE[0].format(marker=marker))
    assert marker.exists()


HOSTILE = {
    # Ten lines that stand for 10^10 values, as lists, as mappings and as mappings that merge others.
    "lists": "X0: &x0 [0]\n" + "".join(f"X{i}: &x{i} [{', '.join([f'*x{i - 1}'] * 10)}]\n" for i in range(1, 11)),
    "mappings": "X0: &x0 {a: 0}\n"
    + "".join(f"X{i}: &x{i} {{{', '.join(f'k{k}: *x{i - 1}' for k in range(10))}}}\n" for i in range(1, 11)),
    "merges": "X0: &x0 {a: 0}\n"
    + "".join(f"X{i}: &x{i}\n  <<: [{', '.join([f'*x{i - 1}'] * 10)}]\n" for i in range(1, 11)),
    "a list of itself": "SOLVER: {STEPS: &a [*a]}\n",
    "a mapping of itself": "SOLVER: &a {AMP: *a}\n",
    "thousands of digits": f"SEED: {'9' * 5000}\n",
    "nested": "SEED: " + "[" * 500 + "]" * 500,
    "a base with NUL": '_BASE_: "a\\0b"\n',
    "a base with a long name": f"_BASE_: {'a' * 300}.yaml\n",
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_files_are_refused_with_little_work(tmp_path, case, count_calls):
    path = write(tmp_path, "hostile.yaml", HOSTILE[case])
    assert count_calls(refused, read_yaml, path) < 5_000_000
    assert len(refused(read_yaml, path)) < 1000 + len(str(path))


@pytest.mark.parametrize("value", ["9" * 400, "-" + "9" * 400, "0x" + "f" * 5000, 10**400, [10**400]])
@pytest.mark.parametrize("key", ["SEED", "SOLVER.BASE_LR", "SOLVER.STEPS", "NAME"])
def test_a_number_of_hundreds_of_digits(key, value):
    """As text on a command line, and as YAML gives it; a text stays what it is."""
    if key == "NAME" and isinstance(value, str):
        merge_overrides(defaults(), (key, value))
    elif isinstance(value, list) and key != "SOLVER.STEPS":
        assert f"{key} is [1000" in refused(merge_overrides, defaults(), (key, value))
    else:
        assert f"{key} is a number of more than 64 bits" in refused(merge_overrides, defaults(), (key, value))


def test_nul_in_a_text():
    assert "NUL character" in refused(merge_overrides, defaults(), ("NAME", "a\0b"))


def test_bases_that_are_named_twice_are_read_once(tmp_path, monkeypatch):
    """Thirty levels that each name the next twice would be read 2^30 times."""
    for level in range(30):
        write(tmp_path, f"b{level}.yaml", f"_BASE_: [b{level + 1}.yaml, b{level + 1}.yaml]\nA: {{K{level}: {level}}}\n")
    write(tmp_path, "b30.yaml", "A: {K0: 5, K30: 30}\n")
    reads = []
    monkeypatch.setattr(Path, "read_text", lambda path, **_: reads.append(path) or path.read_bytes().decode())
    assert read_yaml(tmp_path / "b0.yaml") == {"A": {f"K{level}": level for level in range(31)}}
    assert len(reads) == 31


def test_too_many_bases(tmp_path):
    for level in range(60):
        write(tmp_path, f"b{level}.yaml", f"_BASE_: b{level + 1}.yaml\n")
    assert "more than 50 configs stand on one another" in refused(read_yaml, tmp_path / "b0.yaml")


def test_a_name_that_is_too_long():
    assert "no config file" in refused(find_config, "a" * 300)
