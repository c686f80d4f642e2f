"""Images of every common kind against Pillow's reading of them, and files that are no images."""

from __future__ import annotations

import io
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from backbone.common.errors import DataError
from backbone.common.images import find_images, jpeg, list_folders, list_images, read_image

ORIENTATION = 0x0112  # the EXIF tag
WIDTH, HEIGHT = 90, 60


@pytest.fixture(params=["simplejpeg", "opencv"], autouse=True)
def decoder(request, monkeypatch) -> str:
    """What decodes JPEG files: every test holds with each."""
    if request.param == "opencv":
        monkeypatch.setattr(jpeg, "simplejpeg", None)
    else:
        pytest.importorskip("simplejpeg")
    return request.param


@pytest.fixture(scope="module")
def picture() -> Image.Image:
    """A smooth RGB picture that no turn or mirror maps to itself."""
    noise = np.random.default_rng(0).integers(0, 255, (6, 9, 3), dtype=np.uint8)
    return Image.fromarray(cv2.resize(noise, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC))


def encode(picture: Image.Image, kind: str = "JPEG", orientation: int | None = None) -> bytes:
    options = {"quality": 95} if kind == "JPEG" else {}
    if orientation is not None:
        exif = Image.Exif()
        exif[ORIENTATION] = orientation
        options["exif"] = exif
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


@pytest.fixture
def write(tmp_path):
    def write(content: bytes, name: str = "image.jpg") -> Path:
        path = tmp_path / name
        path.write_bytes(content)
        return path

    return write


def apart(image: np.ndarray, expected: Image.Image | np.ndarray) -> int:
    """Return the largest difference between a BGR image and an RGB one."""
    expected = np.asarray(expected)
    assert image.shape == expected.shape
    assert image.dtype == np.uint8
    return int(np.abs(image[:, :, ::-1].astype(int) - expected).max())


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "WEBP", "TIFF"])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_colour_and_gray(picture, write, kind, mode):
    content = encode(picture.convert(mode), kind)
    expected = Image.open(io.BytesIO(content)).convert("RGB")
    # Decoders may round differently by a level.
    assert apart(read_image(write(content)), expected) <= (0 if kind in ("PNG", "BMP", "TIFF") else 3)


@pytest.mark.parametrize("mode", ["RGBA", "P", "LA", "1"])
def test_transparency_and_palettes(picture, write, mode):
    picture = picture.convert(mode)
    if mode in ("RGBA", "LA"):
        picture.putalpha(Image.linear_gradient("L").resize(picture.size))
    content = encode(picture, "PNG")
    assert apart(read_image(write(content)), picture.convert("RGB")) == 0


def test_cmyk(picture, write):
    content = encode(picture.convert("CMYK"))
    assert Image.open(io.BytesIO(content)).mode == "CMYK"
    image = read_image(write(content))
    expected = np.asarray(Image.open(io.BytesIO(content)).convert("RGB")).astype(int)
    # OpenCV and Pillow turn the four inks into colours by slightly different rules.
    assert np.abs(image[:, :, ::-1] - expected).mean() < 2
    # A decoder that forgets that Adobe writes the inks inverted would be far off.
    assert np.abs(image[:, :, ::-1] - (255 - expected)).mean() > 20


@pytest.mark.parametrize("channels", [1, 3])
def test_sixteen_bits_keep_the_upper_eight(write, channels):
    shape = (HEIGHT, WIDTH, channels) if channels > 1 else (HEIGHT, WIDTH)
    values = np.random.default_rng(0).integers(0, 65536, shape, dtype=np.uint16)
    image = read_image(write(cv2.imencode(".png", values)[1].tobytes(), "image.png"))
    expected = values.reshape(HEIGHT, WIDTH, channels) / 257
    assert image.shape == (HEIGHT, WIDTH, 3)
    assert np.abs(image - expected).max() <= 1


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_exif_orientation(picture, write, kind, orientation):
    content = encode(picture, kind, orientation)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(content)))
    path = write(content)
    assert apart(read_image(path), upright) <= 1
    assert apart(read_image(path, size=upright.size), upright) <= 1


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_exif_orientation_is_left_where_the_record_has_the_stored_size(picture, write, orientation):
    content = encode(picture, "JPEG", orientation)
    assert apart(read_image(write(content), size=(WIDTH, HEIGHT)), Image.open(io.BytesIO(content))) <= 1


@pytest.mark.parametrize("kind, mode", [("JPEG", "RGB"), ("JPEG", "L"), ("JPEG", "CMYK"), ("PNG", "RGB"), ("PNG", "L")])
@pytest.mark.parametrize("orientation", [1, 6])
def test_rgb_is_bgr_the_other_way_round(picture, write, kind, mode, orientation):
    path = write(encode(picture.convert(mode), kind, orientation))
    assert np.array_equal(read_image(path, channel_order="RGB"), read_image(path)[:, :, ::-1])


def test_name_beyond_ascii(picture, tmp_path):
    path = tmp_path / "Größe 图.png"
    path.write_bytes(encode(picture, "PNG"))
    assert apart(read_image(path), picture) == 0


@pytest.mark.parametrize("tail", [b"\0" * 10, b"\0" * 5000, b"SEFH" + bytes(range(256)) * 4])
def test_bytes_behind_a_jpeg_do_no_harm(picture, write, tail):
    """Phones and cameras put depth maps, previews and padding there."""
    content = encode(picture)
    assert np.array_equal(read_image(write(content + tail)), read_image(write(content, "plain.jpg")))


def thumbnailed(picture: Image.Image) -> bytes:
    """A JPEG whose EXIF part holds a whole smaller JPEG, end marker and all."""
    exif = b"Exif\0\0" + Image.Exif().tobytes()[6:] + encode(picture.resize((16, 16)))
    content = encode(picture)
    return content[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + content[2:]


@pytest.mark.parametrize("kept", [0.3, 0.6, 0.95])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "thumbnail"])
def test_cut_off_file(picture, write, kind, kept, capfd):
    content = thumbnailed(picture) if kind == "thumbnail" else encode(picture, kind)
    path = write(content)
    assert read_image(path).shape == (HEIGHT, WIDTH, 3)
    path.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(DataError, match="cut off") as caught:
        read_image(path)
    assert_one_line(caught.value, path)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("missing", [3, 12])
def test_the_very_end_of_a_jpeg_is_missing(picture, write, missing):
    with pytest.raises(DataError, match="cut off"):
        read_image(write(encode(picture)[:-missing]))


@pytest.mark.parametrize("content", [b"<html>404</html>", b"\xff\xd8", bytes(1000), b"version https://git-lfs"])
def test_not_an_image(write, content):
    path = write(content)
    with pytest.raises(DataError, match="not an image") as caught:
        read_image(path)
    assert_one_line(caught.value, path)


def test_empty_file(write):
    path = write(b"")
    with pytest.raises(DataError, match="0 bytes") as caught:
        read_image(path)
    assert_one_line(caught.value, path)


def test_missing_file_and_folder(tmp_path):
    for path in (tmp_path / "nothing.jpg", tmp_path):
        with pytest.raises(DataError, match="does not exist|is a folder") as caught:
            read_image(path)
        assert_one_line(caught.value, path)


@pytest.mark.parametrize("size", [(WIDTH + 1, HEIGHT), (HEIGHT, WIDTH), (WIDTH, 1)])
def test_size_mismatch_names_both_sizes(picture, write, size):
    path = write(encode(picture))
    with pytest.raises(DataError, match=f"{WIDTH}x{HEIGHT} pixels.*{size[0]}x{size[1]}.*check_data") as caught:
        read_image(path, size=size)
    assert_one_line(caught.value, path)


def assert_one_line(error: DataError, path: Path) -> None:
    assert str(path) in str(error)
    assert "\n" not in str(error)


@pytest.mark.parametrize(
    "options", [{}, {"progressive": True}, {"restart_marker_rows": 1}, {"subsampling": 0}], ids=lambda o: "".join(o)
)
def test_a_jpeg_without_its_end_marker_is_whole(write, picture, options, capfd):
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=95, **options)
    content = file.getvalue()
    expected = read_image(write(content))
    for end in (b"", b"\xff", bytes(512)):
        assert np.array_equal(read_image(write(content[:-2] + end)), expected)
    assert not capfd.readouterr().err
    for missing in (3, 4, 40, len(content) // 2):
        for padding in (b"", bytes(512)):
            with pytest.raises(DataError, match="cut off"):
                read_image(write(content[:-missing] + padding))


def test_gif(write, picture, monkeypatch):
    content = encode(picture.convert("P"), "GIF")
    assert apart(read_image(write(content)), picture.convert("P").convert("RGB")) == 0
    monkeypatch.setattr(cv2, "imdecode", lambda content, flags: None)  # as OpenCV before 4.11 answers
    assert apart(read_image(write(content)), picture.convert("P").convert("RGB")) == 0


def test_a_named_pipe_is_refused(tmp_path):
    os.mkfifo(tmp_path / "a.jpg")
    with pytest.raises(DataError, match=r"a\.jpg: is a pipe or a device; give a file"):
        read_image(tmp_path / "a.jpg")


def test_names_of_images(tmp_path):
    images = ["A.JPG", "b.jfif", "c.jpe", "d.gif", "e e.tiff"]
    for name in (*images, "._A.JPG", ".hidden.png", "notes.txt"):
        (tmp_path / name).touch()
    (tmp_path / "folder.png").mkdir()
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "deep" / "deeper").mkdir(parents=True)
    (tmp_path / "deep" / "deeper" / "f.png").touch()
    (tmp_path / ".thumbnails").mkdir()
    (tmp_path / ".thumbnails" / "g.png").touch()
    assert list_images(tmp_path) == images
    assert list_folders(tmp_path) == ["deep", "folder.png"]
    assert find_images(tmp_path) == sorted([*(tmp_path / name for name in images), tmp_path / "deep/deeper/f.png"])
