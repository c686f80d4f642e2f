"""Predictions as arrays and back."""

import numpy as np
import pytest

from detection.inference.gathering import gather_records, pack, unpack
from detection.inference.run import encode_mask

IMAGE_IDS = np.array([139, 285, 632])


def records(image_id: int, number: int, kind: str) -> list[dict]:
    random = np.random.default_rng(image_id)
    found = [
        {"image_id": image_id, "category_id": 1 + place, "bbox": box, "score": score}
        for place, (box, score) in enumerate(zip(random.random((number, 4)).tolist(), random.random(number).tolist()))
    ]
    for record in found:
        if kind == "segm":
            record["segmentation"] = encode_mask(random.random((5, 7)) < 0.5)
        if kind == "keypoints":
            record["keypoints"] = random.random(3 * 4).tolist()
    return found


@pytest.mark.parametrize("kind", ["bbox", "segm", "keypoints"])
def test_records_come_back_to_the_last_bit(kind):
    found = [(2, records(632, 3, kind)), (0, []), (1, records(285, 1, kind))]
    assert unpack(pack(found), IMAGE_IDS) == found
    assert unpack(pack([]), IMAGE_IDS) == []
    assert gather_records(found, IMAGE_IDS) == found[2][1] + found[0][1]
