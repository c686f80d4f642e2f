"""What a test says beside its error, against plain loops and torch: confusion, accuracy of classes, loss, Grad-CAM."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import backbone
from backbone.classification.data import ImagesInMemory
from backbone.classification.mistakes import Looker, mistakes_page, worst_mistakes
from backbone.classification.testing import Protocol, evaluate
from backbone.classification.testing.grad_cam import enlarged, grad_cam, overlay

NAMES = [f"<class> {index}" for index in range(7)]


@pytest.fixture(scope="module")
def tested():
    """A network of random weights on images of six of its seven classes; its errors, its probabilities."""
    random = np.random.default_rng(0)
    pixels, labels = random.integers(0, 256, (40, 32, 32, 3), dtype=np.uint8), random.integers(0, 6, 40)
    images = ImagesInMemory("random", NAMES, labels, pixels)
    torch.manual_seed(0)
    network = backbone.create("cifar_resnet20", num_classes=7).eval()

    def prepare(batch):
        return batch.float() / 64 - 2

    protocol = Protocol("single")
    errors = evaluate([network], images, protocol, prepare=prepare, device="cpu", workers=0)
    with torch.no_grad():
        logits = network(prepare(torch.from_numpy(pixels).permute(0, 3, 1, 2)))["logits"]
    return images, Looker(network, prepare, protocol, torch.device("cpu")), errors, logits


def test_figures_are_those_of_plain_loops(tested):
    images, _, errors, logits = tested
    matrix = [[0] * 7 for _ in range(7)]
    for label, scores in zip(images.labels.tolist(), logits.tolist()):
        matrix[label][max(range(7), key=scores.__getitem__)] += 1
    assert errors.confusion.tolist() == matrix
    figures, per_class = errors.figures(), errors.per_class()
    assert set(per_class) == set(NAMES[:6])
    for label, name in enumerate(NAMES[:6]):
        assert per_class[name] == {"accuracy": matrix[label][label] / sum(matrix[label]), "images": sum(matrix[label])}
    assert math.isnan(errors.class_accuracy[6])
    mean = sum(values["accuracy"] for values in per_class.values()) / 6
    assert figures["mean_class_accuracy"] == pytest.approx(mean, abs=1e-12)
    loss = F.cross_entropy(logits, torch.from_numpy(images.labels))
    assert figures["loss"] == pytest.approx(loss.item(), rel=1e-5)
    assert figures["top1_accuracy"] == pytest.approx(sum(matrix[k][k] for k in range(7)) / 40)
    torch.testing.assert_close(errors.scores, logits.softmax(1).topk(5).values)


def test_worst_mistakes_are_the_surest_wrong_ones(tested):
    images, _, errors, logits = tested
    sure, guess = logits.softmax(1).max(1)
    wrong = [row for row in range(40) if guess[row] != images.labels[row]]
    assert worst_mistakes(errors, 5) == sorted(wrong, key=lambda row: -sure[row].item())[:5]
    assert len(worst_mistakes(errors, 100)) == len(wrong)


@pytest.mark.parametrize("name", ["resnet18", "preact_resnet18", "cifar_resnet20"])
def test_grad_cam_is_that_of_plain_hooks(name):
    torch.manual_seed(0)
    network = backbone.create(name, num_classes=5).eval()
    images, labels = torch.randn(2, 3, 64, 64), torch.tensor([3, 1])
    before = [parameter.grad for parameter in network.parameters()]
    found = grad_cam(network, images, labels)
    assert before == [parameter.grad for parameter in network.parameters()]

    # Of the last stage as the network returns it.
    last = network.stage_names[-1]
    network.out_features = (last, "logits")
    outputs = network(images)
    outputs[last].retain_grad()
    (outputs["logits"][0, 3] + outputs["logits"][1, 1]).backward()
    features, gradient = outputs[last].detach(), outputs[last].grad
    for index in range(2):
        cells = torch.zeros(features.shape[2:])
        for channel in range(features.shape[1]):
            cells += gradient[index, channel].mean() * features[index, channel]
        torch.testing.assert_close(found[index], cells.clamp(min=0), rtol=1e-4, atol=1e-7)
    network.out_features = ("logits",)
    likeliest = network(images)["logits"].argmax(1)
    torch.testing.assert_close(grad_cam(network, images), grad_cam(network, images, likeliest))


def test_grad_cam_is_that_of_its_package():
    package = pytest.importorskip("pytorch_grad_cam")
    targets = pytest.importorskip("pytorch_grad_cam.utils.model_targets")
    torchvision = pytest.importorskip("torchvision")
    torch.manual_seed(0)
    other = torchvision.models.resnet18(num_classes=5).eval()
    network = backbone.create("resnet18", num_classes=5, norm="bn").eval()
    network.load_state_dict(other.state_dict())
    images = torch.randn(2, 3, 64, 64)
    with package.GradCAM(model=other, target_layers=[other.layer4[-1]]) as cam:
        theirs = cam(images, [targets.ClassifierOutputTarget(3), targets.ClassifierOutputTarget(1)])
    ours = enlarged(grad_cam(network, images, torch.tensor([3, 1])), 64, 64)
    # The package stretches each map from its least value, ours begins at 0.
    low, high = (of(ours, axis=(1, 2), keepdims=True) for of in (np.min, np.max))
    np.testing.assert_allclose((ours - low) / (high - low), theirs, atol=1e-3)


def test_a_network_without_classifier_has_no_map():
    with pytest.raises(backbone.ArchitectureError, match="gives no logits"):
        grad_cam(backbone.create("resnet18"), torch.zeros(1, 3, 32, 32))


def test_the_page_shows_worst_images_matrix_and_classes(tested):
    images, looker, errors, _ = tested
    page = mistakes_page("run", errors, images, looker, 3)
    # A picture and its map each; names are text.
    assert page.count("<image ") == 6 and page.count("<figure ") == 3
    assert "<class>" not in page and page.count("&lt;class&gt; 6") >= 1
    assert "images are wrong, most often" in page and 'aria-label="Confusion matrix"' in page
    label, guess = errors.labels[worst_mistakes(errors, 1)[0]], errors.guesses[worst_mistakes(errors, 1)[0], 0]
    assert page.count(f'data-find="m{label}_{guess}"') == 2
    assert "http://" not in page and "https://" not in page
    assert page == mistakes_page("run", errors, images, looker, 3)
    heat = overlay(np.full((4, 4, 3), 100, np.uint8), np.linspace(0, 1, 16, dtype=np.float32).reshape(4, 4))
    # Blue where it is 0, red where it is 1.
    assert heat[0, 0, 2] > heat[0, 0, 0] and heat[3, 3, 0] > heat[3, 3, 2]


def test_a_set_without_mistakes(tested):
    images, looker, errors, _ = tested
    right = ImagesInMemory("right", NAMES, errors.guesses[:, 0].numpy(), images.pixels)
    run = {"prepare": looker.prepare, "device": "cpu", "workers": 0}
    errors = evaluate([looker.network], right, looker.protocol, **run)
    page = mistakes_page("run", errors, right, looker, 3)
    assert "All 40 images are right." in page and "<figure" not in page
