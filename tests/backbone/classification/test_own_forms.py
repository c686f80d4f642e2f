"""Data of one's own for classifiers: what lies there is found out, divided by seed, and mistakes are one line."""

from __future__ import annotations

import csv
import io
import tarfile
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch.nn import functional as F

from backbone.classification.config import load_config
from backbone.classification.data import ImagesInMemory, open_sets
from backbone.classification.data.batches import make_sampler
from backbone.classification.data.cifar import open_cifar
from backbone.classification.data.own import has_part, hold_out, own_data_keys
from backbone.classification.networks import build
from backbone.classification.task import Augmented, ClassificationTask
from backbone.common.errors import ConfigError, DataError
from backbone.engine.loading import Batch

LABELS = {"a.png": "cat", "b.png": "dog", "c.png": "cat", "d.png": "owl", "e.png": "dog", "f.png": "cat"}
IMAGE = cv2.imencode(".png", np.full((8, 8, 3), 90, np.uint8))[1].tobytes()


def classes_of(root: Path, part: str = "") -> Path:
    for name, label in LABELS.items():
        (root / part / label).mkdir(parents=True, exist_ok=True)
        (root / part / label / name).write_bytes(IMAGE)
    return root


def table_of(
    root: Path, name: str = "labels.csv", header: tuple[str, ...] = ("filename", "label"), cut: int = 0
) -> Path:
    (root / "images").mkdir(parents=True, exist_ok=True)
    rows = [(file[:-cut] if cut else file, label) for file, label in LABELS.items()]
    for file in LABELS:
        (root / "images" / file).write_bytes(IMAGE)
    with (root / name).open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows] if header else rows)
    return root


def shards_of(root: Path, name: str = "all-0.tar") -> Path:
    root.mkdir(parents=True, exist_ok=True)
    with tarfile.open(root / name, "w") as archive:
        for file, label in LABELS.items():
            for ending, content in (("png", IMAGE), ("cls", label.encode())):
                member = tarfile.TarInfo(f"{file[0]}.{ending}")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    return root


def zip_of(root: Path, part: str) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(root / "all.zip", "w") as archive:
        for file, label in LABELS.items():
            archive.writestr(f"{part}{label}/{file}", IMAGE)
    return root / "all.zip"


def config_of(train: Path | None, val: Path | None = None, split: float | None = None, *keys: object):
    named = own_data_keys(train and str(train), val and str(val), split, None, None)
    return load_config("finetune_resnet18.yaml", ["MODEL.DEVICE", "cpu", "MODEL.WEIGHTS", "", *named, *keys])


FORMS = {
    "folders": classes_of,
    "folders of parts": lambda root: classes_of(root, "train"),
    "csv": table_of,
    "csv without header": lambda root: table_of(root, header=()) / "labels.csv",
    "csv of ids": lambda root: table_of(root, header=("id", "breed"), cut=4),
    "shards": shards_of,
    "one shard": lambda root: shards_of(root) / "all-0.tar",
    "zip": lambda root: zip_of(root, ""),
    "zip of parts": lambda root: zip_of(root, "train/"),
}


@pytest.mark.parametrize("form", FORMS)
def test_each_form_holds_the_same_images_and_classes(form, tmp_path):
    train, test = open_sets(config_of(FORMS[form](tmp_path / "data"), None, 0.3), training=True)
    assert train.classes == test.classes == ["cat", "dog", "owl"]
    # One of three cats and one of two dogs; the only owl is learned.
    assert (len(train), sorted(test.labels.tolist())) == (4, [0, 1])
    assert train.content(0).tobytes() == IMAGE
    assert not set(train.names()) & set(test.names())


def test_a_run_that_goes_on_holds_out_all_it_held_out(tmp_path):
    """Also the images beyond the first ones, which alone are tested."""
    config = config_of(classes_of(tmp_path), None, 0.3)
    config.defrost()
    config.DATA.VAL_IMAGES = 1
    train, test = open_sets(config, training=True)
    assert len(test) == 1 and len(test.held_out) == 2
    again = open_sets(config, training=True, held_out=test.held_out)
    assert [images.names() for images in again] == [train.names(), test.names()]


@pytest.mark.parametrize("names", [("train", "valid"), ("training", "val"), ("train", "test")])
def test_a_set_of_parts_is_tested_on_its_own(names, tmp_path):
    for name in names:
        classes_of(tmp_path, name)
    assert has_part(tmp_path, "val")
    config = config_of(tmp_path)
    train, test = open_sets(config, training=True)
    assert (len(train), len(test), config.DATA.SPLIT) == (6, 6, 0)
    # A test alone takes the part too, and a part without all classes those of the network.
    (tmp_path / names[1] / "owl" / "d.png").unlink()
    (tmp_path / names[1] / "owl").rmdir()
    config = config_of(None, tmp_path)
    assert open_sets(config, training=False, classes=["cat", "dog", "owl"])[1].classes == ["cat", "dog", "owl"]


def test_parts_of_tables_and_shards(tmp_path):
    for name in ("train.csv", "val.csv"):
        table_of(tmp_path / "tables", name)
    for name in ("own-train-0.tar", "own-train-1.tar", "own-val-0.tar"):
        shards_of(tmp_path / "shards", name)
    for folder, images in (("tables", 6), ("shards", 12)):
        assert [len(one) for one in open_sets(config_of(tmp_path / folder), training=True)] == [images, 6]


def test_without_validation_a_tenth_of_each_class_is_held_out():
    labels = np.repeat(np.arange(3), (50, 20, 1))
    images = ImagesInMemory("x", ["a", "b", "c"], labels, np.zeros((71, 4, 4, 3), np.uint8))
    assert config_of(Path("x"), None).DATA.SPLIT == 0.1
    train, test = hold_out(images, 0.1, 0)
    assert np.bincount(test.labels, minlength=3).tolist() == [5, 2, 0] and len(train) == 64
    again, other = hold_out(images, 0.1, 0)[1], hold_out(images, 0.1, 1)[1]
    assert again.labels.tolist() == test.labels.tolist() and len(other) == len(test)
    kept = hold_out(images, 0.9, 7, ["3", "60"])[1]
    assert kept.labels.tolist() == [0, 1]


def test_a_data_root_without_validation(tmp_path):
    classes_of(tmp_path, "train")
    keys = ["DATA.NAME", "folder", "DATA.TRAIN", "train", "DATA.VAL", "val", "DATA.ROOT", str(tmp_path)]
    with pytest.raises(DataError, match="has no val/ to test on; add it, or DATA.SPLIT 0.1 holds out"):
        open_sets(load_config("finetune_resnet18.yaml", keys), training=True)
    train, test = open_sets(load_config("finetune_resnet18.yaml", [*keys, "DATA.SPLIT", 0.1]), training=True)
    assert [len(train), len(test)] == [4, 2]


MISTAKES = {
    "nothing there": (lambda root: root / "nowhere", "does not exist"),
    "images alone": (lambda root: table_of(root) / "images", "no labelled images", "images alone"),
    "another file": (lambda root: (root / "a.txt", (root / "a.txt").write_text("x"))[0], "give a folder, .zip, .tar"),
    "two forms": (lambda root: table_of(classes_of(root)), "may be meant; name one of them"),
    "no column": (lambda root: table_of(root, header=("x", "y")), "write a header image,label"),
    "damaged zip": (lambda root: (zip_of(root, ""), (root / "all.zip").write_bytes(b"PK"))[0], "not a readable zip"),
}
LINES = {
    "image,label\na.png\n": "line 2: 1 column, the first line has 2",
    "image,label\na.png,\n": "line 2: no class",
    "image,label\n../a.png,cat\n": "leads out of the folder",
    "image,label\na.png,cat\nb.png,dog\na.png,dog\n": "line 4: a.png stands in line 2 already",
    "image,label\na.png,cat\nz.png,cat\n": "z.png does not exist",
    "image,label\n": "no line with an image",
    "": "is empty; write lines of image,label",
}


@pytest.mark.parametrize("mistake", [*MISTAKES, *LINES])
def test_mistakes_are_one_line(mistake, tmp_path):
    root = tmp_path / "data"
    root.mkdir()
    make, *said = MISTAKES.get(mistake, (lambda root: table_of(root), LINES.get(mistake)))
    place = make(root)
    if mistake in LINES:
        (root / "labels.csv").write_text(mistake)
    with pytest.raises(DataError) as caught:
        open_sets(config_of(place, None, 0.3), training=True)
    assert all(words in str(caught.value) for words in said) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ((None, "x", 0.1, None, None), "--split holds out a share of --train"),
        (("x", None, 1.5, None, None), "--split 1.5 is no share"),
        ((None, None, None, "x", None), "--train-images is the folder"),
    ],
)
def test_flags_that_do_not_fit_together(flags, said):
    with pytest.raises(ConfigError, match=said):
        own_data_keys(*flags)


def test_cifar100_official_batches(tmp_path):
    """Read as plain containers; the fine labels count. Anything else in the pickle is refused."""
    import pickle

    folder = tmp_path / "cifar-100-python"
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (4, 3072), dtype=np.uint8)
    for name in ("train", "test"):
        content = {
            b"data": pixels,
            b"fine_labels": [0, 99, 8, 3],
            b"coarse_labels": [1, 2, 3, 4],
            b"filenames": [b"x"] * 4,
        }
        (folder / name).write_bytes(pickle.dumps(content, protocol=2))
    config = load_config("cifar100_resnet56.yaml", ["MODEL.DEVICE", "cpu", "DATA.ROOT", str(tmp_path)])
    train, test = open_sets(config, training=True)
    assert (len(train.classes), train.labels.tolist()) == (100, [0, 99, 8, 3])
    assert train.note == "no images of aquarium_fish, baby, beaver, bed, bee and 91 more"
    assert [train.classes[index] for index in (0, 8, 99)] == ["apple", "bicycle", "worm"]
    assert np.array_equal(test.pixels[1].transpose(2, 0, 1).ravel(), pixels[1])
    held = open_sets(
        load_config("cifar100_resnet56.yaml", ["DATA.ROOT", str(tmp_path), "DATA.SPLIT", 0.1]), training=False
    )
    assert len(held[1]) == 4
    marker = tmp_path / "marker"

    class Hostile:
        def __reduce__(self):
            import os

            return os.system, (f"touch {marker}",)

    (folder / "train").write_bytes(pickle.dumps({b"data": Hostile(), b"fine_labels": []}))
    with pytest.raises(DataError, match="no batch of CIFAR-100: refused"):
        open_sets(config, training=True)
    assert not marker.exists()


def test_batches_of_cifar10_are_none_of_cifar100(tmp_path):
    images = np.zeros((2, 32, 32, 3), np.uint8)
    np.savez(tmp_path / "c.npz", data_batch_1=images, train_labels=[3, 4], train=images + 1)
    assert (open_cifar(tmp_path, "train", "cifar10").pixels == 0).all()
    assert (open_cifar(tmp_path, "train", "cifar100").pixels == 1).all()
    np.savez(tmp_path / "c.npz", data_batch_1=images, train_labels=[3, 4])
    with pytest.raises(DataError, match="no train images and labels"):
        open_cifar(tmp_path, "train", "cifar100")


# -- rare classes


def uneven() -> ImagesInMemory:
    labels = np.repeat(np.arange(3), (40, 8, 2))
    return ImagesInMemory("uneven", ["a", "b", "c"], labels, np.zeros((50, 8, 8, 3), np.uint8))


def small_task(*keys: object) -> ClassificationTask:
    """A task of three classes on uneven sets."""
    sizes = ("INPUT.CROP", "pad", "INPUT.TRAIN_SIZE", 8, "TEST.PROTOCOL", "single", "DATA.NAME", "cifar10")
    own = ("MODEL.NAME", "cifar_resnet20", "MODEL.NUM_CLASSES", 3, "MODEL.WEIGHTS", "", "SOLVER.IMS_PER_BATCH", 10)
    config = load_config("finetune_resnet18.yaml", ["MODEL.DEVICE", "cpu", *sizes, *own, *keys])
    torch.manual_seed(0)
    return ClassificationTask(build(config), uneven(), uneven(), config)


def test_balanced_sampling_shows_classes_equally_often_and_can_begin_anywhere():
    config = small_task("DATA.BALANCED", True).config
    batches = list(make_sampler(uneven(), config, 0, 600))
    seen = np.bincount(uneven().labels[[index for batch in batches for _, index in batch]], minlength=3)
    np.testing.assert_allclose(seen / seen.sum(), 1 / 3, atol=0.01)
    for start in (1, 37, 599):
        assert list(make_sampler(uneven(), config, start, 600)) == batches[start:]


@pytest.mark.parametrize(
    ("key", "given", "weights"), [("BALANCE", 1, (8 / 40, 1, 8 / 2)), ("WEIGHTS", (1, 2.5, 0), (1, 2.5, 0))]
)
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_class_weights_are_those_of_torch(key, given, weights, smoothing):
    task = small_task(f"SOLVER.CLASS_{key}", given, "SOLVER.LABEL_SMOOTHING", smoothing)
    torch.testing.assert_close(task.class_weights, torch.tensor(weights))
    images, labels = torch.randn(7, 3, 8, 8), torch.tensor([0, 0, 1, 2, 0, 1, 0])
    batch = Augmented(images, labels, False, labels)
    network = task.model.eval()
    loss = torch.nn.CrossEntropyLoss(torch.tensor(weights), label_smoothing=smoothing)
    expected = loss(network(images)["logits"], labels)
    torch.testing.assert_close(task.losses(network, batch, 0)["loss_class"], expected)
    # In parts, as SOLVER.ACCUMULATE has it, the sum is the loss of the whole.
    task._augmented = lambda batch, iteration: batch
    parts = task.parts(batch, 0, 3)
    assert len(parts) == 3
    torch.testing.assert_close(
        sum(share * task.losses(network, part, 0)["loss_class"] for part, share in parts), expected
    )
    # Images mixed with others have shares of classes for targets.
    shares = F.one_hot(labels, 3).float().roll(1, 0) * 0.3 + F.one_hot(labels, 3) * 0.7
    mixed = task.losses(network, Augmented(images, shares, True, labels), 0)["loss_class"]
    torch.testing.assert_close(mixed, loss(network(images)["logits"], shares))


def test_class_weights_hold_over_the_images_of_all_processes(monkeypatch):
    """Gradients are averaged over the processes, so each divides its sum by the mean of their weights."""
    task = small_task("SOLVER.CLASS_WEIGHTS", (1, 2, 3), "SOLVER.LABEL_SMOOTHING", 0.0)
    halves = [Batch(torch.randn(4, 3, 8, 8), part) for part in torch.tensor([[0, 0, 1, 2], [2, 2, 1, 2]])]
    images, labels = (torch.cat([getattr(half, name) for half in halves]) for name in ("images", "labels"))
    network = task.model.eval()
    whole = torch.nn.CrossEntropyLoss(torch.tensor([1.0, 2.0, 3.0]))(network(images)["logits"], labels)
    mean = task.class_weights[labels].sum() / 2
    monkeypatch.setattr("backbone.classification.task.distributed.mean", lambda values: mean)
    monkeypatch.setattr(task, "_augmented", lambda batch, _: Augmented(batch.images, batch.labels, False, batch.labels))
    for parts in (lambda half: [(half, 1)], lambda half: task.parts(half, 0, 2)):
        losses = [share * task.losses(network, part, 0)["loss_class"] for half in halves for part, share in parts(half)]
        torch.testing.assert_close(sum(losses) / 2, whole)


def test_class_weights_are_as_many_as_the_classes():
    with pytest.raises(ConfigError, match="has 2 numbers, the data has 3 classes"):
        small_task("SOLVER.CLASS_WEIGHTS", (1, 2))


def test_frozen_stages_stay_as_they_were():
    task = small_task("MODEL.FREEZE_AT", 2)
    network = task.model.train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in network.parameters() if p.requires_grad], lr=0.5)
    images, labels = torch.randn(4, 3, 8, 8), torch.tensor([0, 1, 2, 0])
    task.losses(network, Augmented(images, labels, False, labels), 0)["loss_class"].backward()
    optimizer.step()
    frozen = tuple(name for stage in network.stage_names[:2] for name in network.stage_modules(stage))
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name]) == name.startswith(frozen) or name.endswith("num_batches_tracked")
