"""Byte strings and texts in one array, against the list of them."""

import pickle

import pytest

from detection.data.packed import Packed, PackedTexts, joined

TEXTS = ["a/b.jpg", "", "Straße 中.png", "no UTF-8 \udcff.jpg", "a/b.jpg"]


@pytest.mark.parametrize(
    "kind,items", [(PackedTexts, TEXTS), (Packed, [text.encode("utf-16-le", "surrogatepass") for text in TEXTS])]
)
def test_packed_items_are_those_of_the_list(kind, items):
    packed = kind.of(iter(items))
    assert list(packed) == items and packed == items and packed != items[:-1]
    assert [packed[-1], packed[1:4], len(packed)] == [items[-1], items[1:4], len(items)]
    assert kind.of(packed) is packed and pickle.loads(pickle.dumps(packed)) == items
    assert joined([packed, kind.of([]), packed]) == items + items
    for index in (len(items), -len(items) - 1):
        with pytest.raises(IndexError):
            packed[index]
