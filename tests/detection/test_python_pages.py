"""README.md and the pages on detection from Python: the Python blocks of a page run one after the other."""

from __future__ import annotations

import json
import re
from pathlib import Path

import cv2
import pytest

import backbone
import detection
from backbone.common.mini_set import mini_set_root
from backbone.engine import extensions, hooks, loggers

detection.register()

from detectron2.data import DatasetCatalog, MetadataCatalog  # noqa: E402
from detectron2.modeling import ROI_HEADS_REGISTRY  # noqa: E402
from small_detectors import photo, save_detector  # noqa: E402

from detection.data import transforms  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
# Small images and few proposals, where a page trains; written behind a line that it has.
WORKERS = "DATALOADER__NUM_WORKERS=0,"
QUICK = f"{WORKERS} INPUT__MIN_SIZE_TRAIN=(64,), INPUT__MIN_SIZE_TEST=64, TEST__PICTURES=0, SOLVER__IMS_PER_BATCH=2,"
# The same of classifiers.
FROZEN = "MODEL__FREEZE_AT=2,"
SMALL = f"{FROZEN} INPUT__TRAIN_SIZE=32, SOLVER__IMS_PER_BATCH=2, DATALOADER__NUM_WORKERS=0,"
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)
# How many blocks a page has; of README.md, those on detectors.
PAGES = {
    "README.md": 1,
    "docs/python.md": 6,
    "docs/extending.md": 4,
    "docs/from_detectron2.md": 2,
    "docs/from_mmdetection.md": 1,
    "docs/from_torchvision.md": 2,
}


def blocks_of(page: str) -> list[str]:
    """Return the blocks, each behind as many empty lines as stand before it: a traceback shows the page's lines."""
    text = (ROOT / page).read_text(encoding="utf-8")
    found = [("\n" * text.count("\n", 0, match.start(1)) + match[1]) for match in BLOCK.finditer(text)]
    return [block for block in found if page != "README.md" or "import detection" in block]


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    """A working directory with what the pages name; what they register is forgotten."""
    for module, name in (
        (hooks, "_makers"),
        (loggers, "_makers"),
        (extensions, "_extensions"),
        (transforms, "_transforms"),
    ):
        monkeypatch.setattr(module, name, dict(getattr(module, name)))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "output" / "quickstart").mkdir(parents=True)
    file = save_detector(tmp_path / "model_best.pth", ["cat", "dog", "owl"], [17, 18, 90])
    (tmp_path / "output" / "quickstart" / "model_best.pth").symlink_to(file)
    cv2.imwrite("street.jpg", photo(90, 120, 0))
    (tmp_path / "output" / "finetune_resnet50").mkdir()
    classifier = backbone.create("resnet18", num_classes=3, norm="bn")
    backbone.save_weights(classifier, "resnet18.pth", metadata={"classes": ["cat", "dog", "owl"]})
    (tmp_path / "output" / "finetune_resnet50" / "model_best.pth").symlink_to(tmp_path / "resnet18.pth")
    for number, name in enumerate(("rose", "rose", "tulip", "tulip")):
        (tmp_path / "flowers" / name).mkdir(parents=True, exist_ok=True)
        cv2.imwrite(f"flowers/{name}/{number}.jpg", photo(40, 40, number))
    (tmp_path / "images").symlink_to(mini_set_root() / "val")
    (tmp_path / "annotations").mkdir()
    data = json.loads((mini_set_root() / "annotations" / "instances_val.json").read_text())
    data["images"] = data["images"][:4]
    kept = {image["id"] for image in data["images"]}
    data["annotations"] = [record for record in data["annotations"] if record["image_id"] in kept]
    for split in ("train", "val"):
        (tmp_path / "annotations" / f"{split}.json").write_text(json.dumps(data))
    yield tmp_path
    for registry, name in ((DatasetCatalog, "streets"), (MetadataCatalog, "streets")):
        if name in registry.list():
            registry.remove(name)
    ROI_HEADS_REGISTRY._obj_map.pop("MyHeads", None)


@pytest.mark.parametrize("page", PAGES)
def test_blocks_run(page, place):
    names: dict[str, object] = {"__name__": "page"}
    blocks = blocks_of(page)
    assert len(blocks) == PAGES[page]
    for block in blocks:
        exec(compile(block.replace(WORKERS, QUICK).replace(FROZEN, SMALL), str(ROOT / page), "exec"), names)
    if "found.jpg" in "".join(blocks):
        assert (place / "found.jpg").is_file()


def test_the_notebook_runs(place):
    """Its cells one after the other, with fewer steps; no outputs are stored."""
    book = json.loads((ROOT / "docs" / "quickstart.ipynb").read_text())
    names: dict[str, object] = {"__name__": "notebook"}
    for cell in book["cells"]:
        if cell["cell_type"] == "code":
            assert (cell["outputs"], cell["execution_count"]) == ([], None)
            text = "".join(cell["source"]).replace("ITERATIONS = 300", "ITERATIONS = 1")
            text = text.replace("overwrite=True,", f"overwrite=True, {QUICK}")
            exec(compile(text, "quickstart.ipynb", "exec"), names)
    assert len(names["results"]) == 8 and isinstance(names["records"], list)
