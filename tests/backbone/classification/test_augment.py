"""Augmentation of batches against plain loops over images, and the draws' distributions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import stats
from torch.nn import functional as F
from torchvision.transforms import functional

from backbone.classification.data.augment import (
    EIGENVALUES,
    EIGENVECTORS,
    cutmix,
    lighting,
    mixup,
    normalise,
    pad_crop_flip,
    resize_batch,
)
from backbone.common.errors import ConfigError


def batch(number: int = 16, side: int = 12, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(1, 256, (number, 3, side, side), dtype=torch.uint8, generator=generator)


def random(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def windows(image: torch.Tensor, pad: int) -> dict[bytes, tuple[int, int, bool]]:
    """Return every crop of the padded image and of its mirror, with its corner."""
    channels, height, width = image.shape
    padded = torch.zeros(channels, height + 2 * pad, width + 2 * pad, dtype=image.dtype)
    padded[:, pad : pad + height, pad : pad + width] = image
    found = {}
    for top in range(2 * pad + 1):
        for left in range(2 * pad + 1):
            window = padded[:, top : top + height, left : left + width]
            found[window.numpy().tobytes()] = (top, left, False)
            found[window.flip(2).numpy().tobytes()] = (top, left, True)
    return found


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_pad_crop_flip_gives_windows_of_every_kind(layout):
    images = batch(400, side=6).contiguous(memory_format=layout)
    result = pad_crop_flip(images, random(), pad=2)
    assert result.dtype == torch.uint8 and result.shape == images.shape
    kinds = [windows(image, 2)[crop.numpy().tobytes()] for image, crop in zip(images, result)]
    tops, lefts, flips = (np.array(values) for values in zip(*kinds))
    for offsets in (tops, lefts):
        assert stats.chisquare(np.bincount(offsets, minlength=5)).pvalue > 0.001
    assert stats.binomtest(int(flips.sum()), len(flips), 0.5).pvalue > 0.001
    # Independent of each other.
    assert abs(np.corrcoef(tops, lefts)[0, 1]) < 0.2 and abs(np.corrcoef(tops, flips)[0, 1]) < 0.2


def test_pad_crop_flip_without_flips_and_without_padding():
    images = batch()
    for image, crop in zip(images, pad_crop_flip(images, random(), pad=2, flip=False)):
        assert not windows(image, 2)[crop.numpy().tobytes()][2]
    assert torch.equal(pad_crop_flip(images, random(), pad=0, flip=False), images)


def test_lighting_adds_components_an_image():
    images = batch(5).float()
    before = images.clone()
    result = lighting(images, random(3), std=0.2)
    assert torch.equal(images, before)
    alphas = random(3).normal(0, 0.2, (5, 3))
    for image, lit, alpha in zip(images, result, alphas):
        shift = sum(
            255 * a * value * np.array(EIGENVECTORS)[:, i] for i, (a, value) in enumerate(zip(alpha, EIGENVALUES))
        )
        np.testing.assert_allclose((lit - image).numpy(), np.broadcast_to(shift[:, None, None], (3, 12, 12)), atol=1e-4)


def test_lighting_is_as_strong_as_stated():
    """Along each component a normal variable of std * eigenvalue * 255 levels."""
    shifts = lighting(torch.zeros(4000, 3, 1, 1), random()).view(-1, 3).numpy() @ np.array(EIGENVECTORS)
    for component, value in enumerate(EIGENVALUES):
        assert stats.kstest(shifts[:, component] / (255 * 0.1 * value), "norm").pvalue > 0.001


def test_components_are_those_of_real_images(shared_data):
    paths = sorted((shared_data / "imagenet_sample" / "images").glob("*/*"))
    pixels = [np.asarray(Image.open(path).convert("RGB").resize((16, 16), Image.Resampling.NEAREST)) for path in paths]
    covariance = np.cov(np.concatenate([image.reshape(-1, 3) for image in pixels]).T / 255)
    values, vectors = np.linalg.eigh(covariance)
    np.testing.assert_allclose(values[::-1], EIGENVALUES, rtol=0.35)
    alignment = np.abs((vectors[:, ::-1] * np.array(EIGENVECTORS)).sum(0))
    assert alignment.min() > 0.98


def test_mixup_blends_images_and_targets():
    images, labels = batch().float(), torch.arange(16) % 5
    result, targets = mixup(images, labels, 5, 0.4, random(1))
    draws = random(1)
    share, other = draws.beta(0.4, 0.4), draws.permutation(16)
    for index, partner in enumerate(other):
        expected = share * images[index] + (1 - share) * images[partner]
        torch.testing.assert_close(result[index], expected, rtol=0, atol=1e-3)
        one_hot = share * F.one_hot(labels[index], 5) + (1 - share) * F.one_hot(labels[partner], 5)
        torch.testing.assert_close(targets[index], one_hot.float())
    assert targets.dtype == torch.float32


def test_mixup_draws_from_the_beta_distribution():
    images, labels = torch.stack([torch.zeros(3, 1, 1), torch.ones(3, 1, 1)]), torch.tensor([0, 1])
    draws, shares = random(), []
    while len(shares) < 500:
        result, _ = mixup(images, labels, 2, 0.3, draws)
        # The first image is black: its brightness is the other's share, if another was drawn.
        if result[0, 0, 0, 0] + result[1, 0, 0, 0] == 1 and result[0, 0, 0, 0] != 0:
            shares.append(1 - float(result[0, 0, 0, 0]))
    assert stats.kstest(shares, "beta", args=(0.3, 0.3)).pvalue > 0.001


@pytest.mark.parametrize("dtype", [torch.float32, torch.uint8])
def test_cutmix_replaces_one_rectangle(dtype):
    labels = torch.arange(16)
    images = (labels + 1).view(-1, 1, 1, 1).expand(16, 3, 20, 30).to(dtype).contiguous()
    covered = []
    for seed in range(60):
        result, targets = cutmix(images, labels, 16, 1.0, random(seed))
        assert result.dtype == dtype
        torch.testing.assert_close(targets.sum(1), torch.ones(16))
        areas = []
        for index in range(16):
            values = result[index].unique() - 1
            assert len(values) <= 2
            for label in values.long().tolist():
                part = result[index, 0] == label + 1
                assert float(targets[index, label]) == pytest.approx(float(part.float().mean()), abs=1e-6)
            other = result[index, 0] != index + 1
            if other.any():
                rows, columns = other.any(1).nonzero().flatten(), other.any(0).nonzero().flatten()
                height, width = int(rows[-1] - rows[0]) + 1, int(columns[-1] - columns[0]) + 1
                assert int(other.sum()) == height * width
                areas.append(height * width / 600)
        assert len(set(areas)) <= 1
        covered += areas[:1]
    # Uniform areas, less what sticks out.
    assert 0.15 < np.mean(covered) < 0.5


def test_cutmix_leaves_its_input_alone():
    images = batch()
    before = images.clone()
    cutmix(images, torch.arange(16), 16, 1.0, random(2))
    assert torch.equal(images, before)


MEAN, STD = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_normalise(dtype, channels_last):
    images = batch().to(dtype)
    before = images.clone()
    result = normalise(images, MEAN, STD, channels_last=channels_last)
    expected = functional.normalize(images.float(), MEAN, STD)
    torch.testing.assert_close(result, expected)
    assert result.dtype == torch.float32
    assert result.is_contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)
    assert torch.equal(images, before)


def test_normalise_by_a_mean_image():
    images = batch()
    mean = images.float().mean(0)
    result = normalise(images, mean, [2.0, 2.0, 2.0])
    for image, found in zip(images, result):
        torch.testing.assert_close(found, (image.float() - mean) / 2)
    assert result.mean(0).abs().max() < 1e-3
    with pytest.raises(ConfigError, match="mean image has"):
        normalise(batch(side=10), mean, STD)


def test_constants_first_used_for_inference_serve_training():
    with torch.inference_mode():
        normalise(batch(), [1.0, 2.0, 3.5], [4.0, 5.0, 6.5])
    images = batch().float().requires_grad_()
    normalise(images, [1.0, 2.0, 3.5], [4.0, 5.0, 6.5]).sum().backward()
    assert float(images.grad[0, 0, 0, 0]) == 0.25


@pytest.mark.parametrize("size", [8, 12, 20])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_resize_batch_is_pillows(size, layout):
    images = batch().contiguous(memory_format=layout)
    result = resize_batch(images, size)
    assert result.dtype == torch.uint8 and result.shape == (16, 3, size, size)
    for image, found in zip(images, result):
        array = Image.fromarray(image.permute(1, 2, 0).numpy())
        expected = np.asarray(array.resize((size, size), Image.Resampling.BILINEAR), dtype=int)
        assert np.abs(found.permute(1, 2, 0).numpy() - expected).max() <= 1


def all_augmentations(images: torch.Tensor, seed: int) -> list[torch.Tensor]:
    draws = random(seed)
    labels = torch.arange(len(images), device=images.device)
    moved = pad_crop_flip(images, draws)
    lit = lighting(moved.float(), draws)
    mixed = mixup(lit, labels, len(images), 0.5, draws)
    cut = cutmix(lit, labels, len(images), 0.5, draws)
    return [moved, lit, *mixed, *cut, resize_batch(moved, 8), normalise(lit, MEAN, STD)]


def test_the_seed_decides_everything_and_nothing_needs_gradients():
    state = torch.get_rng_state()
    first, second, other = (all_augmentations(batch(), seed) for seed in (7, 7, 8))
    assert torch.equal(torch.get_rng_state(), state)
    for left, right in zip(first, second):
        assert torch.equal(left, right) and not left.requires_grad
    assert not any(torch.equal(left, right) for left, right in zip(first, other))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_same_on_a_gpu():
    for left, right in zip(all_augmentations(batch(), 1), all_augmentations(batch().cuda(), 1)):
        assert right.is_cuda
        torch.testing.assert_close(
            left.float(), right.cpu().float(), rtol=1e-5, atol=1.0 if left.dtype == torch.uint8 else 1e-3
        )
