"""Anchors, boxes and proposals by few operators: the bits of detectron2's, and how many operators a model takes."""

from __future__ import annotations

import copy
import pickle
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.modeling.proposal_generator.rpn import RPN
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

import detection
from detection.modeling import proposals
from detection.modeling.build import build
from detection.modeling.proposals import KeptAnchors, PairedTransform
from detection.modeling.sampling import SparingRPN

GRIDS = [[(8, 12), (4, 6)], [(10, 9), (5, 5)], [(3, 4), (2, 2)], [(10, 12), (5, 6)]]


def maps(sizes):
    return [torch.zeros(1, 1, *size) for size in sizes]


def generators():
    settings = {"sizes": [[32], [64]], "aspect_ratios": [0.5, 1.0, 2.0], "strides": [4, 8], "offset": 0.5}
    return DefaultAnchorGenerator(**settings), KeptAnchors(**settings)


def test_anchors_of_every_size():
    stock, own = generators()
    for sizes in GRIDS:
        for a, b in zip(stock(maps(sizes)), own(maps(sizes)), strict=True):
            assert torch.equal(a.tensor, b.tensor)


def test_what_is_kept_of_anchors_is_nobodys():
    stock, own = generators()
    own(maps(GRIDS[0]))[0].tensor.zero_()
    assert own(maps(GRIDS[0]))[0].tensor.any()
    assert own.__dict__.keys() == stock.__dict__.keys() and list(own.state_dict()) == list(stock.state_dict())
    for twin in (copy.deepcopy(own), pickle.loads(pickle.dumps(own))):
        assert torch.equal(twin(maps(GRIDS[1]))[1].tensor, stock(maps(GRIDS[1]))[1].tensor)
    with torch.inference_mode():
        own(maps([(70, 70), (70, 70)]))
    assert not own(maps(GRIDS[0]))[0].tensor.is_inference()
    with FakeTensorMode(allow_non_fake_inputs=True):
        own(maps([(80, 80), (80, 80)]))
    assert type(own(maps(GRIDS[0]))[0].tensor) is torch.Tensor


def change_cells(generator):
    next(generator.cell_anchors.buffers()).data.mul_(2)


def change_strides(generator):
    generator.strides = [8, 16]


def change_offset(generator):
    generator.offset = 0.0


@pytest.mark.parametrize("change", [change_cells, change_strides, change_offset])
def test_a_generator_that_has_changed(change):
    stock, own = generators()
    own(maps(GRIDS[0]))
    change(stock)
    change(own)
    for sizes in (GRIDS[0][:1], GRIDS[0], GRIDS[0][:1]):
        pairs = zip(stock(maps(sizes)), own(maps(sizes)), strict=True)
        assert all(torch.equal(a.tensor, b.tensor) for a, b in pairs)


def test_little_is_kept_of_anchors():
    stock, own = generators()
    for sizes in ([(3, 5000), (2, 2500)], [(5000, 3), (2500, 2)], [(800, 800), (400, 400)], GRIDS[0]):
        for a, b in zip(stock(maps(sizes)), own(maps(sizes)), strict=True):
            assert torch.equal(a.tensor, b.tensor)
        assert sum(grid.numel() for grid in proposals._KEPT[own].grids) <= 4 * proposals.MOST_CELLS


def test_threads_share_a_generator():
    stock, own = generators()
    wanted = {sizes: [boxes.tensor for boxes in stock(maps(sizes))] for sizes in map(tuple, GRIDS)}
    proposals._KEPT.pop(own, None)

    def right(number):
        sizes = list(wanted)[number % len(wanted)]
        return all(torch.equal(a, b.tensor) for a, b in zip(wanted[sizes], own(maps(sizes)), strict=True))

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(right, range(400)))


@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0, 1.0), (10.0, 10.0, 5.0, 5.0), (10.0, 9.0, 5.0, 4.0)])
@pytest.mark.parametrize("kinds", [1, 80])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_boxes_of_deltas(weights, kinds, dtype):
    generator = torch.Generator().manual_seed(0)
    corners = 400 * torch.rand(301, 2, generator=generator)
    boxes = torch.cat((corners, corners + 200 * torch.rand(301, 2, generator=generator)), dim=1)
    deltas = (4 * torch.randn(301, 4 * kinds, generator=generator)).to(dtype)
    deltas[0, 2], deltas[1, 0] = 60, float("nan")
    stock, own = (kind(weights) for kind in (Box2BoxTransform, PairedTransform))
    found = []
    for transform in (stock, own):
        leaf = deltas.clone().requires_grad_()
        result = transform.apply_deltas(leaf, boxes)
        result[2:].square().sum().backward()
        found.append((result.detach(), leaf.grad))
    for a, b in zip(*found):
        assert a.dtype == b.dtype and torch.equal(a.nan_to_num(-7.0), b.nan_to_num(-7.0))
    assert own.apply_deltas(deltas[:0], boxes[:0]).shape == (0, 4 * kinds)


class Counted(TorchDispatchMode):
    """Counts the operators that make a kernel run."""

    VIEWS = ("view", "slice", "select", "expand", "unsqueeze", "squeeze", "permute", "transpose", "detach", "alias")
    VIEWS += ("split", "unbind", "as_strided", "unfold", "narrow", "lift", "empty")

    def __init__(self):
        super().__init__()
        self.number = 0

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        self.number += not str(function).removeprefix("aten.").startswith(self.VIEWS)
        return function(*arguments, **(keywords or {}))


@pytest.fixture(scope="module")
def model():
    detection.register()
    keys = ["MODEL.DEVICE", "cpu", "MODEL.WEIGHTS", "", "MODEL.FPN.OUT_CHANNELS", 16, "MODEL.ROI_BOX_HEAD.FC_DIM", 16]
    torch.manual_seed(0)
    return build(detection.get_config("coco_faster_rcnn_r50_fpn.yaml", keys)).eval()


def proposals_of(rpn, kind, sizes, spoil=False, levels=5):
    torch.manual_seed(1)
    grids = [(16, 24), (8, 12), (4, 6), (2, 3), (1, 2)][:levels]
    anchors = rpn.anchor_generator([torch.zeros(1, 1, *grid) for grid in grids])
    logits = [torch.randn(len(sizes), len(level)) for level in anchors]
    deltas = [torch.randn(len(sizes), len(level), 4) for level in anchors]
    if spoil:
        logits[1][0, 3], deltas[2][-1, 5] = float("inf"), float("nan")
    return kind.predict_proposals(rpn, anchors, logits, deltas, sizes)


@pytest.mark.parametrize("spoil", [False, True])
@pytest.mark.parametrize("least", [0.0, 24.0])
def test_proposals_of_a_test(model, monkeypatch, spoil, least):
    rpn = model.proposal_generator
    monkeypatch.setattr(rpn, "min_box_size", least)
    monkeypatch.setattr(rpn, "pre_nms_topk", {False: 300, True: 300})
    sizes = [(64, 90), (50, 96)]
    for a, b in zip(*(proposals_of(rpn, kind, sizes, spoil) for kind in (RPN, SparingRPN)), strict=True):
        assert torch.equal(a.proposal_boxes.tensor, b.proposal_boxes.tensor) and len(a) > 5
        assert torch.equal(a.objectness_logits, b.objectness_logits) and a.image_size == b.image_size


def test_operators_of_an_image(model):
    """So many kernels a GPU is given one by one: detectron2's own modules take over 600 for the same network."""
    image = torch.randint(256, (3, 64, 96), dtype=torch.uint8)
    with torch.inference_mode():
        model([{"image": image}])
        with Counted() as counted:
            model([{"image": image}])
    # Of NMS by class on a CPU, some for each class that is found.
    assert counted.number < 490


def test_frozen_norms_are_made_at_once(model):
    with Counted() as counted:
        model.backbone.bottom_up(torch.zeros(1, 3, 64, 64))
    # 53 convolutions, as many scaled weights, 49 ReLU, 16 sums; the norms take nine.
    assert counted.number < 53 * 2 + 49 + 16 + 30
