"""RoIAlign on all threads against torchvision's operator on one: values and gradients."""

from __future__ import annotations

import pytest
import torch
from detectron2.layers import ROIAlign
from detectron2.modeling.poolers import ROIPooler
from detectron2.structures import Boxes
from small_detectors import settings_of
from torch import nn

from detection.modeling.build import build
from detection.modeling.roi_align import ThreadedROIAlign, use_all_threads


@pytest.fixture(autouse=True)
def three_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


def boxes(number: int, generator: torch.Generator) -> torch.Tensor:
    """Boxes in and across the border of an image of 300 x 400, some without area."""
    corner = torch.rand(number, 2, generator=generator) * 420 - 40
    extent = torch.rand(number, 2, generator=generator) * 200
    extent[::9] = 0
    return torch.cat([corner, corner + extent], dim=1)


def pooled(pooler: nn.Module, maps: list[torch.Tensor], regions: list[Boxes]) -> list[torch.Tensor]:
    """Return what is pooled, and the gradients of the maps."""
    maps = [level.clone().requires_grad_() for level in maps]
    found = pooler(maps, regions)
    found.backward(torch.arange(found.numel(), dtype=torch.float32).view(found.shape).sin())
    return [found.detach(), *(level.grad for level in maps)]


@pytest.mark.parametrize("kind", ["ROIAlign", "ROIAlignV2"])
@pytest.mark.parametrize("sampling_ratio", [0, 2])
@pytest.mark.parametrize("scales", [(1 / 16,), (1 / 8, 1 / 16, 1 / 32)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_values_and_gradients_are_torchvisions(kind, sampling_ratio, scales, layout):
    generator = torch.Generator().manual_seed(0)
    maps = [torch.randn(2, 11, round(300 * s), round(400 * s), generator=generator) for s in scales]
    maps = [level.contiguous(memory_format=layout) for level in maps]
    regions = [Boxes(boxes(number, generator)) for number in (90, 70)]
    pooler = ROIPooler(7, scales, sampling_ratio, kind)
    wanted = pooled(pooler, maps, regions)
    use_all_threads(pooler)
    assert all(type(level) is ThreadedROIAlign for level in pooler.level_poolers)
    for one, other in zip(pooled(pooler, maps, regions), wanted, strict=True):
        assert torch.equal(one, other)


def test_no_regions_and_watched_layers():
    align = ROIAlign((7, 7), 1 / 16, 0)
    align.register_forward_hook(lambda *_: None)
    use_all_threads(align)
    assert type(align) is ROIAlign
    pooler = ROIPooler(7, (1 / 16,), 0, "ROIAlignV2")
    use_all_threads(pooler)
    assert pooler([torch.zeros(1, 3, 10, 10)], [Boxes(torch.zeros(0, 4))]).shape == (0, 3, 7, 7)


def test_a_built_detector_has_it_for_boxes_and_masks():
    model = build(settings_of("mask"))
    pooled = [module for module in model.roi_heads.modules() if isinstance(module, ROIAlign)]
    assert len(pooled) == 8 and {type(module) for module in pooled} == {ThreadedROIAlign}
