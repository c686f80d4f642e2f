"""What is imported when, and what is said where detectron2 or its compiled part is missing."""

from __future__ import annotations

import json
import subprocess
import sys
import types
from pathlib import Path

import pytest

from backbone.common.errors import RunError
from detection import compat

ROOT = Path(__file__).resolve().parents[2]

# Finders that do not see detectron2, as on a machine without it.
WITHOUT_DETECTRON2 = """
import sys

class Without:
    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "detectron2":
            return None
        return self.finder.find_spec(name, path, target)

sys.meta_path = [Without(finder) for finder in sys.meta_path]
"""
NETWORK_RUNS = """
import torch
import backbone
features = backbone.create("resnet18", norm="frozen_bn", freeze_at=2)(torch.zeros(1, 3, 64, 64))
assert list(features) == ["res2", "res3", "res4", "res5"]
"""


def python(code: str, *arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=120
    )


def modules_after(code: str) -> set[str]:
    """Return the names of the modules that are loaded once `code` has run."""
    done = python(f"import sys, json\n{code}\nprint(json.dumps(list(sys.modules)))")
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_backbone_imports_neither_detection_nor_its_libraries():
    loaded = modules_after(NETWORK_RUNS)
    assert "torch" in loaded
    others = {"detectron2", "detection", "PIL", "cv2", "pycocotools", "yacs", "fvcore", "hotcoco", "tensorboard"}
    assert not loaded & others
    # torch and torchvision are all that it may ask for; it asks for torchvision nowhere on the way here.
    assert "torchvision" not in loaded


def test_importing_detection_does_nothing_but_close_the_gaps():
    loaded = modules_after("import detection")
    assert not loaded & {"detectron2", "cv2", "torchvision", "pycocotools", "orjson", "yaml", "yacs", "fvcore"}
    inside = {name for name in loaded if name.startswith("detection.")}
    assert inside == {"detection.compat"}


@pytest.fixture(scope="module")
def without_detectron2(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("without") / "run.py"
    path.write_text(
        f"{WITHOUT_DETECTRON2}\nimport runpy\nsys.argv = sys.argv[1:]\nrunpy.run_path(sys.argv[0], run_name='__main__')"
    )
    return path


def test_backbone_works_and_detection_says_what_to_do_without_detectron2():
    done = python(
        f"""{WITHOUT_DETECTRON2}{NETWORK_RUNS}
import detection
assert "detectron2._C" not in sys.modules
for call in (detection.register, lambda: detection.get_config("mini_faster_rcnn_r18.yaml")):
    try:
        call()
    except backbone.RunError as error:
        print(error)
"""
    )
    assert done.returncode == 0, done.stderr
    message = "detectron2 is not installed; run `python tools/install_detectron2.py`"
    assert done.stdout.splitlines() == [message, message]
    assert (ROOT / "tools" / "install_detectron2.py").is_file()


@pytest.mark.parametrize(
    "command",
    [
        ["tools/train_net.py", "--config", "mini_faster_rcnn_r18.yaml"],
        ["tools/predict.py", "--weights", "model.pth", "--input", "images", "--output", "out"],
    ],
)
def test_commands_say_what_to_do_without_detectron2(without_detectron2, command):
    done = subprocess.run(
        [sys.executable, str(without_detectron2), *command], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "python tools/install_detectron2.py" in done.stderr


def test_stub_names_the_mend():
    stub = compat._MissingExtension("detectron2._C")
    with pytest.raises(RunError, match=r"deform_conv_forward needs it; run .*install_detectron2.py --from-source"):
        stub.deform_conv_forward(1, 2)
    # Pickle, and with it torch.compile, looks for a function in every module.
    assert not hasattr(stub, "torch")
    # What Python itself asks of any module stays answered as for a plain one.
    assert not hasattr(stub, "__file__")
    assert stub.__name__ == "detectron2._C"


@pytest.mark.skipif(compat.has_compiled_part(), reason="detectron2 has its compiled part here")
def test_what_needs_the_compiled_part_gets_the_stub():
    import torch
    from detectron2.layers.rotated_boxes import pairwise_iou_rotated

    with pytest.raises(RunError, match="box_iou_rotated needs it.*--from-source"):
        pairwise_iou_rotated(torch.zeros(1, 5), torch.zeros(1, 5))


@pytest.mark.skipif(compat.has_compiled_part(), reason="detectron2 has its compiled part here")
def test_detectron2_can_report_its_environment():
    """People's own training scripts call its default_setup, which does."""
    from detectron2.utils.collect_env import collect_env_info

    assert "not compiled" in collect_env_info()


def test_a_compiled_part_is_not_covered_up(monkeypatch):
    monkeypatch.setattr(compat, "has_compiled_part", lambda: True)
    monkeypatch.delitem(sys.modules, "detectron2._C", raising=False)
    compat.close_gaps()
    assert "detectron2._C" not in sys.modules


def test_compiled_part_is_found_by_its_file(monkeypatch, tmp_path):
    monkeypatch.setattr(compat, "detectron2_folder", lambda: tmp_path)
    assert not compat.has_compiled_part()
    (tmp_path / "_C.cpython-312-x86_64-linux-gnu.so").touch()
    assert compat.has_compiled_part()
    monkeypatch.setattr(compat, "detectron2_folder", lambda: None)
    assert not compat.has_compiled_part()


def test_closing_the_gaps_twice_changes_nothing(monkeypatch):
    real = types.ModuleType("detectron2._C")
    monkeypatch.setitem(sys.modules, "detectron2._C", real)
    compat.close_gaps()
    compat.close_gaps()
    assert sys.modules["detectron2._C"] is real


def test_pillow_has_the_name_that_detectron2_asks_for(monkeypatch):
    import PIL.Image

    monkeypatch.delattr(PIL.Image, "LINEAR", raising=False)
    compat.close_gaps()
    assert PIL.Image.LINEAR == PIL.Image.BILINEAR


# -- what a user's own detectron2 code meets


def test_detectron2s_evaluator_gives_figures_with_its_defaults(tmp_path):
    """Its fast evaluation is compiled; ours stands in, and both are pycocotools' figures."""
    import detectron2.data.datasets as sets
    import numpy as np
    import torch
    from detectron2.data import DatasetCatalog, MetadataCatalog
    from detectron2.evaluation import COCOEvaluator
    from detectron2.structures import Boxes, Instances

    from detection.evaluation import evaluate_coco, load_ground_truth

    random = np.random.default_rng(0)
    images = [{"id": number, "file_name": f"{number}.jpg", "width": 80, "height": 60} for number in range(1, 6)]
    boxes = [
        [random.integers(0, 40), random.integers(0, 30), random.integers(8, 40), random.integers(8, 30)]
        for _ in range(20)
    ]
    boxes = [[float(value) for value in box] for box in boxes]
    data = {
        "info": {},
        "images": images,
        "categories": [{"id": 3, "name": "cat"}, {"id": 7, "name": "dog"}],
        "annotations": [
            {
                "id": place + 1,
                "image_id": place % 5 + 1,
                "category_id": (3, 7)[place % 2],
                "bbox": box,
                "area": box[2] * box[3],
                "iscrowd": 0,
            }
            for place, box in enumerate(boxes)
        ],
    }
    path = tmp_path / "instances.json"
    path.write_text(json.dumps(data))
    sets.register_coco_instances("compat_evaluation", {}, str(path), str(tmp_path))
    try:
        DatasetCatalog.get("compat_evaluation")  # tells the metadata what the category ids mean
        evaluator = COCOEvaluator("compat_evaluation", output_dir=str(tmp_path / "out"))
        evaluator.reset()
        for image in images:
            found = Instances((60, 80))
            own = [a for a in data["annotations"] if a["image_id"] == image["id"]]
            corners = torch.tensor([[x, y, x + w, y + h] for x, y, w, h in (a["bbox"] for a in own)])
            found.pred_boxes = Boxes(corners + torch.from_numpy(random.normal(0, 2, corners.shape)).float())
            found.scores = torch.from_numpy(random.random(len(own))).float()
            found.pred_classes = torch.tensor([a["category_id"] == 7 for a in own]).long()
            evaluator.process([{"image_id": image["id"]}], [{"instances": found}])
        theirs = evaluator.evaluate()["bbox"]
        predictions = json.loads((tmp_path / "out" / "coco_instances_results.json").read_text())
        ours = evaluate_coco(load_ground_truth(data, "bbox"), predictions, "bbox").to_json()["bbox"]
        for name in ("AP", "AP50", "AP75", "APs"):
            assert theirs[name] == pytest.approx(100 * ours[name], abs=1e-9), name
    finally:
        DatasetCatalog.remove("compat_evaluation")
        MetadataCatalog.remove("compat_evaluation")


def _odd(value: int) -> int | None:
    return value if value % 2 else None


def test_a_mapped_set_takes_another_element_for_one_that_is_left_out():
    import pickle

    from detectron2.data import MapDataset

    mapped = MapDataset([1, 2, 3, 4, 5], _odd)
    assert [mapped[0], mapped[2]] == [1, 3] and mapped[1] in (1, 3, 5)
    assert pickle.loads(pickle.dumps(mapped))[3] in (1, 3, 5)


def test_what_needs_caffe2_says_so_and_the_rest_is_there():
    import detectron2.export
    from detectron2.utils import analysis

    assert detectron2.export.TracingAdapter and analysis.parameter_count
    with pytest.raises(RunError, match="Caffe2Tracer needs Caffe2, .*export_detector.py"):
        from detectron2.export import Caffe2Tracer  # noqa: F401
    with pytest.raises(RunError, match="export_onnx_model needs Caffe2"):
        from detectron2.export.api import export_onnx_model  # noqa: F401
    assert not hasattr(detectron2.export, "no_such_name")


@pytest.mark.skipif(compat.has_compiled_part(), reason="detectron2's compiled part is installed")
def test_rotated_boxes_say_what_they_need():
    import torch
    from detectron2.layers import ROIAlignRotated, nms_rotated
    from detectron2.structures import RotatedBoxes, pairwise_iou_rotated

    boxes = torch.tensor([[10.0, 10, 5, 5, 0], [12, 10, 5, 5, 30]])
    calls = {
        "box_iou_rotated": lambda: pairwise_iou_rotated(RotatedBoxes(boxes), RotatedBoxes(boxes)),
        "nms_rotated": lambda: nms_rotated(boxes, torch.ones(2), 0.5),
        "roi_align_rotated_forward": lambda: ROIAlignRotated((7, 7), 1.0, 0)(
            torch.rand(1, 3, 20, 20), torch.cat([torch.zeros(2, 1), boxes], dim=1)
        ),
    }
    for name, call in calls.items():
        with pytest.raises(RunError, match=f"{name} needs it; run .*install_detectron2.py --from-source"):
            call()
