"""YAML configs: what a file and a command line may say, and how what they may not is refused."""

from __future__ import annotations

import math

import pytest
from config_cases import defaults, refused, write

from backbone.engine.config import (
    CONFIG_FOLDER,
    KEYS_OF_TOOLS,
    check_tool,
    differences,
    dump,
    find_config,
    get,
    merge,
    merge_overrides,
    parse_yaml,
    read_yaml,
    to_plain,
)

# -- finding the file


def test_a_bare_name_is_looked_for_in_configs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name = "mini_faster_rcnn_r18.yaml"
    assert find_config(name) == CONFIG_FOLDER / name
    assert find_config(name.removesuffix(".yaml")) == CONFIG_FOLDER / name
    # A file that is here comes first.
    write(tmp_path, name, "NAME: mine")
    assert find_config(name).resolve() == tmp_path / name


@pytest.mark.parametrize("name", ["mini_faster_rcn_r18.yaml", "configs/mini_faster_rcnn_r8.yaml", "mini_faster_r18"])
def test_a_wrong_name_offers_the_nearest(name):
    message = refused(find_config, name)
    assert name in message
    assert "did you mean 'mini_faster_rcnn_r18.yaml'?" in message


def test_a_folder_is_no_config(tmp_path):
    assert str(tmp_path) in refused(find_config, tmp_path)


# -- bases


def test_what_stands_above_wins_over_its_bases(tmp_path):
    (tmp_path / "base").mkdir()
    write(tmp_path, "base/first.yaml", "SEED: 1\nSOLVER: {BASE_LR: 1.0, MAX_ITER: 1}\nNAME: first")
    write(tmp_path, "base/second.yaml", "_BASE_: first.yaml\nSOLVER: {MAX_ITER: 2}")
    write(tmp_path, "base/third.yaml", "NAME: third")
    path = write(tmp_path, "top.yaml", "_BASE_: [base/second.yaml, base/third.yaml]\nSOLVER: {STEPS: [5]}")
    assert read_yaml(path) == {
        "SEED": 1,
        "NAME": "third",
        "SOLVER": {"BASE_LR": 1.0, "MAX_ITER": 2, "STEPS": [5]},
    }


def test_one_base_by_two_ways_is_no_circle(tmp_path):
    write(tmp_path, "root.yaml", "SEED: 3")
    for name in ("left.yaml", "right.yaml"):
        write(tmp_path, name, "_BASE_: root.yaml")
    assert read_yaml(write(tmp_path, "top.yaml", "_BASE_: [left.yaml, right.yaml]")) == {"SEED": 3}


def test_bases_in_a_circle(tmp_path):
    write(tmp_path, "a.yaml", "_BASE_: b.yaml")
    write(tmp_path, "b.yaml", "_BASE_: ./a.yaml")
    assert "leads back to itself" in refused(read_yaml, tmp_path / "a.yaml")
    assert "leads back to itself" in refused(read_yaml, write(tmp_path, "self.yaml", "_BASE_: self.yaml"))


def test_a_base_that_is_not_there(tmp_path):
    write(tmp_path, "faster_rcnn.yaml", "")
    message = refused(read_yaml, write(tmp_path, "top.yaml", "_BASE_: faster_rcn.yaml"))
    assert "top.yaml" in message
    assert "did you mean 'faster_rcnn.yaml'?" in message


@pytest.mark.parametrize("value", ["3", "[3]", "null", "{a: b}"])
def test_a_base_that_is_no_file_name(tmp_path, value):
    assert "expected a file name" in refused(read_yaml, write(tmp_path, "top.yaml", f"_BASE_: {value}"))


# -- the text of a file


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("SEED: 1\nSEED: 2", "broken.yaml:2: key SEED is given twice"),
        ("SOLVER:\n  MAX_ITER: 1\n  MAX_ITER: 2", "broken.yaml:3: key MAX_ITER is given twice"),
        ("SEED: [1", "not valid YAML"),
        ("SEED: 1\n\tNAME: x", "not valid YAML"),
        ("- 1\n- 2", "a config is a mapping of keys, this is a list"),
        ("just words", "a config is a mapping of keys, this is a str"),
        ("NAME: 2024-02-30", "not valid YAML"),
        ("? [1, 2]\n: 3", "unhashable"),
        ("[" * 5000, "not valid YAML"),
        ("NAME: \x01", "not valid YAML"),
    ],
)
def test_text_that_is_no_config(tmp_path, text, said):
    message = refused(read_yaml, write(tmp_path, "broken.yaml", text))
    assert "broken.yaml" in message
    assert said in message


def test_bytes_that_are_no_text(tmp_path):
    (tmp_path / "binary.yaml").write_bytes(b"\x89PNG\xff\xfe")
    assert "binary.yaml: cannot be read" in refused(read_yaml, tmp_path / "binary.yaml")


def test_an_empty_file_changes_nothing(tmp_path):
    assert read_yaml(write(tmp_path, "empty.yaml", "# all commented out\n")) == {}


# -- keys and values


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"SOLVER": {"BASE_LRR": 1.0}}, "unknown key SOLVER.BASE_LRR; did you mean 'SOLVER.BASE_LR'?"),
        ({"SOLVR": {"BASE_LR": 1.0}}, "unknown key SOLVR; did you mean 'SOLVER'?"),
        ({"solver": {"BASE_LR": 1.0}}, "unknown key solver; did you mean 'SOLVER'?"),
        ({"SOLVER": {"AMP": {"DTYP": "x"}}}, "did you mean 'SOLVER.AMP.DTYPE'?"),
        ({7: 1}, "unknown key 7"),
        ({"SOLVER": 3}, "SOLVER is a section of keys, not a value; got 3"),
        ({"SOLVER": None}, "SOLVER is a section of keys, not a value; got None"),
        ({"SEED": {"A": 1}}, "SEED is {'A': 1}, expected a whole number"),
        ({"SEED": "three"}, "SEED is 'three', expected a whole number"),
        ({"SEED": 1.5}, "SEED is 1.5, expected a whole number"),
        ({"SEED": True}, "SEED is True, expected a whole number"),
        ({"SEED": None}, "SEED is None, expected a whole number"),
        ({"SOLVER": {"BASE_LR": "fast"}}, "SOLVER.BASE_LR is 'fast', expected a number"),
        ({"SOLVER": {"BASE_LR": False}}, "SOLVER.BASE_LR is False, expected a number"),
        ({"SOLVER": {"NESTEROV": 1}}, "SOLVER.NESTEROV is 1, expected True or False"),
        ({"SOLVER": {"NESTEROV": "maybe"}}, "SOLVER.NESTEROV is 'maybe', expected True or False"),
        ({"NAME": [1]}, "NAME is [1], expected text"),
        ({"NAME": True}, "NAME is True, expected text"),
        ({"SOLVER": {"STEPS": "soon"}}, "SOLVER.STEPS is 'soon', expected a tuple such as (60000, 80000)"),
        ({"SOLVER": {"STEPS": ["soon"]}}, "SOLVER.STEPS is ['soon'], expected a tuple"),
        ({"SOLVER": {"STEPS": [True]}}, "expected a tuple"),
        ({"SOLVER": {"STEPS": {"a": 1}}}, "expected a tuple"),
        ({"SOLVER": {"STEPS": "{[]: 1}"}}, "expected a tuple"),
        ({"DATA": {"FEATURES": [4]}}, "DATA.FEATURES is [4], expected a list such as ['res4']"),
        ({"DATA": {"FEATURES": "res4"}}, "DATA.FEATURES is 'res4', expected a list"),
        ({"DATA": {"SIZES": [["big"]]}}, "DATA.SIZES is [['big']], expected a list"),
        ({"DATA": {"TRAIN": None}}, "DATA.TRAIN is None, expected a tuple"),
    ],
)
def test_wrong_keys_and_values(values, said):
    config = defaults()
    message = refused(merge, config, values, "run.yaml")
    assert message.startswith("run.yaml: ")
    assert said in message


@pytest.mark.parametrize(
    ("key", "value", "read"),
    [
        ("SOLVER.BASE_LR", 1, 1.0),
        ("SOLVER.BASE_LR", "1e-3", 1e-3),
        ("SOLVER.STEPS", [1, 2], (1, 2)),
        ("SOLVER.STEPS", "(1, 2)", (1, 2)),
        ("SOLVER.STEPS", 7, (7,)),
        ("SOLVER.STEPS", "()", ()),
        ("DATA.TRAIN", "", ()),
        ("SOLVER.NESTEROV", "true", True),
        ("SOLVER.NESTEROV", "False", False),
        ("SOLVER.BIAS_LR", "0.1", 0.1),
        ("SOLVER.BIAS_LR", "none", None),
        ("DATA.TRAIN", "coco_2017_train", ("coco_2017_train",)),
        ("DATA.TRAIN", "('a', 'b')", ("a", "b")),
        ("DATA.FEATURES", "['res2', 'res3']", ["res2", "res3"]),
        ("DATA.SIZES", "[[16], [32]]", [[16], [32]]),
        ("DATA.RATIOS", (1, 2), [1, 2]),
        ("NAME", 50, "50"),
        ("NAME", "[1, 2]", "[1, 2]"),
        ("NAME", None, ""),
    ],
)
def test_values_take_the_type_of_the_default(key, value, read):
    config = defaults()
    assert merge_overrides(config, [key, value]) == [key]
    assert get(config, key) == read
    assert type(get(config, key)) is type(read)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["SEED"], "'SEED' has no value"),
        (["SEED", "1", "SOLVER.BASE_LR=3"], "'SOLVER.BASE_LR=3' has no value"),
        (["SOLVER.BASELR", "1"], "unknown key SOLVER.BASELR; did you mean 'SOLVER.BASE_LR'?"),
        (["BASE_LR", "1"], "unknown key BASE_LR; did you mean 'SOLVER.BASE_LR'?"),
        (["SOLVER", "1"], "SOLVER is a section of keys"),
        (["SEED.MORE", "1"], "SEED is {'MORE': '1'}, expected a whole number"),
        (["", "1"], "unknown key"),
        (["--sed", "1"], "'--sed' is not a config key"),
        ([3, 4], "3 is not a config key"),
    ],
)
def test_wrong_overrides(overrides, said):
    message = refused(merge_overrides, defaults(), overrides)
    assert message.startswith("command line: ")
    assert said in message


def test_overrides_come_in_order():
    config = defaults()
    assert merge_overrides(config, ["SEED", "1", "NAME", "x", "SEED", "2"]) == ["SEED", "NAME", "SEED"]
    assert (config.SEED, config.NAME) == (2, "x")


def test_a_message_stays_short_however_large_the_value():
    value: list = [0] * 10
    for _ in range(9):
        value = [value] * 10
    assert len(refused(merge, defaults(), {"SOLVER": value}, "laughs.yaml")) < 2000
    assert len(refused(merge, defaults(), {"NAME": value}, "laughs.yaml")) < 2000


# -- comparing and writing


def test_differences():
    a, b = to_plain(defaults()), to_plain(defaults())
    assert differences(a, b) == []
    assert differences(a, defaults()) == []
    merge(config := defaults(), {"SOLVER": {"AMP": {"ENABLED": True}, "STEPS": [1]}, "SEED": 5}, "x")
    assert sorted(differences(a, config)) == ["SEED", "SOLVER.AMP.ENABLED", "SOLVER.STEPS"]
    del b["SOLVER"]["AMP"]
    assert differences(a, b) == ["SOLVER.AMP"]
    assert differences(b, a) == ["SOLVER.AMP"]


def test_dump_round_trip(tmp_path):
    config = defaults()
    merge(
        config,
        {
            "NAME": "on: [ü] # 'x'\n\"y\"",
            "SOLVER": {"BASE_LR": 1e-5, "STEPS": (), "BIAS_LR": 0.1 + 0.2},
            "DATA": {"TRAIN": ("a", "1"), "RATIOS": [1 / 3, math.inf]},
        },
        "x",
    )
    text = dump(config)
    again = defaults()
    merge(again, read_yaml(write(tmp_path, "config.yaml", text)), "config.yaml")
    assert again == config
    assert [type(get(again, key)) for key in ("SOLVER.STEPS", "DATA.TRAIN", "DATA.SIZES")] == [tuple, tuple, list]
    assert dump(again) == text
    assert parse_yaml(text, "dump") == to_plain(config)


def test_each_shipped_config_is_of_one_tool():
    names = {
        "pretrain": (
            "cifar10",
            "finetune_resnet",
            "imagenet_modern",
            "imagenet_plain",
            "imagenet_resnet",
            "imagenet_vgg16",
        ),
        "train_localization": ("imagenet_loc",),
        "train_segmentation": ("voc_fcn", "voc_deeplabv3", "mini_fcn"),
        "train_net": (
            "coco",
            "voc_paper",
            "mini_faster",
            "imagenet_det",
            "finetune_faster",
            "finetune_mask",
            "finetune_retinanet",
            "bccd",
        ),
    }
    for path in CONFIG_FOLDER.glob("*.yaml"):
        (owner,) = [f"tools/{tool}.py" for tool, starts in names.items() if path.name.startswith(starts)]
        values = read_yaml(path)
        check_tool(values, path.name, owner)
        for other in set(KEYS_OF_TOOLS) - {owner}:
            assert f"{path.name}: a config of {owner} (it has " in refused(check_tool, values, path.name, other)
