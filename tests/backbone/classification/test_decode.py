"""Crops and evaluation images against Pillow's pixels and torchvision's draws, from files of every kind."""

from __future__ import annotations

import io

import cv2
import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from scipy import stats
from torchvision import transforms
from torchvision.transforms import functional

from backbone.classification.data import decode
from backbone.classification.data.decode import CropSpec, decode_upright, draw_box, training_crop
from backbone.classification.data.jpeg import Box, decode_region, read_frame
from backbone.common.errors import ConfigError, DataError
from backbone.common.images import resize_image

ORIENTATION = 0x0112  # the EXIF tag
WIDTH, HEIGHT = 200, 140
KINDS = ("shorter_side", "area")
SMALL = {kind: CropSpec(kind, size=48, shorter_side=(56, 96), flip=False) for kind in KINDS}


def evaluation_image(content: np.ndarray, shorter_side: int) -> np.ndarray:
    """Decode an image in full and resize it as torchvision's Resize does a Pillow image."""
    image = content if content.ndim == 3 else decode_upright(content)
    height, width = image.shape[:2]
    shorter = min(height, width)
    return resize_image(image, shorter_side * width // shorter, shorter_side * height // shorter)


@pytest.fixture(scope="module")
def picture() -> Image.Image:
    """A smooth RGB picture that no turn or mirror maps to itself."""
    noise = np.random.default_rng(0).integers(0, 255, (14, 20, 3), dtype=np.uint8)
    return Image.fromarray(cv2.resize(noise, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC))


def encode(picture: Image.Image, kind: str = "JPEG", **options) -> np.ndarray:
    """Return the bytes of a file; `orientation` goes into its EXIF."""
    if kind == "JPEG":
        options = {"quality": 95, **options}
    if "orientation" in options:
        exif = Image.Exif()
        exif[ORIENTATION] = options.pop("orientation")
        options["exif"] = exif
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return np.frombuffer(file.getvalue(), dtype=np.uint8)


def pillow(content: np.ndarray) -> Image.Image:
    return ImageOps.exif_transpose(Image.open(io.BytesIO(content.tobytes()))).convert("RGB")


def cut(picture: Image.Image, box: Box, size: int) -> np.ndarray:
    """Return what Pillow makes of a part."""
    x, y, width, height = box
    part = picture.crop((x, y, x + width, y + height))
    return np.asarray(part.resize((size, size), Image.Resampling.BILINEAR), dtype=int)


def drawn(width: int, height: int, seed: int, spec: CropSpec) -> Box:
    return draw_box(width, height, np.random.default_rng(seed), spec)


def crop(content: np.ndarray, seed: int, spec: CropSpec) -> np.ndarray:
    return training_crop(content, np.random.default_rng(seed), spec)


def apart(left: np.ndarray, right: np.ndarray) -> float:
    """Return the mean absolute difference in levels."""
    assert left.shape == right.shape
    return float(np.abs(left.astype(int) - right.astype(int)).mean())


VARIANTS = {
    "4:2:0": ("RGB", {"subsampling": 2}),
    "4:2:2": ("RGB", {"subsampling": 1}),
    "4:4:4": ("RGB", {"subsampling": 0}),
    "gray": ("L", {}),
    "progressive": ("RGB", {"progressive": True}),
    "restarts": ("RGB", {"restart_marker_rows": 1}),
    "EXIF": ("RGB", {"orientation": 1}),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_crops_are_pillows(picture, kind, variant, capfd):
    mode, options = VARIANTS[variant]
    content = encode(picture.convert(mode), **options)
    for seed in range(12):
        found = crop(content, seed, SMALL[kind])
        assert found.shape == (48, 48, 3) and found.dtype == np.uint8 and found.flags.c_contiguous
        box = drawn(WIDTH, HEIGHT, seed, SMALL[kind])
        if decode.choose_reduction(box, 48) == 1:
            assert np.abs(found - cut(pillow(content), box, 48)).max() <= 3
    # libjpeg warns on stderr of what it does not expect; a short reading must not look like a defect.
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("subsampling", [0, 1, 2])
def test_rows_below_the_region_are_not_read(picture, subsampling, capfd):
    content = encode(picture, subsampling=subsampling)
    frame = read_frame(content.tobytes())
    whole = np.asarray(pillow(content))
    # Noise in the place of the file's second half would be seen if it were decoded.
    broken = content.copy()
    broken[len(content) * 3 // 4 : -2] = np.random.default_rng(0).integers(
        0, 255, len(content[len(content) * 3 // 4 : -2])
    )
    for bottom in range(1, HEIGHT // 2):
        box = Box(3, 0, WIDTH - 5, bottom)
        region = decode_region(content, frame, box)
        assert np.abs(region.astype(int) - whole[:bottom, 3 : WIDTH - 2]).max() <= 2
        np.testing.assert_array_equal(region, decode_region(broken, frame, box))
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation(picture, kind, orientation):
    content = encode(picture, orientation=orientation)
    upright = pillow(content)
    assert (upright.size == (HEIGHT, WIDTH)) == (orientation > 4)
    # Too large for reduced decoding, which moves a box.
    spec = CropSpec(kind, size=72, shorter_side=(80, 120), flip=False)
    for seed in range(6):
        assert apart(crop(content, seed, spec), cut(upright, drawn(*upright.size, seed, spec), 72)) < 0.5
    assert apart(evaluation_image(content, 70), np.asarray(functional.resize(upright, 70))) < 0.5


def test_real_images_are_near_pillows(shared_data):
    files = sorted((shared_data / "imagenet_sample" / "images").glob("*/*"))[::6]
    limits = {"antialiased": 0.2, "linear": 2.5}
    for interpolation, limit in limits.items():
        spec = CropSpec("area", flip=False, interpolation=interpolation)
        differences = []
        for seed, path in enumerate(files):
            content = np.fromfile(path, dtype=np.uint8)
            box = drawn(*pillow(content).size, seed, spec)
            if decode.choose_reduction(box, spec.size) == 1:
                differences.append(apart(crop(content, seed, spec), cut(pillow(content), box, spec.size)))
        assert len(differences) > 30
        assert np.mean(differences) < limit


def test_reduced_decoding_keeps_the_picture(shared_data):
    """2.5 to 2.8 levels in the mean from Pillow's at the very box: the inverse DCT's own filter keeps more detail."""
    files = sorted((shared_data / "imagenet_sample" / "images").glob("*/*"))[::12]
    for size, reduction in ((150, 2), (75, 4), (37, 8)):
        differences = []
        for path in files:
            content = np.fromfile(path, dtype=np.uint8)
            upright = pillow(content)
            side = min(300, *upright.size)
            box = decode.align(Box(8, 8, side, side), reduction) if min(upright.size) >= side + 8 else None
            if box is None or decode.choose_reduction(box, size) != reduction:
                continue
            region = decode_region(content, read_frame(content.tobytes()), box, reduction=reduction)
            assert region.shape[0] == box.height // reduction
            differences.append(apart(decode.resize(region, size, size), cut(upright, box, size)))
        assert len(differences) > 10
        assert np.mean(differences) < 4


def test_large_images_are_decoded_reduced(picture, monkeypatch):
    large = picture.resize((1600, 1120), Image.Resampling.BICUBIC)
    content = encode(large)
    seen = []
    real = decode.decode_region

    def spy(content, frame, box, *, reduction):
        seen.append(reduction)
        assert min(box.width, box.height) // reduction >= 48
        assert all(value % reduction == 0 for value in box)
        return real(content, frame, box, reduction=reduction)

    monkeypatch.setattr(decode, "decode_region", spy)
    for seed in range(20):
        found = crop(content, seed, SMALL["shorter_side"])
        box = decode.align(drawn(1600, 1120, seed, SMALL["shorter_side"]), 8)
        assert apart(found, cut(large, box, 48)) < 1
    assert set(seen) == {8}


@pytest.mark.parametrize(
    ("kind", "mode"),
    [("PNG", "RGB"), ("PNG", "RGBA"), ("PNG", "L"), ("PNG", "P"), ("BMP", "RGB"), ("WEBP", "RGB"), ("TIFF", "RGB")],
)
def test_other_formats_under_a_jpeg_name(picture, kind, mode):
    content = encode(picture.convert(mode), kind)
    expected = Image.open(io.BytesIO(content.tobytes())).convert("RGB")
    for name, spec in SMALL.items():
        box = drawn(WIDTH, HEIGHT, 3, spec)
        assert apart(crop(content, 3, spec), cut(expected, box, 48)) < 0.5, name
    assert apart(evaluation_image(content, 70), np.asarray(functional.resize(expected, 70))) < 0.1


def test_cmyk(picture):
    content = encode(picture.convert("CMYK"))
    assert read_frame(content.tobytes()) is None
    assert apart(evaluation_image(content, HEIGHT), np.asarray(pillow(content))) < 3
    assert crop(content, 0, SMALL["area"]).shape == (48, 48, 3)


def test_sixteen_bits(picture):
    wide = np.asarray(picture).astype(np.uint16) * 257
    content = cv2.imencode(".png", wide[:, :, ::-1])[1].reshape(-1)
    assert apart(evaluation_image(content, HEIGHT), np.asarray(picture)) < 1


def test_decoded_images_are_cropped_alike(picture):
    array = np.asarray(picture)
    content = encode(picture, "PNG")
    array.setflags(write=False)
    for kind in KINDS:
        np.testing.assert_array_equal(crop(array, 5, SMALL[kind]), crop(content, 5, SMALL[kind]))


@pytest.mark.parametrize("shorter", [64, 140, 200])
def test_evaluation_images_are_torchvisions(picture, shorter):
    content = encode(picture, "PNG")
    for image in (content, np.asarray(picture)):
        found = evaluation_image(image, shorter)
        difference = np.abs(found - np.asarray(functional.resize(picture, shorter), dtype=int))
        # Of a sum at the half between two levels, the rounding differs.
        assert difference.max() <= 1 and difference.mean() < 0.005


def test_the_same_seed_gives_the_same_crop_and_flips_are_mirrors(picture):
    content = encode(picture)
    flips = 0
    for seed in range(200):
        spec = CropSpec("area", size=24, flip=True)
        found = crop(content, seed, spec)
        np.testing.assert_array_equal(found, crop(content, seed, spec))
        plain = crop(content, seed, CropSpec("area", size=24, flip=False))
        mirrored = np.array_equal(found, plain[:, ::-1])
        assert mirrored or np.array_equal(found, plain)
        flips += mirrored
    assert stats.binomtest(flips, 200, 0.5).pvalue > 0.01


def test_shorter_side_is_drawn_from_all_lengths():
    """The part's size gives back the length of the shorter side; its place is uniform."""
    random = np.random.default_rng(0)
    spec = CropSpec("shorter_side")
    boxes = [draw_box(5000, 3750, random, spec) for _ in range(4000)]
    assert all(0 <= b.x <= 5000 - b.width and 0 <= b.y <= 3750 - b.height for b in boxes)
    lengths = np.array([round(224 * 3750 / box.height) for box in boxes])
    assert lengths.min() == 256 and lengths.max() == 480
    counts = np.bincount(lengths - 256, minlength=225)
    assert stats.chisquare(counts).pvalue > 0.001
    for places in ([b.x / (5000 - b.width) for b in boxes], [b.y / (3750 - b.height) for b in boxes]):
        assert stats.kstest(places, "uniform").pvalue > 0.001


@pytest.mark.parametrize("size", [(500, 375), (300, 900), (64, 64)])
def test_area_is_drawn_as_torchvision_draws(size):
    width, height = size
    random = np.random.default_rng(0)
    torch.manual_seed(0)
    spec = CropSpec("area")
    image = Image.new("RGB", size)
    ours = np.array([draw_box(width, height, random, spec) for _ in range(3000)])
    get_params = transforms.RandomResizedCrop.get_params
    theirs = np.array([get_params(image, [0.08, 1.0], [3 / 4, 4 / 3]) for _ in range(3000)])[:, [1, 0, 3, 2]]
    for column in range(4):
        assert stats.ks_2samp(ours[:, column], theirs[:, column]).pvalue > 0.001


def test_images_too_long_for_any_ratio_are_cut_in_the_middle():
    spec = CropSpec("area", area=(1.0, 1.0))
    assert drawn(1000, 100, 0, spec) == Box(433, 0, 133, 100)
    assert drawn(100, 1000, 0, spec) == Box(0, 433, 100, 133)


@pytest.mark.parametrize("size", [(1, 1), (3, 50), (20, 9), (48, 48)])
@pytest.mark.parametrize("kind", KINDS)
def test_tiny_images(picture, size, kind):
    content = encode(picture.resize(size))
    for seed in range(5):
        assert crop(content, seed, SMALL[kind]).shape == (48, 48, 3)
    assert min(evaluation_image(content, 50).shape[:2]) == 50


def test_broken_files(picture):
    whole, png = encode(picture), encode(picture, "PNG")
    cases = {
        "cut off": whole[: len(whole) // 2],
        "cut off inside its header": whole[:30],
        "empty": whole[:0],
        "not an image": np.frombuffer(b"<html>not found</html>", dtype=np.uint8),
        "broken or cut off": png[: len(png) // 2],
    }
    for message, content in cases.items():
        for read in (lambda c: crop(c, 0, SMALL["area"]), lambda c: evaluation_image(c, 64)):
            with pytest.raises(DataError, match="cut off" if "cut off" in message else message):
                read(content)
    for length in range(0, len(whole) - 2, 97):
        with pytest.raises(DataError):
            crop(whole[:length], 0, SMALL["area"])


def test_a_header_that_lies_about_its_size(picture):
    content = encode(picture).copy()
    at = read_frame(content.tobytes()).height_at
    content[at : at + 4] = 255
    with pytest.raises(DataError):
        crop(content, 0, SMALL["area"])


def test_wrong_specs():
    with pytest.raises(ConfigError, match="did you mean 'shorter_side'"):
        CropSpec("shorter_sides")
    with pytest.raises(ConfigError, match="does not fit"):
        CropSpec("shorter_side", size=300)
