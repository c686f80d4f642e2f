"""A detector's heads from one set of classes to another: rows of classes with the same meaning are kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from backbone.common.class_names import meaning

# Beginning of a name -> end -> rows a class, and rows that follow those of the classes: the score of the background.
ROWS = {
    "roi_heads.": {"cls_score": (1, 1), "bbox_pred": (4, 0), "mask_head.predictor": (1, 0)},
    # RetinaNet's: rows of all classes for one anchor after the other, and boxes that are the same for all classes.
    "head.": {"cls_score": (1, 0)},
}


def map_classes(former: Sequence[str], wanted: Sequence[str]) -> list[int | None]:
    """Return for each wanted class the place of the one with the same meaning, or None."""
    places: dict[str, int] = {}
    for place, name in enumerate(former):
        places.setdefault(meaning(name), place)
    return [places.get(meaning(name)) for name in wanted]


def map_heads(
    tensors: Mapping[str, Tensor], fresh: Mapping[str, Tensor], mapping: Sequence[int | None], former: int
) -> dict[str, Tensor]:
    """Return a detector's tensors with the heads' rows set in the order of other classes.

    Args:
        tensors: of the trained detector.
        fresh: of the new model; classes without a former one keep its rows.
        mapping: see `map_classes`.
        former: number of classes of the trained detector.
    """
    return {
        name: _map_rows(tensor, fresh[name], mapping, former, *rows)
        if name in fresh and (rows := _rows_of(name)) is not None
        else tensor
        for name, tensor in tensors.items()
    }


def _rows_of(name: str) -> tuple[int, int] | None:
    layer = name.rpartition(".")[0]
    ends = next((ends for start, ends in ROWS.items() if name.startswith(start)), {})
    return next((rows for end, rows in ends.items() if layer.endswith(end)), None)


def _map_rows(
    tensor: Tensor, fresh: Tensor, mapping: Sequence[int | None], former: int, each: int, behind: int
) -> Tensor:
    rows, wanted = former * each + behind, len(mapping) * each + behind
    anchors = len(fresh) // wanted
    is_of_classes = anchors > 0 and (len(tensor), len(fresh)) == (anchors * rows, anchors * wanted)
    # Heads that are the same for all classes stay; another shape is left to the check of what fits.
    if not is_of_classes or tensor.shape[1:] != fresh.shape[1:]:
        return tensor
    result = fresh.detach().clone()
    mapped, source = (value.unflatten(0, (anchors, -1)) for value in (result, tensor.to(result)))
    for place, old in enumerate(mapping):
        if old is not None:
            mapped[:, place * each : (place + 1) * each] = source[:, old * each : (old + 1) * each]
    if behind:
        mapped[:, -behind:] = source[:, -behind:]
    return result
