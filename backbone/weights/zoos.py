"""The tables of names that other libraries bring with them: torchvision, timm, detectron2 and OpenMMLab.

torchvision is here in any case, the others are read where they are installed. detectron2's and OpenMMLab's tables are
read as data: this package does without these libraries, and their import takes seconds.
"""

from __future__ import annotations

import ast
import json
import re
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ..common.errors import WeightsError
from ..common.text import nearest
from .downloads import need

# As detectron2/utils/file_io.py has it, for its detectron2:// names.
DETECTRON2_SERVER = "https://dl.fbaipublicfiles.com/detectron2/"
# The projects of OpenMMLab whose packages bring the names of their trained models.
MM_PROJECTS = ("mmdet", "mmpretrain", "mmcls", "mmseg")


def torchvision_names() -> list[str]:
    """Return the names of torchvision's models."""
    from torchvision.models import list_models

    return list_models()


def torchvision_weights(name: str, model: str, tag: str) -> Any:
    """Return an entry of torchvision's enums.

    Args:
        name: what the user gave, for messages.
        tag: such as "IMAGENET1K_V1"; "" for the default.

    Raises:
        WeightsError: no such model, or no such weights.
    """
    from torchvision.models import get_model_weights

    if model not in torchvision_names():
        raise WeightsError(f"{name}: torchvision has no model {model!r}{nearest(model, torchvision_names())}")
    weights = get_model_weights(model)
    tags = [entry.name for entry in weights]
    if not tags:
        raise WeightsError(f"{name}: torchvision has no weights for {model}")
    if tag not in (*tags, "", "DEFAULT"):
        raise WeightsError(f"{name}: torchvision has no weights {tag!r} of {model}{nearest(tag, tags)}")
    return weights.DEFAULT if tag in ("", "DEFAULT") else weights[tag]


def timm_config(name: str, model: str) -> Any:
    """Return timm's pretrained config of "resnet50.a1_in1k", or of "resnet50" and its default weights.

    Raises:
        WeightsError: timm is not installed, or has no such name.
    """
    need("timm", name)
    from timm.models import get_pretrained_cfg, is_model_pretrained, list_pretrained

    base, _, tag = model.partition(".")
    # With a wrong tag, timm returns another one's config.
    known = list_pretrained()
    if model in known or (not tag and is_model_pretrained(base)):
        return get_pretrained_cfg(model)
    raise WeightsError(f"{name}: timm has no pretrained {model!r}{nearest(model, known)}")


def suggestion(architecture: str) -> str:
    """Return the name of weights that a network may start from; "" where torchvision has none."""
    from torchvision.models import get_model_weights

    known = architecture in torchvision_names() and len(get_model_weights(architecture)) > 0
    return f"torchvision:{architecture}" if known else ""


@cache
def detectron2_table() -> dict[str, str]:
    """Return {name in detectron2's model zoo: path behind DETECTRON2_SERVER}; {} without detectron2."""
    folder = folder_of("detectron2")
    file = folder / "model_zoo" / "model_zoo.py" if folder else None
    if file is None or not file.is_file():
        return {}
    table = _assigned(file, "CONFIG_PATH_TO_URL_SUFFIX")
    return {name: f"{name}/{suffix}" for name, suffix in table.items()}


@cache
def detectron2_files() -> list[str]:
    """Return the detectron2:// names of backbones trained on ImageNet that detectron2 itself uses, or knows."""
    folder = folder_of("detectron2")
    catalog = folder / "checkpoint" / "catalog.py" if folder else None
    if catalog is None or not catalog.is_file():
        return []
    # Others lie on a server of the former Detectron, under numbers.
    table = _assigned(catalog, "C2_IMAGENET_MODELS").items()
    return [f"detectron2://{path}" for name, path in table if path == f"ImageNetPretrained/{name}.pkl"]


def detectron2_url(name: str, model: str) -> str:
    """Return the URL of a name in detectron2's model zoo.

    Raises:
        WeightsError: detectron2 is not installed, or has no such name.
    """
    table = detectron2_table()
    if not table:
        raise WeightsError(
            f"{name}: the names of detectron2's zoo come with detectron2, which is not installed; "
            "run `python tools/install_detectron2.py`"
        )
    model = model.removesuffix(".yaml").removesuffix(".py")
    if model not in table:
        raise WeightsError(f"{name}: detectron2's zoo has no {model!r}{nearest(model, table)}")
    return DETECTRON2_SERVER + table[model]


def detectron2_classes(model: str) -> int | None:
    """Return the number of classes in the config of a name in detectron2's zoo; None where there is no such YAML."""
    folder = folder_of("detectron2")
    file = folder / "model_zoo" / "configs" / f"{model}.yaml" if folder else None
    if file is None or not file.is_file():
        return None
    text = file.read_text(encoding="utf-8")
    found = re.search(r"^ +NUM_CLASSES: (\d+)", text, re.MULTILINE)
    base = re.search(r'^_BASE_: "(.+)\.yaml"', text, re.MULTILINE)
    if found is None and base is not None:
        return detectron2_classes(f"{model.rpartition('/')[0]}/{base[1]}")
    # detectron2's default, as of COCO.
    return int(found[1]) if found else 80


@cache
def openmmlab_table() -> dict[str, str]:
    """Return {name: URL} of MMEngine's tables: its open-mmlab:// names as they are, mmcls:// names with "mmcls/"."""
    folder = folder_of("mmengine")
    found: dict[str, str] = {}
    for file, prefix in (("openmmlab.json", ""), ("mmcls.json", "mmcls/")):
        path = folder / "hub" / file if folder else None
        if path is not None and path.is_file():
            table = json.loads(path.read_text(encoding="utf-8"))
            found |= {prefix + name: url for name, url in table.items()}
    return found


@cache
def openmmlab_models() -> dict[str, dict[str, Any]]:
    """Return {name: entry} of the trained models in the metafiles that MMDetection and its like bring.

    Results is a list in each; MMSegmentation's metafiles have a single one bare.
    """
    found: dict[str, dict[str, Any]] = {}
    for folder in filter(None, map(folder_of, MM_PROJECTS)):
        for path in sorted((folder / ".mim" / "configs").glob("*/metafile.y*ml")):
            import yaml

            content = yaml.load(path.read_text(encoding="utf-8"), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
            models = content.get("Models", []) if isinstance(content, dict) else content
            for model in models or []:
                if model.get("Weights"):
                    results = model.get("Results") or []
                    found[model["Name"]] = {**model, "Results": results if isinstance(results, list) else [results]}
    return found


def openmmlab_url(name: str, model: str) -> str:
    """Return the URL of a name in OpenMMLab's tables.

    Raises:
        WeightsError: none of its packages is installed, or none has such a name.
    """
    table = openmmlab_table()
    if model in table:
        return table[model]
    models = openmmlab_models()
    if not table and not models:
        raise WeightsError(
            f"{name}: OpenMMLab's names come with mmengine (mmdet, mmpretrain), and none is installed; "
            "run `pip install mmengine`, or give the file's URL"
        )
    if model not in models:
        raise WeightsError(f"{name}: OpenMMLab's tables have no {model!r}{nearest(model, [*table, *models])}")
    return models[model]["Weights"]


def folder_of(package: str) -> Path | None:
    """Return where a package is installed, without importing it."""
    spec = find_spec(package)
    places = list(spec.submodule_search_locations or []) if spec else []
    return Path(places[0]) if places else None


def _assigned(file: Path, name: str) -> dict[str, str]:
    """Return the dict that a Python file assigns to `name`, at its top or in a class; {} where there is none."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Assign) and any(isinstance(at, ast.Name) and at.id == name for at in node.targets):
            return ast.literal_eval(node.value)
    return {}
