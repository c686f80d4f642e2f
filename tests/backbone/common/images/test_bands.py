"""Gray images and bands: NumPy files, TIFF, PNG with alpha, against the arrays that were written."""

from __future__ import annotations

import pickle

import cv2
import numpy as np
import pytest
from PIL import Image

from backbone import DataError
from backbone.common.images import picture_of, read_image, resize_image

RNG = np.random.default_rng(0)


def array(*shape: int, dtype: type = np.uint8) -> np.ndarray:
    return RNG.integers(0, 256, shape).astype(dtype)


def bands(path, channels=None, **more) -> np.ndarray:
    return read_image(path, channel_order="bands", channels=channels, **more)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32, np.float64])
@pytest.mark.parametrize("channels", [1, 4, 12])
def test_numpy_files(tmp_path, dtype, channels):
    image = array(6, 9, channels, dtype=dtype)
    np.save(tmp_path / "a.npy", image)
    found = bands(tmp_path / "a.npy", channels, size=(9, 6))
    assert found.dtype == (np.uint8 if dtype == np.uint8 else np.float32) and np.array_equal(found, image)
    np.save(tmp_path / "b.npy", image.transpose(2, 0, 1))
    assert np.array_equal(bands(tmp_path / "b.npy", channels), image)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_pages_of_a_tiff_file_are_bands(tmp_path, dtype):
    image = array(6, 9, 5, dtype=dtype)
    pages = [Image.fromarray(image[:, :, band]) for band in range(5)]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    assert np.array_equal(bands(tmp_path / "a.tif", 5), image)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_alpha_is_the_fourth_band_behind_red_green_and_blue(tmp_path, suffix):
    image = array(6, 9, 4)
    Image.fromarray(image, "RGBA").save(tmp_path / f"a{suffix}")
    assert np.array_equal(bands(tmp_path / f"a{suffix}", 4), image)
    assert np.array_equal(picture_of(image, "bands"), image[:, :, 2::-1])


@pytest.mark.parametrize("suffix", [".png", ".tif", ".pgm", ".gif"])
def test_gray_images(tmp_path, suffix):
    image = array(6, 9)
    Image.fromarray(image).save(tmp_path / f"a{suffix}")
    found = read_image(tmp_path / f"a{suffix}", channel_order="L", size=(9, 6))
    assert found.shape == (6, 9, 1) and np.array_equal(found[:, :, 0], image)
    assert picture_of(found, "L").shape == (6, 9, 3)


def test_a_colour_image_as_gray_is_opencvs(tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), array(6, 9, 3))
    expected = cv2.imread(str(tmp_path / "a.png"), cv2.IMREAD_GRAYSCALE)
    assert np.array_equal(read_image(tmp_path / "a.png", channel_order="L")[:, :, 0], expected)


class Hostile:
    def __reduce__(self):
        return print, ("run",)


def test_what_is_no_image_of_bands(tmp_path, capsys):
    path = tmp_path / "a.npy"
    wrong = {
        "another number": array(6, 9, 3),
        "nan": np.full((6, 9, 4), np.nan),
        "complex": array(6, 9, 4) * 1j,
        "text": np.full((6, 9, 4), "a"),
        "shape": array(2, 6, 9, 4),
        "empty": array(0, 9, 4),
    }
    for image in wrong.values():
        np.save(path, image)
        with pytest.raises(DataError, match="a.npy: "):
            bands(path, 4)
    np.save(path, np.array([Hostile()], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match="without pickle"):
        bands(path, 4)
    np.save(path, array(6, 9, 4))
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(DataError, match="without pickle"):
        bands(path, 4)
    path.write_bytes(pickle.dumps(Hostile()))
    with pytest.raises(DataError, match="OpenCV"):
        bands(path, 4)
    np.save(path, array(6, 9, 4))
    with pytest.raises(DataError, match="9x6 pixels, its JSON record says 6x9"):
        bands(path, 4, size=(6, 9))
    assert "run" not in capsys.readouterr().out


@pytest.mark.parametrize("channels", [1, 4, 12])
def test_every_band_is_resized_as_a_gray_image(channels):
    image = array(40, 60, channels)
    found = resize_image(image, 33, 21)
    for band in range(channels):
        plain = np.asarray(Image.fromarray(image[:, :, band]).resize((33, 21), Image.Resampling.BILINEAR))
        assert np.abs(found[:, :, band].astype(int) - plain).max() <= 1


def test_arrays_are_images_in_a_folder_without_others(tmp_path):
    from backbone.common.images import list_images
    from backbone.common.images.inputs import find_inputs

    (tmp_path / "in").mkdir()
    for name in ("b.npy", "a.NPY", ".c.npy", "notes.txt"):
        (tmp_path / "in" / name).write_bytes(b"x")
    assert list_images(tmp_path) == [] and list_images(tmp_path / "in") == ["a.NPY", "b.npy"]
    assert [path.name for path in find_inputs(str(tmp_path), tmp_path / "out", ".jpg")] == ["a.NPY", "b.npy"]
    (tmp_path / "in" / "d.png").write_bytes(b"x")
    assert list_images(tmp_path / "in") == ["d.png"]
    assert [path.name for path in find_inputs(str(tmp_path), tmp_path / "out", ".jpg")] == ["d.png"]
    (tmp_path / "list.txt").write_text("in/d.png\n./in/d.png\n")
    assert len(find_inputs(str(tmp_path / "list.txt"), tmp_path / "out", ".jpg")) == 1
