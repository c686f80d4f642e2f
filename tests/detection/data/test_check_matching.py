"""Files named as annotation tools name them."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest

from detection.data.checks.files import Folder

COMPOSED, DECOMPOSED = (unicodedata.normalize(form, "Straße é.jpg") for form in ("NFC", "NFD"))


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("tree")
    for name in ("a.jpg", "b c.jpg", "d%20e.jpg", "train/f.JPG", "x/g.jpg", "y/g.jpg", COMPOSED, "one/two/h.jpg"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    (root / "loop").symlink_to(root, target_is_directory=True)
    return root


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("a.jpg", "a.jpg"),
        ("A.JPG", "a.jpg"),
        ("./a.jpg", "./a.jpg"),
        ("images\\a.jpg", "a.jpg"),
        ("images/a.jpg", "a.jpg"),
        ("C:\\data\\images\\a.jpg", "a.jpg"),
        ("/home/somebody/images/a.jpg", "a.jpg"),
        ("../images/a.jpg", "a.jpg"),
        ("b%20c.jpg", "b c.jpg"),
        ("d%20e.jpg", "d%20e.jpg"),
        ("https://host/some/b%20c.jpg?size=full&v=2", "b c.jpg"),
        ("file:///home/somebody/a.jpg", "a.jpg"),
        ("s3://bucket/train/f.jpg", "train/f.JPG"),
        ("/data/local-files/?d=images/a.jpg", "a.jpg"),
        ("f.jpg", "train/f.JPG"),
        ("/home/somebody/other/f.jpg", "train/f.JPG"),
        ("two/h.jpg", "one/two/h.jpg"),
        ("images/y/g.jpg", "y/g.jpg"),
        (DECOMPOSED, COMPOSED),
        (COMPOSED.upper(), COMPOSED),
        ("other/f.jpg", None),
        ("none.jpg", None),
        ("a\0b/none.jpg", None),
        ("?", None),
        ("", None),
    ],
)
def test_one_file_is_found(tree, name, file):
    found = Folder(tree).find({"file_name": name})
    assert found == ([] if file is None else [file])


def test_a_file_named_by_its_url_alone(tree):
    assert Folder(tree).find({"coco_url": "http://images.cocodataset.org/val2017/a.jpg"}) == ["a.jpg"]
    assert Folder(tree).find({"file_name": "none.jpg", "coco_url": "http://host/a.jpg"}) == ["a.jpg"]


def test_files_that_fit_alike_are_all_told(tree):
    assert Folder(tree).find({"file_name": "g.jpg"}) == ["x/g.jpg", "y/g.jpg"]
