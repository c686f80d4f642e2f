"""CIFAR-10 and image folders in every form that people have them."""

from __future__ import annotations

import pickle
import zipfile

import cv2
import numpy as np
import pytest

from backbone import DataError
from backbone.classification import load_config
from backbone.classification.data import ImageFiles, ImagesInMemory, open_sets
from backbone.classification.data.cifar import CLASSES, open_cifar
from backbone.classification.data.devkit import wnids_by_number
from backbone.classification.data.folders import open_class_folders, open_flat


def pixels(number: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (number, 32, 32, 3), dtype=np.uint8)


def write_batches(folder, rows_of, labels_of) -> None:
    folder.mkdir()
    for name in (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"):
        content = {b"data": rows_of(name), b"labels": labels_of(name), b"batch_label": name.encode()}
        (folder / name).write_bytes(pickle.dumps(content, protocol=2))


def as_rows(images: np.ndarray) -> np.ndarray:
    return images.transpose(0, 3, 1, 2).reshape(len(images), 3072)


def test_official_batches(tmp_path):
    images = {name: pixels(3, seed) for seed, name in enumerate(["data_batch_1", "data_batch_2", "test_batch"])}
    empty = np.empty((0, 32, 32, 3), np.uint8)
    write_batches(
        tmp_path / "cifar-10-batches-py",
        lambda name: as_rows(images.get(name, empty)),
        lambda name: [1, 2, 3] if name in images else [],
    )
    train = open_cifar(tmp_path, "train")
    assert np.array_equal(train.pixels, np.concatenate([images["data_batch_1"], images["data_batch_2"]]))
    assert train.labels.tolist() == [1, 2, 3, 1, 2, 3] and tuple(train.classes) == CLASSES
    assert np.array_equal(open_cifar(tmp_path / "cifar-10-batches-py", "test").pixels, images["test_batch"])


def test_the_only_file_of_a_folder_is_taken(tmp_path):
    np.savez(tmp_path / "a.npz", x_train=pixels(2), y_train=[3, 4])
    assert open_cifar(tmp_path, "train").labels.tolist() == [3, 4]
    np.savez(tmp_path / "b.npz", x_train=pixels(2), y_train=[3, 4])
    with pytest.raises(DataError, match=r"holds a\.npz and b\.npz; give one of them as --data-root"):
        open_cifar(tmp_path, "train")


def test_a_batch_that_would_run_code_is_refused(tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    folder = tmp_path / "cifar-10-batches-py"
    write_batches(folder, lambda name: np.zeros((1, 3072), np.uint8), lambda name: [0])
    (folder / "data_batch_1").write_bytes(pickle.dumps({b"data": Evil(), b"labels": [0]}, protocol=2))
    with pytest.raises(DataError, match="data_batch_1"):
        open_cifar(tmp_path, "train")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("names", [("train_images", "train_labels"), ("x_train", "y_train")])
@pytest.mark.parametrize("form", ["rows", "hwc", "chw"])
def test_npz(tmp_path, names, form):
    images = pixels(4)
    stored = {"rows": as_rows(images), "hwc": images, "chw": images.transpose(0, 3, 1, 2)}[form]
    np.savez(tmp_path / "c.npz", **{names[0]: stored, names[1]: np.array([0, 9, 3, 4])})
    found = open_cifar(tmp_path / "c.npz", "train")
    assert np.array_equal(found.pixels, images) and found.labels.tolist() == [0, 9, 3, 4]
    with pytest.raises(DataError, match="no test images"):
        open_cifar(tmp_path / "c.npz", "test")


def test_the_lossless_sample(shared_data):
    path = shared_data / "cifar10" / "cifar10_lossless_partial.npz"
    train, test = open_cifar(path, "train"), open_cifar(path, "test")
    assert (len(train), len(test)) == (4000 + 4 * 164, 164)
    with np.load(path) as arrays:
        assert train.labels[4000] == arrays["train_labels"][10000]
        assert np.array_equal(as_rows(train.pixels[4000:4001]), arrays["data_batch_2_first164"][:1])


def test_zip_of_images_is_read_in_place(tmp_path):
    images = np.repeat(pixels(2)[:, :1, :1], 32, 1).repeat(32, 2)
    with zipfile.ZipFile(tmp_path / "c.zip", "w") as archive:
        for index, name in enumerate(("truck", "airplane")):
            archive.writestr(f"train/{name}/0.png", cv2.imencode(".png", images[index][:, :, ::-1])[1].tobytes())
    found = open_cifar(tmp_path / "c.zip", "train")
    assert found.labels.tolist() == [0, 9]
    assert np.array_equal(found.pixels, images[::-1])


def test_the_whole_jpeg_copy(shared_data):
    test = open_cifar(shared_data / "cifar10" / "cifar10_jpeg_60000.zip", "test")
    assert len(test) == 10000 and np.bincount(test.labels).tolist() == [1000] * 10


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "no CIFAR-10 there"),
        (lambda path: (path / "train" / "tractor").mkdir(parents=True), "no images in train"),
    ],
)
def test_nothing_of_the_kind(tmp_path, make, message):
    make(tmp_path)
    with pytest.raises(DataError, match=message):
        open_cifar(tmp_path, "train")


def folder_tree(root, classes=("n01440764", "n01443537", "n01484850"), each=2) -> None:
    for label, name in enumerate(classes):
        (root / "train" / name).mkdir(parents=True)
        for number in range(each):
            image = np.full((40, 50, 3), 60 * label + number, np.uint8)
            cv2.imwrite(str(root / "train" / name / f"{name}_{number}.JPEG"), image)


def test_class_folders(tmp_path):
    folder_tree(tmp_path)
    (tmp_path / "train" / "n01440764" / "notes.txt").write_text("not an image")
    found = open_class_folders(tmp_path, "train", "imagenet train")
    assert isinstance(found, ImageFiles) and found.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert found.classes == ["n01440764", "n01443537", "n01484850"]
    assert found.content(2).dtype == np.uint8 and "n01443537_0.JPEG" in found.place(2)
    with pytest.raises(DataError, match="'n01484850' is no class.*did you mean"):
        open_class_folders(tmp_path, "train", "x", ["n01440764", "n01443537", "n01484851"])


FLAT = {
    "imagenet_2012_validation_synset_labels.txt": "n01484850\nn01440764\n",
    "val.txt": "ILSVRC2012_val_00000002.JPEG 0\nILSVRC2012_val_00000001.JPEG 2\n",
    # 490 and 30 of the development kit are the third and the first class by wnid; see meta.mat below.
    "ILSVRC2012_validation_ground_truth.txt": "490\n30\n",
    "LOC_val_solution.csv": (
        "ImageId,PredictionString\nILSVRC2012_val_00000002,n01440764 1 2 3 4\n"
        "ILSVRC2012_val_00000001,n01484850 1 2 3 4 n01484850 5 6 7 8\n"
    ),
}


def write_meta(folder, *, compressed: bool = True) -> None:
    """Write a meta.mat of the development kit's form: leaves of the tree, and a node that is no class."""
    scipy_io = pytest.importorskip("scipy.io")
    kinds = [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("words", "O"), ("num_children", "O"), ("children", "O")]
    rows = [
        (30, "n01440764", "tench", 0, np.zeros((1, 0))),
        (490, "n01484850", "great white shark", 0, np.zeros((1, 0))),
        (200, "n01443537", "goldfish", 0, np.zeros((1, 0))),
        (1001, "n00001740", "entity", 2, np.array([30, 200])),
    ]
    synsets = np.array(rows, dtype=kinds).reshape(-1, 1)
    scipy_io.savemat(folder / "meta.mat", {"other": [1, 2], "synsets": synsets}, do_compression=compressed)


@pytest.mark.parametrize("compressed", [True, False])
def test_the_numbers_of_the_development_kit(tmp_path, compressed):
    write_meta(tmp_path, compressed=compressed)
    expected = {30: "n01440764", 490: "n01484850", 200: "n01443537", 1001: "n00001740"}
    assert wnids_by_number(tmp_path / "meta.mat") == expected
    whole = (tmp_path / "meta.mat").read_bytes()
    for content in (b"", whole[:200], whole[:-40], b"x" * 400):
        (tmp_path / "meta.mat").write_bytes(content)
        with pytest.raises(DataError, match="meta.mat: not the meta.mat of ImageNet's"):
            wnids_by_number(tmp_path / "meta.mat")


def test_the_development_kit_needs_its_meta(tmp_path):
    (tmp_path / "val").mkdir()
    cv2.imwrite(str(tmp_path / "val" / "ILSVRC2012_val_00000001.JPEG"), np.zeros((8, 8, 3), np.uint8))
    (tmp_path / "ILSVRC2012_validation_ground_truth.txt").write_text("490\n")
    with pytest.raises(DataError, match="meta.mat: missing; .*a file of wnids"):
        open_flat(tmp_path, "val", "val", ["n01440764"])
    write_meta(tmp_path)
    (tmp_path / "ILSVRC2012_validation_ground_truth.txt").write_text("491\n")
    with pytest.raises(DataError, match="'491' is no class number"):
        open_flat(tmp_path, "val", "val", ["n01440764"])


@pytest.mark.parametrize("name", FLAT)
def test_flat_validation_set(tmp_path, name):
    folder_tree(tmp_path)
    (tmp_path / "val").mkdir()
    for number in (1, 2):
        cv2.imwrite(str(tmp_path / "val" / f"ILSVRC2012_val_{number:08d}.JPEG"), np.zeros((8, 8, 3), np.uint8))
    (tmp_path / name).write_text(FLAT[name])
    write_meta(tmp_path)
    config = load_config("imagenet_resnet50.yaml", ["DATA.ROOT", str(tmp_path)])
    train, val = open_sets(config, training=True)
    assert val.classes == train.classes and val.labels.tolist() == [2, 0]
    none, val = open_sets(config, training=False)
    assert none is None and val.labels.tolist() == [2, 0]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("n01484850\n", "has 1 lines"),
        ("n01484850\nn99999999\n", "n99999999 is no class"),
        ("x\ny\n", "neither a class nor the number"),
        ("a.JPEG 1\nb.JPEG 2\n", "has no line for"),
    ],
)
def test_wrong_synset_files(tmp_path, content, message):
    (tmp_path / "val").mkdir()
    for number in (1, 2):
        cv2.imwrite(str(tmp_path / "val" / f"ILSVRC2012_val_{number:08d}.JPEG"), np.zeros((8, 8, 3), np.uint8))
    (tmp_path / "labels.txt").write_text(content)
    with pytest.raises(DataError, match=message):
        open_flat(tmp_path, "val", "val", ["n01440764", "n01443537", "n01484850"], str(tmp_path / "labels.txt"))
    with pytest.raises(DataError, match="put a file with their classes beside it"):
        open_flat(tmp_path, "val", "val", ["n01440764"])


def test_synthetic_images_need_no_data():
    config = load_config("imagenet_resnet50.yaml", ["DATA.SYNTHETIC", "True", "SOLVER.IMS_PER_BATCH", "4"])
    train, test = open_sets(config, training=True)
    assert isinstance(train, ImagesInMemory) and train.pixels.shape[1:] == (224, 224, 3)
    assert len(train.classes) == 1000 and len(test) == 4


def test_missing_root():
    config = load_config("cifar10_resnet20.yaml", ["DATA.ROOT", "nowhere/at/all"])
    with pytest.raises(DataError, match="nowhere/at/all.*does not exist.*--data-root"):
        open_sets(config, training=True)


@pytest.mark.parametrize(
    ("rows", "labels", "message"),
    [
        (np.zeros((2, 3072), np.uint8), ["a", "b"], "labels must be whole numbers from 0 to 9, not <U1"),
        (np.zeros((2, 3072), np.uint8), [1], "2 images, but 1 labels"),
        (np.zeros((2, 3072), np.uint8), [1, 10], "labels from 1 to 10, but 10 classes"),
        (np.zeros((2, 3072), np.uint8), [[1], [2, 3]], "labels must be whole numbers"),
        (np.zeros((2, 3072), np.float32), [1, 2], r"images must be numbers from 0 to 255, .* not float32"),
        (np.zeros((2, 3071), np.uint8), [1, 2], r"not uint8 \(2, 3071\)"),
        (np.full((2, 3072), 256), [1, 2], "not int64"),
        ("text", [1, 2], "images must be numbers"),
        (None, [1, 2], "no mapping with data and labels"),
        (np.zeros((0, 3072), np.uint8), [], "has no images for cifar10 test"),
    ],
)
def test_batches_of_other_types(tmp_path, rows, labels, message):
    write_batches(tmp_path / "cifar-10-batches-py", lambda name: rows, lambda name: labels)
    with pytest.raises(DataError, match=message):
        open_cifar(tmp_path, "test")


@pytest.mark.parametrize("content", [None, [1, 2], {"data": 1}])
def test_a_batch_that_is_none(tmp_path, content):
    (tmp_path / "test_batch").write_bytes(pickle.dumps(content, protocol=2))
    with pytest.raises(DataError, match="no mapping with data and labels"):
        open_cifar(tmp_path, "test")


@pytest.mark.parametrize("packed", [False, True])
def test_hidden_folders_and_files_are_no_classes_and_no_images(tmp_path, packed):
    folder_tree(tmp_path)
    for name in (".ipynb_checkpoints/a.jpg", "n01440764/._n01440764_0.JPEG"):
        (tmp_path / "train" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "train" / name).write_bytes(b"no image")
    (tmp_path / "train" / "n01440764" / "n01440764_0.JPEG").rename(tmp_path / "train" / "n01440764" / "a.jfif")
    root = tmp_path
    if packed:
        root = tmp_path / "images.zip"
        with zipfile.ZipFile(root, "w") as archive:
            for file in (tmp_path / "train").rglob("*"):
                archive.write(file, file.relative_to(tmp_path))
    found = open_class_folders(root, "train", "x")
    assert found.classes == ["n01440764", "n01443537", "n01484850"] and found.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert "train/n01440764/a.jfif" in found.files.tolist()


def test_class_folders_without_images_are_named(tmp_path):
    folder_tree(tmp_path)
    for name in ("dog", "cat"):
        (tmp_path / "train" / name).mkdir()
    with pytest.raises(DataError, match="train: 2 class folders without images, first 'cat'; add images or remove"):
        open_class_folders(tmp_path, "train", "x")
    classes = ["cat", "dog", "n01440764", "n01443537", "n01484850"]
    assert open_class_folders(tmp_path, "train", "x", classes).note == "no images in cat, dog"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff", "synsets.txt, line 1: byte 0xff is no text in UTF-8"),
        (b"a\0b", "synsets.txt, line 1: has a zero byte"),
        (b"\n", "lists no class"),
        (b"a\nb\na\n", "lists 'a' twice"),
    ],
)
def test_class_lists(tmp_path, content, message):
    folder_tree(tmp_path)
    folder_tree(tmp_path / "below", classes=("n01440764",))
    (tmp_path / "below" / "train").rename(tmp_path / "val")
    config = load_config("imagenet_resnet50.yaml", ["DATA.ROOT", str(tmp_path)])
    (tmp_path / "synsets.txt").write_bytes("n01440764 tench\r\nn01443537\nn01484850\n".encode("utf-16"))
    assert open_sets(config, training=True)[0].classes == ["n01440764", "n01443537", "n01484850"]
    (tmp_path / "synsets.txt").write_bytes(content)
    with pytest.raises(DataError, match=message):
        open_sets(config, training=True)


def test_an_image_in_an_archive_that_unpacks_to_gigabytes(tmp_path, monkeypatch):
    with zipfile.ZipFile(tmp_path / "images.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("train/cat/a.jpg", bytes(5000))
    monkeypatch.setattr("backbone.classification.data.sets.LARGEST_FILE", 4999)
    with pytest.raises(DataError, match="cannot be read: unpacks to 5,000 bytes"):
        open_class_folders(tmp_path / "images.zip", "train", "x").content(0)
