"""The copy that inference runs on finds what the model itself finds, and follows its weights."""

from __future__ import annotations

import copy
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

import detection
from backbone import ConfigError
from backbone.common.images import find_images, read_image
from backbone.common.mini_set import mini_set_root

detection.register()

from detectron2.layers import Conv2d, FrozenBatchNorm2d, get_norm  # noqa: E402
from detectron2.modeling.roi_heads import StandardROIHeads  # noqa: E402
from randomize import randomize, relative_error  # noqa: E402
from small_detectors import KINDS, detector, level_out, settings_of  # noqa: E402

from detection.engine.task import DetectionTask  # noqa: E402
from detection.evaluation import evaluate_coco  # noqa: E402
from detection.inference import methods as testing  # noqa: E402
from detection.inference.detector import Detector  # noqa: E402
from detection.inference.fast import fast_copy  # noqa: E402
from detection.inference.run import detect, to_coco  # noqa: E402
from detection.inference.transform import TestTransform  # noqa: E402
from detection.modeling.backbone import network_of  # noqa: E402
from detection.modeling.testing import Network, Pipeline  # noqa: E402

SIZES = {"INPUT__MIN_SIZE_TEST": 128, "INPUT__MAX_SIZE_TEST": 200, "MODEL__ROI_HEADS__SCORE_THRESH_TEST": 0.05}
PLACES = {"MODEL__RPN__PRE_NMS_TOPK_TEST": 200, "MODEL__RPN__POST_NMS_TOPK_TEST": 30}


@pytest.fixture(scope="module")
def images(shared_data) -> list:
    real = find_images(shared_data / "coco" / "val2017")[:2]
    return [read_image(path) for path in (*real, *find_images(Path(mini_set_root()) / "val")[:1])]


@pytest.fixture(scope="module")
def models(images) -> dict:
    """Of each kind: its config and a detector that is sure of some things."""
    found = {}
    for kind in KINDS:
        config = settings_of(kind, **SIZES, **PLACES)
        model = level_out(detector(config), TestTransform(config)(images[0]))
        with torch.no_grad():
            # Logits no farther apart than those of trained detectors; a random VGG, without norms, rounds the most.
            for tensor in model.roi_heads.box_predictor.cls_score.parameters():
                tensor.mul_(0.25 if kind == "vgg" else 0.5)
        found[kind] = config, model
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_float32_finds_the_same(kind, models, images):
    config, model = models[kind]
    before = {name: tensor.sum() for name, tensor in model.state_dict().items()}
    fast = fast_copy(model)
    truth, found = {"images": [], "annotations": [], "categories": [{"id": n, "name": str(n)} for n in (1, 2, 3)]}, {}
    for number, image in enumerate(images):
        sample = TestTransform(config)(image)
        plain, same = detect(model, [sample])[0], detect(fast, [sample])[0]
        assert len(plain) == len(same) > 4 and plain.pred_classes.equal(same.pred_classes)
        assert (plain.pred_boxes.tensor - same.pred_boxes.tensor).abs().max() < 0.01
        assert (plain.scores - same.scores).abs().max() < 1e-5
        if plain.has("pred_masks"):
            assert (plain.pred_masks != same.pred_masks).float().mean() < 1e-4
        for name, instances in (("plain", plain), ("fast", same)):
            found.setdefault(name, []).extend(to_coco(instances, number, [1, 2, 3]))
        # Objects a little beside every second detection.
        truth["images"].append({"id": number, "height": image.shape[0], "width": image.shape[1]})
        for record in to_coco(plain[::2], number, [1, 2, 3]):
            x, y, width, height = record["bbox"]
            box = [x + 0.1 * width, y, width, height]
            own = {"id": len(truth["annotations"]) + 1, "bbox": box, "area": width * height, "iscrowd": 0}
            truth["annotations"].append({**record, **own, "segmentation": [[x, y, x + width, y, x, y + height]]})
    first, second = (evaluate_coco(truth, found[name]).to_json()["bbox"]["AP"] for name in ("plain", "fast"))
    assert first > 0.02 and round(first, 4) == round(second, 4)
    # The model is as it was, and has lent what nothing was folded into.
    assert all(torch.equal(before[name], tensor.sum()) for name, tensor in model.state_dict().items())
    assert not any(isinstance(module, nn.BatchNorm2d) for module in fast.modules())
    ours, theirs = model.roi_heads.box_predictor.cls_score, fast.roi_heads.box_predictor.cls_score
    assert ours.weight.data_ptr() == theirs.weight.data_ptr() and ours.weight.requires_grad
    assert not any(weight.requires_grad or weight.grad is not None for weight in fast.parameters())


@pytest.mark.parametrize("kind", ["c4", "mask"])
def test_bfloat16_finds_nearly_the_same(kind, models, images):
    config, model = models[kind]
    image = TestTransform(config)(images[0])["image"]
    fast = fast_copy(model, "bfloat16")
    plain, low = Network(model), Network(fast)
    with torch.inference_mode():
        maps, low_maps = plain.maps(image), low.maps(image)
        for name, features in maps.features.items():
            assert low_maps.features[name].dtype == torch.bfloat16
            assert relative_error(low_maps.features[name].float(), features) < 0.05
        boxes = plain.proposals(maps)[:10]
        assert low.proposals(low_maps).dtype == torch.float32
        exact, near = (net.predict(net.pool(of, boxes), boxes) for net, of in ((plain, maps), (low, low_maps)))
        assert near.scores.dtype == near.boxes.dtype == torch.float32
        assert (exact.scores - near.scores).abs().mean() < 0.02
        agree = exact.scores.argmax(1) == near.scores.argmax(1)
        assert agree.float().mean() > 0.9
        if kind == "c4":
            return
        found = fast([{"image": image}])[0]["instances"]
    assert found.pred_boxes.tensor.dtype == found.scores.dtype == torch.float32
    # Coordinates of bfloat16 would be whole numbers from 128 on.
    assert (found.pred_boxes.tensor % 1 > 0).any() and len(found) == found.pred_masks.shape[0] > 5


@pytest.mark.parametrize("norm", ["BN", "FrozenBN", "GN"])
def test_norms_of_pyramid_and_heads(norm, images):
    changes = {f"MODEL__{name}__NORM": norm for name in ("FPN", "ROI_BOX_HEAD", "ROI_MASK_HEAD", "RESNETS")}
    heads = {"MODEL__ROI_BOX_HEAD__NUM_CONV": 1, "MODEL__ROI_BOX_HEAD__NAME": "FastRCNNConvFCHead"}
    widths = dict.fromkeys(("MODEL__FPN__OUT_CHANNELS", "MODEL__ROI_BOX_HEAD__CONV_DIM"), 32)
    config = settings_of("mask", **SIZES, **changes, **heads, **widths, MODEL__ROI_MASK_HEAD__CONV_DIM=32)
    model, sample = detector(config), TestTransform(config)(images[0])
    if norm != "GN":
        randomize(model.backbone), randomize(model.roi_heads.box_head), randomize(model.roi_heads.mask_head)
    fast = fast_copy(level_out(model, sample))
    plain, same = (detect(net, [sample])[0] for net in (model, fast))
    assert len(plain) == len(same) and (plain.scores - same.scores).abs().max() < 1e-5
    assert (plain.pred_boxes.tensor - same.pred_boxes.tensor).abs().max() < 0.01
    left = [module for module in fast.modules() if isinstance(module, (nn.BatchNorm2d, FrozenBatchNorm2d))]
    assert not left
    assert any(isinstance(module, nn.GroupNorm) for module in fast.modules()) == (norm == "GN")
    # detectron2's FPN calls its layers from lists of its own.
    assert fast.backbone.output_convs[0] is fast.backbone.fpn_output5


class OwnHead(nn.Module):
    """A box head that uses its layers in its own way: the norm alone, and no convolution."""

    def __init__(self, like: nn.Module) -> None:
        super().__init__()
        self.conv = Conv2d(16, 16, 1, norm=get_norm("BN", 16))
        self.like = like
        self.seen: list[torch.dtype] = []

    def forward(self, pooled: torch.Tensor) -> torch.Tensor:
        self.seen.append(pooled.dtype)
        return self.like(self.conv.norm(pooled))


class OwnHeads(StandardROIHeads):
    def _forward_box(self, features, proposals):
        OwnHeads.seen = {value.dtype for value in features.values()}
        return super()._forward_box(features, proposals)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_unknown_modules_run_as_they_are(precision, models, images):
    config, model = models["fpn"]
    model, sample = copy.deepcopy(model), TestTransform(config)(images[0])
    model.roi_heads.box_head = OwnHead(model.roi_heads.box_head)
    fast = fast_copy(model.eval(), precision)
    plain, same = (detect(net, [sample])[0] for net in (model, fast))
    own = fast.roi_heads.box_head
    assert type(own.conv) is Conv2d and own.conv.norm is not None and own.conv.weight.dtype == torch.float32
    assert set(own.seen) == {torch.float32}
    if precision == "float32":
        assert (plain.scores - same.scores).abs().max() < 1e-5
    model.roi_heads.__class__ = OwnHeads
    fast = fast_copy(model, precision)
    detect(fast, [sample])
    assert OwnHeads.seen == {torch.float32}
    assert {weight.dtype for weight in fast.roi_heads.parameters()} == {torch.float32}


def test_a_module_that_cannot_be_copied_leaves_the_model(models, images, caplog):
    _, model = models["fpn"]
    model = copy.copy(model)
    model.lock = (index for index in range(3))
    assert fast_copy(model) is model
    assert "cannot be copied" in caplog.text


def test_detector_follows_its_weights(models, images):
    config, model = models["fpn"]
    model = copy.deepcopy(model)
    found = Detector(model, config, ["a", "b", "c"], [1, 2, 3])
    first = found.tested
    assert found.tested is first
    with torch.no_grad():
        network_of(model).conv1.weight.mul_(-1)
    assert found.tested is not first
    expected = detect(model, [TestTransform(config)(images[0])])[0]
    same = found.detect(images[0])
    assert len(same) == len(expected) and (same.scores - expected.scores).abs().max() < 1e-5
    second, seen = found.tested, []
    handle = network_of(model).layer1.register_forward_hook(lambda *_: seen.append(1))
    assert found.tested is not second
    found.detect(images[0])
    assert seen
    handle.remove()


def test_evaluation_in_training_runs_on_the_weights_of_the_moment(models, monkeypatch):
    config, model = models["fpn"]
    tested, model = [], copy.deepcopy(model)
    train = SimpleNamespace(labels=torch.tensor([0]).numpy(), crowd=torch.tensor([False]).numpy())
    test = SimpleNamespace(has_truth=True, images=SimpleNamespace(name="set"))
    sets = SimpleNamespace(test=[test], train=train, classes=["a", "b", "c"])
    task = DetectionTask(model, sets, config)
    monkeypatch.setattr(task, "_evaluate_set", lambda net, *_: tested.append(net) or {})
    task.evaluate(final=False)
    with torch.no_grad():
        network_of(model).bn1.weight.mul_(2)
    task.evaluate(final=False)
    first, second = (net.backbone.bottom_up.conv1.weight for net in tested)
    assert torch.allclose(first * 2, second) and not torch.equal(first, second)
    assert model.training is False and any(weight.requires_grad for weight in model.parameters())


def test_methods_run_on_the_copy_and_compile_is_obeyed(models, images, monkeypatch):
    config, model = models["fpn"]
    config = config.clone()
    config.defrost()
    config.TEST.FLIP = config.TEST.COMPILE = True
    compiled = []
    monkeypatch.setattr(nn.Module, "compile", lambda module, **_: compiled.append(module))
    sample = TestTransform(config)(images[0])
    pipeline = testing.as_tested(model, config, ["a", "b", "c"])
    assert isinstance(pipeline, Pipeline) and compiled == [network_of(pipeline.networks[0].model)]
    expected, found = (detect(net, [sample])[0] for net in (Pipeline([Network(model)], pipeline.methods), pipeline))
    assert len(found) == len(expected) and (found.scores - expected.scores).abs().max() < 1e-5
    testing.as_tested(model, config, ["a", "b", "c"], may_compile=False)
    assert len(compiled) == 1
    fast = fast_copy(models["c4"][1], compile=True)
    assert compiled[1:] == [fast.backbone, fast.roi_heads.res5]


def test_precision_is_checked():
    with pytest.raises(ConfigError, match=r"TEST\.PRECISION.*float32, bfloat16, float16"):
        detection.get_config("mini_faster_rcnn_r18.yaml", ["TEST.PRECISION", "bf16"])
