"""simplejpeg's pixels against OpenCV's on real photographs."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from backbone.common.images.jpeg import decode_jpeg

pytest.importorskip("simplejpeg")


@pytest.mark.parametrize("order", ["BGR", "RGB"])
def test_the_same_bits_as_opencv(shared_data, order):
    files = sorted((shared_data / "coco" / "val2017").glob("*.jpg"))
    assert files
    for file in files:
        content = np.fromfile(file, dtype=np.uint8)
        expected = cv2.imdecode(content, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
        expected = expected if order == "BGR" else expected[:, :, ::-1]
        assert np.array_equal(decode_jpeg(content, order), expected), file


def test_what_it_does_not_take_is_left_to_opencv(shared_data):
    content = np.fromfile(next((shared_data / "coco" / "val2017").glob("*.jpg")), dtype=np.uint8)
    assert decode_jpeg(content[: len(content) // 2], "BGR") is None
    assert decode_jpeg(cv2.imencode(".png", np.zeros((4, 4, 3), np.uint8))[1], "BGR") is None
    assert decode_jpeg(np.zeros(0, np.uint8), "BGR") is None
