"""1-crop, 10-crop, dense and ensemble testing, against a plain reference on real images."""

from __future__ import annotations

import copy
import itertools
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import warm_commands
from plain_protocols import MEAN, STD, by_ten_crops, classify, densely, read, ten_crops
from randomize import randomize

import backbone
from backbone.classification.data import ImageFiles, ImagesInMemory
from backbone.classification.testing import Protocol, evaluate
from backbone.classification.testing.scoring import Scorer
from backbone.classification.testing.views import Views, join_chunks, load_views
from backbone.common.errors import ArchitectureError, ConfigError, DataError, RunError
from backbone.engine.image_progress import ImageProgress

CLASSES = 15


def prepare(pixels: torch.Tensor) -> torch.Tensor:
    mean, std = (torch.tensor(values, device=pixels.device).view(1, 3, 1, 1) for values in (MEAN, STD))
    return (pixels.float() / 255 - mean) / std


def as_set(root: Path, files: list[str], seed: int = 0) -> ImageFiles:
    labels = np.random.default_rng(seed).integers(0, CLASSES, len(files))
    return ImageFiles("sample", [f"class{index}" for index in range(CLASSES)], labels, root, files)


@pytest.fixture(scope="module")
def sample(shared_data) -> ImageFiles:
    """Six real images: wide, tall, a large one and a grayscale one."""
    root = shared_data / "imagenet_sample" / "images"
    files = sorted(str(path.relative_to(root)) for path in root.glob("*/*.JPEG"))
    gray = next(file for file in files if "n04090263" in file)
    return as_set(root, [*files[:4], files[6], gray])


def network_of(name: str, seed: int = 0, **keywords) -> torch.nn.Module:
    # For the biases, which `randomize` leaves as they are created.
    torch.manual_seed(seed)
    return randomize(backbone.create(name, num_classes=CLASSES, **keywords), seed).eval()


def probabilities(networks, images, protocol, *, batch_size=16, prepare=prepare, channels_last=False) -> torch.Tensor:
    settings = {"device": torch.device("cpu"), "batch_size": batch_size, "channels_last": channels_last}
    scorer = Scorer(networks, prepare, protocol, **settings)
    loader = load_views(Views(images, range(len(images)), protocol), batch_size=batch_size, workers=0, pin_memory=False)
    with ImageProgress(len(images), protocol.name, False) as progress:
        return scorer.run(loader, (len(images), len(images.classes)), progress)[0]


def images_of(images: ImageFiles) -> list[np.ndarray]:
    return [read(images.place(index)) for index in range(len(images))]


def assert_same(found: torch.Tensor, expected: list[np.ndarray]) -> None:
    expected = np.stack(expected)
    # A reference in which all images look alike would prove nothing.
    assert np.abs(expected - expected[0]).max() > 1e-2 or len(expected) == 1
    np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("channels_last", [False, True])
def test_ten_crops_are_those_of_the_plain_reference(sample, channels_last):
    network = network_of("resnet18")
    found = probabilities([network], sample, Protocol("10crop", crop=96, shorter_side=112), channels_last=channels_last)
    exact = copy.deepcopy(network).double()
    assert_same(found, [by_ten_crops(exact, image, 112, 96) for image in images_of(sample)])


def test_one_crop_is_the_centre(sample):
    network = network_of("resnet18")
    found = probabilities([network], sample, Protocol("1crop", crop=96, shorter_side=112))
    exact = copy.deepcopy(network).double()
    assert_same(found, [classify(exact, ten_crops(image, 112, 96)[4]) for image in images_of(sample)])


def test_the_centre_is_the_one_that_torchvision_cuts(sample):
    from PIL import Image
    from torchvision import transforms

    theirs = transforms.Compose([transforms.Resize(256), transforms.CenterCrop(224)])
    for index, image in enumerate(images_of(sample)):
        (ours,) = Protocol("1crop").cut(image)[0]
        peer = np.asarray(theirs(Image.open(sample.place(index)).convert("RGB")))
        # One level of rounding; a centre that is one pixel off differs by far more.
        assert np.abs(ours.astype(int) - peer).mean() < 0.5
        assert np.abs(ours[:, 1:].astype(int) - peer[:, :-1]).mean() > 0.5


@pytest.mark.parametrize(("name", "flip"), [("resnet18", False), ("preact_resnet18", True)])
def test_dense_is_the_mean_over_all_windows(sample, name, flip):
    network = network_of(name, out_features=("res5", "logits"))
    sides = (96, 112, 168)
    found = probabilities([network], sample, Protocol("dense", crop=96, sides=sides, flip=flip))
    exact = copy.deepcopy(network).double()
    assert_same(found, [densely(exact, image, sides, 3, flip=flip) for image in images_of(sample)])


def test_dense_at_the_papers_size_slides_windows_of_seven(sample):
    images = sample.first(1)
    network = network_of("resnet18", out_features=("res5", "logits"))
    found = probabilities([network], images, Protocol("dense", sides=(224, 256), flip=False))
    exact = copy.deepcopy(network).double()
    assert_same(found, [densely(exact, image, (224, 256), 7, flip=False) for image in images_of(images)])


def test_dense_with_dilation_slides_windows_as_large_as_in_training(sample):
    images = sample.first(2)
    network = network_of("resnet18", out_features=("res5", "logits"), output_stride=16)
    found = probabilities([network], images, Protocol("dense", crop=64, sides=(64, 96), flip=False))
    exact = copy.deepcopy(network).double()
    assert_same(found, [densely(exact, image, (64, 96), 4, flip=False) for image in images_of(images)])


@pytest.mark.parametrize(
    ("crop", "window", "sides", "number"), [(224, 7, (256,), 1), (96, 3, (96, 130), 2)], ids=["224", "96"]
)
def test_dense_vgg_runs_its_fc_layers_as_convolutions(sample, monkeypatch, crop, window, sides, number):
    """fc6 as a 7x7 convolution; a map of another size is pooled to 7x7 window by window."""
    monkeypatch.setattr("backbone.networks.vgg.FC_WIDTH", 48)
    images = sample.first(number)
    network = network_of("vgg16", out_features=("conv5", "logits"))
    found = probabilities([network], images, Protocol("dense", crop=crop, sides=sides, flip=False))
    exact = copy.deepcopy(network).double()
    assert_same(found, [densely(exact, image, sides, window, flip=False) for image in images_of(images)])


@pytest.mark.parametrize("name", ["resnet18", "preact_resnet18", "cifar_resnet20", "vgg16_bn"])
def test_dense_on_one_crop_is_the_forward_pass(monkeypatch, name):
    monkeypatch.setattr("backbone.networks.vgg.FC_WIDTH", 48)
    network = network_of(name)
    crop = 32 if name.startswith("cifar") else 96
    images = torch.randn(2, 3, crop, crop, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = network(images)["logits"]
        torch.testing.assert_close(network.dense_logits(images, crop), expected, rtol=1e-4, atol=1e-4)
        assert not torch.allclose(network.dense_logits(images, crop // 2), expected, rtol=1e-2, atol=1e-2)
        folded = backbone.fold(network)
        torch.testing.assert_close(folded.dense_logits(images, crop), expected, rtol=1e-3, atol=1e-3)


def test_dense_takes_a_smaller_map_whole():
    network = network_of("resnet18")
    images = torch.randn(1, 3, 64, 200, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        whole = network(images)["logits"]
        torch.testing.assert_close(network.dense_logits(images, 224), whole, rtol=1e-4, atol=1e-4)


def test_flips_change_the_scores(sample):
    network = network_of("resnet18")
    with_flip, without = (
        probabilities([network], sample.first(2), Protocol("dense", crop=64, sides=(64, 80), flip=flip))
        for flip in (True, False)
    )
    assert (with_flip - without).abs().max() > 1e-3


@pytest.mark.parametrize("name", ["10crop", "dense"])
def test_batch_size_does_not_matter(sample, name):
    network = network_of("resnet18")
    protocol = Protocol(name, crop=64, shorter_side=80, sides=(64, 80))
    one, many = (probabilities([network], sample, protocol, batch_size=size) for size in (1, 64))
    torch.testing.assert_close(one, many, rtol=0, atol=1e-5)


def test_an_ensemble_is_the_mean_of_its_networks(sample):
    networks = [network_of("resnet18", seed=1), network_of("preact_resnet18", seed=2)]
    protocol = Protocol("1crop", crop=64, shorter_side=80)
    prepares = [prepare, lambda pixels: prepare(pixels.flip(1))]
    single = [probabilities([net], sample, protocol, prepare=one) for net, one in zip(networks, prepares)]
    assert (single[0] - single[1]).abs().max() > 1e-2
    found = probabilities(networks, sample, protocol, prepare=prepares)
    torch.testing.assert_close(found, (single[0] + single[1]) / 2, rtol=0, atol=1e-6)


def test_errors_are_those_of_the_probabilities(sample):
    network = network_of("resnet18")
    protocol = Protocol("1crop", crop=64, shorter_side=80)
    found = probabilities([network], sample, protocol).numpy()
    errors = evaluate([network], sample, protocol, prepare=prepare, device="cpu", workers=2, batch_size=4)
    ranks = [sorted(range(CLASSES), key=lambda c, row=row: -row[c]) for row in found]
    assert errors.guesses.tolist() == [order[:5] for order in ranks]
    labels = sample.labels
    assert errors.top1 == pytest.approx(np.mean([order[0] != label for order, label in zip(ranks, labels)]))
    assert errors.top5 == pytest.approx(np.mean([label not in order[:5] for order, label in zip(ranks, labels)]))
    assert (errors.images, errors.left_out) == (6, ())


def cifar(shared_data: Path) -> tuple[torch.nn.Module, ImagesInMemory]:
    network = backbone.create("cifar_resnet20", num_classes=10).eval()
    backbone.load_weights(network, shared_data / "cifar_resnet_weights" / "resnet20-12fca82f.th")
    data = np.load(shared_data / "cifar10" / "cifar10_lossless_partial.npz")
    pixels = data["test_batch_first164"].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return network, ImagesInMemory("cifar10 test", list("abcdefghij"), data["test_labels"][:164], pixels)


def test_cifar_in_a_single_view_as_published(shared_data):
    network, images = cifar(shared_data)
    errors = evaluate([network], images, Protocol("single"), prepare=prepare, device="cpu", workers=0)
    assert (errors.images, round(errors.top1 * 164)) == (164, 13)
    # 99.7 % is what such networks reach in the first five.
    assert errors.top5 * 164 < 2
    assert errors.to_json()["top1_error"] == errors.top1


def test_bfloat16_and_channels_last_find_nearly_the_same(shared_data):
    network, images = cifar(shared_data)
    settings = {"amp": torch.bfloat16, "channels_last": True}
    errors = evaluate([network], images, Protocol("single"), prepare=prepare, device="cpu", workers=0, **settings)
    assert abs(errors.top1 * 164 - 13) <= 2


def test_with_two_classes_the_first_five_are_both():
    random = np.random.default_rng(0)
    images = ImagesInMemory(
        "two", ["a", "b"], random.integers(0, 2, 9), random.integers(0, 256, (9, 32, 32, 3), np.uint8)
    )
    network = randomize(backbone.create("cifar_resnet20", num_classes=2)).eval()
    errors = evaluate([network], images, Protocol("single"), prepare=prepare, device="cpu", workers=0)
    assert errors.top5 == 0 and errors.guesses.shape == (9, 2)


def with_broken(sample: ImageFiles, folder: Path, broken: int, *, whole: int = 6) -> ImageFiles:
    """Copies of real images behind `broken` ones, cut off or empty."""
    for index in range(whole):
        shutil.copy(sample.place(index), folder / f"whole{index}.JPEG")
    half = Path(sample.place(0)).read_bytes()[:2000]
    for index in range(broken):
        (folder / f"broken{index:02}.JPEG").write_bytes(half if index % 2 else b"")
    return as_set(folder, sorted(path.name for path in folder.iterdir()))


def test_unreadable_images_are_named_and_left_out(sample, tmp_path):
    images = with_broken(sample, tmp_path, 3)
    network = network_of("resnet18")
    protocol = Protocol("1crop", crop=64, shorter_side=80)
    errors = evaluate([network], images, protocol, prepare=prepare, device="cpu", workers=0)
    assert (errors.images, len(errors.left_out)) == (6, 3)
    assert [Path(place).name for place in errors.left_out] == [f"broken0{index}.JPEG" for index in range(3)]
    assert (errors.guesses[:3] == -1).all() and (errors.guesses[3:] >= 0).all()
    whole = ImageFiles("whole", images.classes, images.labels[3:], images.root, images.files[3:])
    alone = evaluate([network], whole, protocol, prepare=prepare, device="cpu", workers=0)
    assert (errors.top1, errors.top5) == (alone.top1, alone.top5)


@pytest.mark.parametrize(
    ("broken", "whole", "message"), [(11, 6, "11 of 17 images cannot be read"), (2, 0, "2 of 2 images")]
)
def test_too_many_unreadable_images_stop_the_test(sample, tmp_path, broken, whole, message):
    images = with_broken(sample, tmp_path, broken, whole=whole)
    with pytest.raises(DataError, match=message) as caught:
        evaluate(
            [network_of("resnet18")],
            images,
            Protocol("1crop", crop=64, shorter_side=80),
            prepare=prepare,
            device="cpu",
            workers=0,
        )
    assert "broken00.JPEG" in str(caught.value) and "\n" not in str(caught.value)


def test_mistakes_are_named(sample):
    with pytest.raises(ConfigError, match="did you mean '10crop'"):
        Protocol("10crops")
    with pytest.raises(ConfigError, match="at least the crop"):
        Protocol("dense", crop=288)
    run = {"prepare": prepare, "device": "cpu", "workers": 0}
    with pytest.raises(ArchitectureError, match="10 classes, but sample has 15"):
        evaluate([backbone.create("resnet18", num_classes=10).eval()], sample, Protocol("1crop"), **run)
    with pytest.raises(ArchitectureError, match="num_classes"):
        evaluate([backbone.create("resnet18").eval()], sample, Protocol("1crop"), **run)
    with pytest.raises(ArchitectureError, match="num_classes"):
        backbone.create("vgg16").eval().dense_logits(torch.zeros(1, 3, 32, 32), 32)
    with pytest.raises(ValueError, match="training mode"):
        evaluate([backbone.create("resnet18", num_classes=CLASSES)], sample, Protocol("1crop"), **run)
    diverged = network_of("resnet18")
    torch.nn.init.constant_(diverged.fc.bias, float("nan"))
    with pytest.raises(RunError, match="not finite"):
        evaluate([diverged], sample.first(1), Protocol("1crop", crop=64, shorter_side=80), **run)


def share_of(rank: int, folder: Path, images: ImageFiles) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    protocol = Protocol("10crop", crop=64, shorter_side=80)
    errors = evaluate([network_of("resnet18")], images, protocol, prepare=prepare, device="cpu", workers=0)
    torch.save((errors.to_json(), errors.guesses), folder / f"{rank}.pt")
    dist.destroy_process_group()


def test_two_processes_find_what_one_finds(sample, tmp_path):
    (tmp_path / "images").mkdir()
    images = with_broken(sample, tmp_path / "images", 1)
    warm_commands.call(share_of, tmp_path, images)
    (first, guesses), (second, others) = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    protocol = Protocol("10crop", crop=64, shorter_side=80)
    alone = evaluate([network_of("resnet18")], images, protocol, prepare=prepare, device="cpu", workers=0)
    assert first == second and torch.equal(guesses, others)
    assert torch.equal(guesses, alone.guesses)
    assert {**first, "seconds": 0} == {**alone.to_json(), "seconds": 0}


def test_views_of_all_sizes_are_grouped(sample):
    """Images of one size share a batch, whatever their order."""
    protocol = Protocol("dense", crop=64, sides=(64, 80))
    loader = load_views(Views(sample, range(6), protocol), batch_size=16, workers=0, pin_memory=False)
    chunks = list(join_chunks(loader, 6))
    assert [chunk.images for chunk in chunks] == [6] and [chunk.images for chunk in loader] == [4, 2]
    (groups,) = (chunk.groups for chunk in chunks)
    sizes = [tuple(group.pixels.shape[2:4]) for group in groups]
    assert len(sizes) == len(set(sizes)) < 12
    assert sorted(itertools.chain(*(group.rows.tolist() for group in groups))) == sorted([*range(6)] * 2)
    for rows, pixels in groups:
        for row, views in zip(rows.tolist(), pixels):
            assert any(np.array_equal(views, cut) for cut in protocol.cut(read(sample.place(row))))
