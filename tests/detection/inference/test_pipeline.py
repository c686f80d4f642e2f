"""Images through a detector: in order, in batches of one shape, few in memory, errors in their place."""

from __future__ import annotations

import threading
import weakref
from itertools import count

import pytest
import torch
from detectron2.structures import Instances
from torch import nn

from backbone import DataError
from detection.inference.pipeline import WAITING, WINDOW, in_order, run_pipeline


class Sums(nn.Module):
    """Stands for a detector: the scores of an image are the sum of its pixels, and how many came with it."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, samples):
        assert len({sample["image"].shape for sample in samples}) == 1
        return [{"instances": self.found(sample, len(samples))} for sample in samples]

    def found(self, sample, together):
        scores = torch.stack([sample["image"].sum() * self.weight[0], torch.tensor(float(together))])
        return Instances((1, 1), scores=scores)


def read(number: int) -> dict:
    if number % 7 == 3:
        raise DataError(f"{number} is broken")
    return {"image": torch.full((1, 1, 1 + number % 2), float(number))}


def finish(number: int, sample: dict, instances: Instances) -> tuple[float, float]:
    return tuple(instances.scores.tolist())


@pytest.mark.parametrize("threads", [0, 1, 3])
@pytest.mark.parametrize("batch_size", [1, 2])
def test_results_are_those_of_one_image_after_the_other(threads, batch_size):
    results = list(run_pipeline(Sums(), range(40), read, finish, batch_size=batch_size, threads=threads))
    assert [number for number, _ in results] == list(range(40))
    for number, result in results:
        if number % 7 == 3:
            assert str(result) == f"{number} is broken"
        else:
            assert result[0] == number * (1 + number % 2)
    together = [result[1] for _, result in results if isinstance(result, tuple)]
    assert max(together) == batch_size


def test_few_images_are_in_memory_and_inputs_need_not_end():
    alive, most = weakref.WeakSet(), 0

    def read_kept(number: int) -> dict:
        sample = {"image": torch.zeros(1, 2, 2)}
        alive.add(sample["image"])
        return sample

    drawn = count()
    results = run_pipeline(Sums(), drawn, read_kept, finish, batch_size=2, threads=2)
    for asked, (number, _) in zip(range(60), results):
        assert number == asked
        most = max(most, len(alive))
    results.close()
    # Those that wait to be detected, of the window, and to be finished.
    assert most <= 2 * 2 + 2 + WINDOW * 2 + WAITING + 4
    assert next(drawn) < 59 + 40


@pytest.mark.parametrize("where", ["reading", "finishing"])
def test_another_error_ends_it_and_its_threads(where):
    def failing(number, *_):
        if number == 5:
            raise RuntimeError("no DataError")
        return read(0) if where == "reading" else 0

    before = threading.active_count()
    steps = (failing, finish) if where == "reading" else (lambda _: read(0), failing)
    results, seen = run_pipeline(Sums(), range(20), *steps, threads=2), 0
    with pytest.raises(RuntimeError, match="no DataError"):
        for _ in results:
            seen += 1
    assert seen == 5
    assert threading.active_count() == before


def test_what_is_not_asked_for_is_not_begun():
    begun = []
    results = in_order(begun.append, range(100), threads=1, ahead=3)
    next(results)
    results.close()
    assert len(begun) <= 5
