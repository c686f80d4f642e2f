"""detectron2's convolutions by Winograd's form: they learn the same, and are folded as the others are."""

from __future__ import annotations

import copy

import torch
from detectron2.layers import Conv2d, FrozenBatchNorm2d
from torch import nn
from torch.nn import functional as F

from backbone.networks.conv_norm import FoldedConv, use_winograd
from detection.inference.fast import fast_copy
from detection.modeling.winograd_layer import WinogradLayer


def pair_of_layers() -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    norm = FrozenBatchNorm2d(128)
    norm.weight.uniform_(0.5, 2)
    layer = Conv2d(128, 128, 3, padding=1, bias=False, norm=norm, activation=F.relu)
    plain = nn.ModuleList([layer, Conv2d(128, 128, 3, padding=1)])
    quick = copy.deepcopy(plain)
    use_winograd(quick, {Conv2d: WinogradLayer})
    assert [type(layer) for layer in quick] == [WinogradLayer] * 2
    return plain, quick


def test_values_and_gradients():
    x, found = torch.randn(1, 128, 33, 34), []
    for layers in pair_of_layers():
        given = x.clone().requires_grad_()
        out = layers[1](layers[0](given))
        out.backward(torch.linspace(-1, 1, out.numel()).view(out.shape))
        found.append([out.detach(), given.grad, *(parameter.grad for parameter in layers.parameters())])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=2e-5 * float(one.abs().max()))


def test_the_copy_for_inference_folds_them():
    plain, quick = pair_of_layers()
    fast, x = fast_copy(quick), torch.randn(1, 128, 12, 12)
    assert [type(layer) for layer in fast] == [FoldedConv] * 2
    with torch.no_grad():
        torch.testing.assert_close(fast[1](fast[0](x)), plain[1](plain[0](x)), rtol=1e-4, atol=1e-4)
