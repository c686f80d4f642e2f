"""Tar shards against the same images in folders, and against tarfile."""

from __future__ import annotations

import io
import json
import re
import tarfile
from pathlib import Path

import cv2
import numpy as np
import pytest

from backbone import DataError
from backbone.classification import load_config
from backbone.classification.data import open_sets, shards
from backbone.classification.data.batches import make_batches
from backbone.engine.solver import device_of

CLASSES = ("n00000001", "n00000002", "n00000003")


def jpeg(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (40, 48, 3), dtype=np.uint8)
    return cv2.imencode(".jpg", pixels)[1].tobytes()


def write_tar(path: Path, members: list[tuple[str, bytes]], **keywords) -> None:
    with tarfile.open(path, "w", **keywords) as archive:
        for name, content in members:
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))


@pytest.fixture(scope="module")
def images() -> dict[str, list[tuple[int, bytes]]]:
    """Class and file of each image of the splits, sorted by class."""
    return {"train": [(row // 4, jpeg(row)) for row in range(12)], "val": [(row, jpeg(99 + row)) for row in range(3)]}


@pytest.fixture(scope="module")
def folders(images, tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("folders")
    for split, files in images.items():
        for number, (label, content) in enumerate(files):
            path = root / split / CLASSES[label] / f"{number:03}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    return root


def settings(root: Path, *more: object):
    keys = {
        "DATA.NAME": "folder",
        "DATA.ROOT": str(root),
        "SOLVER.IMS_PER_BATCH": 4,
        "DATALOADER.NUM_WORKERS": 0,
        "INPUT.TRAIN_SIZE": 32,
        "INPUT.SHORTER_SIDE": (36, 40),
        "MODEL.DEVICE": "cpu",
    }
    return load_config("imagenet_resnet18.yaml", [*(part for pair in keys.items() for part in pair), *more])


FORMS = {
    "cls": lambda key, label, content: [(f"{key}.jpg", content), (f"{key}.cls", str(label).encode())],
    "label first": lambda key, label, content: [(f"{key}.cls", f"{label}\n".encode()), (f"{key}.JPEG", content)],
    "json": lambda key, label, content: [
        (f"./a/{key}.json", json.dumps({"label": label, "height": 40}).encode()),
        (f"./a/{key}.jpg", content),
    ],
    "names": lambda key, label, content: [(f"{key}.jpg", content), (f"{key}.cls", CLASSES[label].encode())],
    "escaping": lambda key, label, content: [
        (f"../../{key}.jpg", content),
        (f"../../{key}.cls", str(label).encode()),
    ],
}


def write_shards(root: Path, images, form, name: str = "{split}-{number:06}.tar", **keywords) -> None:
    for split, files in images.items():
        samples = [form(f"{row:03}", *file) for row, file in enumerate(files)]
        for number in range(0, len(samples), 5):
            members = [member for sample in samples[number : number + 5] for member in sample]
            path = root / name.format(split=split, number=number // 5)
            path.parent.mkdir(exist_ok=True)
            write_tar(path, [*members, (f"readme{number}", b"no sample")], **keywords)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "name", ["{split}-{number:06}.tar", "imagenet1k-{split}-{number:04}.tar", "{split}/{number}.tar"]
)
def test_shards_hold_the_images_of_the_folders(images, folders, tmp_path, form, name):
    write_shards(tmp_path, images, FORMS[form], name)
    if form != "names":
        (tmp_path / "synsets.txt").write_text("\n".join(CLASSES))
    expected, found = (open_sets(settings(root), training=True) for root in (folders, tmp_path))
    for a, b in zip(expected, found):
        assert a.classes == b.classes and np.array_equal(a.labels, b.labels)
        assert all(np.array_equal(a.content(row), b.content(row)) for row in range(len(a)))
        assert [len(b.first(2)), str(tmp_path) in b.place(1)] == [2, True]


def test_a_training_sees_the_same_batches_from_any_step_on(images, folders, tmp_path):
    write_shards(tmp_path, images, FORMS["cls"], format=tarfile.GNU_FORMAT)
    batches = []
    for root, start in ((folders, 0), (tmp_path, 0), (tmp_path, 3)):
        config = settings(root)
        train, _ = open_sets(config, training=True)
        batches.append(list(make_batches(train, config, device_of(config)).steps(start, 5)))
    assert [len(run) for run in batches] == [5, 5, 2]
    for expected, found in zip([*batches[0], *batches[0][3:]], [*batches[1], *batches[2]]):
        assert expected.images.equal(found.images) and expected.labels.equal(found.labels)


def test_long_names_and_what_is_no_file_are_as_tarfile_reads_them(images, tmp_path):
    path, long = tmp_path / "train-0.tar", "x" * 180 + "ü"
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        link = tarfile.TarInfo("link.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
        for name, content in FORMS["cls"](long, 1, images["train"][0][1]):
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    found = shards.open_shards([path], "train")
    with tarfile.open(path) as archive:
        assert archive.extractfile(f"{long}.jpg").read() == found.content(0).tobytes()
    assert len(found) == 1 and found.labels.tolist() == [1] and found.classes == ["0", "1"]


@pytest.mark.parametrize(
    "members,message",
    [
        ([("a.jpg", b"1")], r"a\.jpg has no class; put a member a\.cls beside it"),
        ([("a.jpg", b"1"), ("a.cls", b"")], r"a\.cls holds no class"),
        ([("a.jpg", b"1"), ("a.json", b"{")], r"a\.json holds no class"),
        ([("a.jpg", b"1"), ("a.png", b"1"), ("a.cls", b"1")], r"a has two images, \.png is the second"),
        ([("a.txt", b"1")], "no image in it"),
        ([("a\n\x1b.jpg", b"1")], r"'a\\n\\x1b\.jpg' has no class"),
    ],
)
def test_what_is_no_sample_is_named_in_one_line(members, message, tmp_path):
    write_tar(tmp_path / "train-0.tar", members)
    with pytest.raises(DataError, match=rf"train-0\.tar: .*{message}") as error:
        shards.open_shards([tmp_path / "train-0.tar"], "train")
    assert "\n" not in str(error.value)


def test_damaged_and_compressed_archives_are_named(images, tmp_path):
    path = tmp_path / "train-0.tar"
    members = [member for row, file in enumerate(images["train"]) for member in FORMS["cls"](str(row), *file)]
    write_tar(path, members)
    whole, size = path.read_bytes(), 512 + 512 * -(-len(members[0][1]) // 512)
    for content in (
        whole[: size // 2],
        whole[:size] + b"x" * 512 + whole[size + 512 :],
        whole[: size + 100],
        b"",
        b"PK",
    ):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"train-0\.tar: not a readable tar archive"):
            shards.open_shards([path], "train")
    with tarfile.open(path, "w:gz") as archive:
        archive.addfile(tarfile.TarInfo("a.jpg"))
    with pytest.raises(DataError, match="not compressed"):
        shards.open_shards([path], "train")
    path.write_bytes(whole)
    with pytest.raises(DataError, match=r"0\.jpg: its class '0' is none of the 0 classes|its class '2'"):
        shards.open_shards([path], "train", classes=("a", "b"))
    found = shards.open_shards([path], "train")
    path.write_bytes(whole[: int(found.index.offsets[-1])])
    with pytest.raises(DataError, match="bytes are missing"):
        found.content(len(found) - 1)


def test_the_list_of_large_shards_is_kept_until_they_change(images, tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "LEAST_BYTES", 0)
    monkeypatch.setenv("RESNET_DETECTION_CACHE", str(tmp_path / "cache"))
    write_shards(tmp_path, images, FORMS["cls"])
    files, read = shards.find_shards(tmp_path, "train"), []
    members = shards.tar_members
    monkeypatch.setattr(shards, "tar_members", lambda path, *along: read.append(path) or members(path, *along))
    first, second = (shards.open_shards(files, "train") for _ in range(2))
    assert read == files and len(files) == 3 and np.array_equal(first.labels, second.labels)
    assert all(np.array_equal(first.content(row), second.content(row)) for row in range(len(first)))
    (kept,) = (tmp_path / "cache" / "shards").iterdir()
    kept.write_bytes(b"damaged")
    write_tar(files[2], FORMS["cls"]("new", 0, images["val"][0][1]))
    assert len(shards.open_shards(files, "train")) == 11 and len(read) == 6
    assert re.fullmatch(r".+-[0-9a-f]{16}\.npz", kept.name)
