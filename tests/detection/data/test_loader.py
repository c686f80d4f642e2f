"""Batches as a function of seed and step: started anywhere, shared out between processes and workers."""

from __future__ import annotations

import itertools
import pickle
import random
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch

from backbone.common.errors import ConfigError, DataError
from backbone.engine import loading
from backbone.engine.loading import BatchSampler, EpochSampler, make_loader, until_error
from detection.config import default_config
from detection.data.mapper import Mapper, Resize
from detection.data.samples import EvaluationSamples, TrainingSamples, aspect_groups
from detection.data.sets import DetectionSet, build_set
from detection.inference.transform import TestMapper, TestTransform

NUMBER = 11
SIZES = [(24, 20) if index % 3 else (20, 28) for index in range(NUMBER)]


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> DetectionSet:
    """Eleven small images of noise, portraits and landscapes, with a box each."""
    folder = tmp_path_factory.mktemp("images")
    noise = np.random.default_rng(0)
    for index, (width, height) in enumerate(SIZES):
        cv2.imwrite(str(folder / f"{index}.png"), noise.integers(0, 255, (height, width, 3), dtype=np.uint8))
    data = {
        "images": [
            {"id": index, "file_name": f"{index}.png", "width": width, "height": height}
            for index, (width, height) in enumerate(SIZES)
        ],
        "categories": [{"id": 1, "name": "cat"}],
        "annotations": [{"image_id": index, "category_id": 1, "bbox": [2, 3, 9, 7 + index]} for index in range(NUMBER)],
    }
    return build_set(data, name="noise", folder=folder)


def mapper(images: DetectionSet) -> Mapper:
    return Mapper(images, resize=Resize((16, 20, 24), 40), channel_order="RGB")


def batches(*, seed: int = 3, size: int = 4, indices: int = NUMBER, **keywords) -> BatchSampler:
    return BatchSampler(EpochSampler(range(indices), seed), batch_size=size, **keywords)


def samples_of(images: DetectionSet, *, workers: int, steps: int = 6, start: int = 0) -> list[list[dict]]:
    source = TrainingSamples(mapper(images), seed=3)
    order = batches(groups=aspect_groups(images.sizes), steps=steps, start=start)
    return list(until_error(make_loader(source, workers=workers, pin_memory=False, batches=order)))


def assert_same(some: list[list[dict]], others: list[list[dict]]) -> None:
    assert [len(batch) for batch in some] == [len(batch) for batch in others]
    for one, other in zip(itertools.chain(*some), itertools.chain(*others)):
        assert one["image_id"] == other["image_id"]
        assert torch.equal(one["image"], other["image"])
        assert torch.equal(one["instances"].gt_boxes.tensor, other["instances"].gt_boxes.tensor)


@pytest.mark.parametrize("indices", [range(NUMBER), [5, 2, 9], [7]])
def test_every_epoch_covers_each_image_once(indices):
    items = list(itertools.islice(EpochSampler(indices, seed=0), 4 * len(indices)))
    assert [position for position, _ in items] == list(range(4 * len(indices)))
    epochs = [[index for _, index in items[start:][: len(indices)]] for start in range(0, len(items), len(indices))]
    assert all(sorted(epoch) == sorted(indices) for epoch in epochs)


def test_order_follows_from_the_seed():
    first, again, other = (list(itertools.islice(EpochSampler(range(50), seed), 150)) for seed in (1, 1, 2))
    assert first == again
    assert first != other
    epochs = [[index for _, index in first[start : start + 50]] for start in (0, 50, 100)]
    assert epochs[0] != epochs[1] != epochs[2]


@pytest.mark.parametrize("groups", [None, np.arange(NUMBER) % 3])
@pytest.mark.parametrize("start", [0, 1, 2, 3, 7, 19])
def test_started_anywhere_it_goes_on_as_if_never_stopped(groups, start):
    whole = list(batches(groups=groups, steps=20))
    assert len(whole) == 20
    assert list(batches(groups=groups, steps=20, start=start)) == whole[start:]


def test_nothing_is_left_behind_the_end():
    assert list(batches(steps=0)) == []
    assert list(batches(steps=5, start=5)) == []


@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_processes_share_each_batch_out(world_size):
    whole = list(batches(steps=12, groups=np.arange(NUMBER) % 2))
    shares = [
        list(batches(steps=12, groups=np.arange(NUMBER) % 2, rank=rank, world_size=world_size))
        for rank in range(world_size)
    ]
    for step, batch in enumerate(whole):
        parts = [share[step] for share in shares]
        assert {len(part) for part in parts} == {4 // world_size}
        assert sorted(itertools.chain(*parts)) == sorted(batch)


def test_groups_do_not_mix_and_nobody_is_lost():
    groups = np.array([0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1])
    epochs, size = 40, 4
    drawn = list(batches(groups=groups, size=size, steps=epochs * NUMBER // size))
    positions = [position for batch in drawn for position, _ in batch]
    assert len(positions) == len(set(positions))
    assert all(len({groups[index] for _, index in batch}) == 1 for batch in drawn)
    seen = Counter(index for batch in drawn for _, index in batch)
    # At most an incomplete batch of each group waits at any time.
    assert all(epochs - 2 <= seen[index] <= epochs + 1 for index in range(NUMBER))


def test_aspect_groups():
    sizes = np.array([[640, 480], [480, 640], [500, 500], [501, 500]], dtype=np.int32)
    assert aspect_groups(sizes).tolist() == [1, 0, 0, 1]


def test_workers_change_nothing(images):
    alone = samples_of(images, workers=0)
    assert len(alone) == 6
    # The random draws are at work: the same image comes in several forms.
    forms = {(sample["image_id"], sample["image"].numpy().tobytes()) for batch in alone for sample in batch}
    assert len(forms) > len({image_id for image_id, _ in forms})
    for workers in (1, 2):
        assert_same(samples_of(images, workers=workers), alone)


@pytest.mark.parametrize("workers", [0, 1])
def test_samples_of_a_resumed_run(images, workers):
    assert_same(samples_of(images, workers=workers, start=4), samples_of(images, workers=0)[4:])


def test_test_images_come_in_order(images):
    mapper = TestMapper(images, TestTransform(default_config(), resize=Resize((16,), 40)))
    source = EvaluationSamples(mapper, [3, 1, 4, 1, 5])
    for workers in (0, 2):
        found = [batch[0] for batch in make_loader(source, workers=workers, pin_memory=False)]
        assert [sample["image_id"] for sample in found] == [3, 1, 4, 1, 5]
        assert all("instances" not in sample for sample in found)


@pytest.mark.parametrize("workers", [0, 1])
def test_global_generators_are_left_alone(images, workers):
    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # noqa: NPY002
    samples_of(images, workers=workers, steps=2)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.array_equal(np.random.get_state()[1], states[1])  # noqa: NPY002
    assert random.getstate() == states[2]


@pytest.mark.parametrize("workers", [0, 1])
def test_fault_in_the_data_is_one_clean_line(images, workers, tmp_path, capfd):
    for index in range(NUMBER):
        (tmp_path / f"{index}.png").write_bytes(images.path(index).read_bytes() if index != 4 else b"")
    broken = DetectionSet(**{**vars(images), "folder": tmp_path})
    with pytest.raises(DataError) as caught:
        samples_of(broken, workers=workers)
    path = tmp_path / "4.png"
    assert str(caught.value).startswith(f"{path}: the image file is empty")
    assert "\n" not in str(caught.value)
    assert "Traceback" not in str(caught.value)
    # The error of the worker, whose text is its whole traceback, is not shown beside it.
    assert caught.value.__context__ is None
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("workers", [0, 1])
def test_a_transform_that_is_wrong_is_one_clean_line(images, workers):
    source = TrainingSamples(Mapper(images, resize=Resize((16,), 40), channel_order="RGB", transforms=[_none]), seed=3)
    with pytest.raises(
        ConfigError, match=r"^the transform '_none' returned NoneType; it must return the sample"
    ) as caught:
        list(until_error(make_loader(source, workers=workers, pin_memory=False, batches=batches(steps=1))))
    assert "\n" not in str(caught.value) and "Traceback" not in str(caught.value)


def _none(sample: dict, random: np.random.Generator) -> None:
    return None


class Defective:
    """Stands for a mapper with a defect of ours."""

    def __call__(self, index: int, rng: np.random.Generator) -> dict:
        raise KeyError("defect")


def test_defect_is_not_taken_for_a_fault_in_the_data():
    source = TrainingSamples(Defective(), seed=0)
    with pytest.raises(KeyError, match="defect"):
        next(iter(until_error(make_loader(source, workers=0, pin_memory=False, batches=batches()))))


def test_samples_can_be_sent_to_spawned_workers(images):
    """Where processes are not forked, the whole source is pickled."""
    source = pickle.loads(pickle.dumps(TrainingSamples(mapper(images), seed=3)))
    assert torch.equal(source[0, 2]["image"], TrainingSamples(mapper(images), seed=3)[0, 2]["image"])
    assert isinstance(source.mapper.images.folder, Path)


def test_number_of_workers(monkeypatch):
    monkeypatch.setattr(loading.os, "sched_getaffinity", lambda _: set(range(6)), raising=False)
    assert loading.resolve_workers(3, 1) == 3
    assert loading.resolve_workers(0, 1) == 0
    assert loading.resolve_workers(-1, 1) == 6
    assert loading.resolve_workers(-1, 4) == 1
    assert loading.resolve_workers(-1, 100) == 1
    monkeypatch.setattr(loading.os, "sched_getaffinity", lambda _: set(range(64)), raising=False)
    assert loading.resolve_workers(-1, 2) == 8


def test_rare_classes_come_as_often_as_in_detectron2():
    """Factors and the lengths of epochs are those of its sampler; the order stays a function of seed and position."""
    from detectron2.data.samplers import RepeatFactorTrainingSampler

    from detection.data.samples import repeat_factors

    owners = [[0, *([1] if index % 4 == 0 else []), *([2] if index == 7 else [])] for index in range(40)]
    owners[5] = []
    labels = np.concatenate([np.array(own, dtype=np.int64) for own in owners])
    images = SimpleNamespace(labels=labels, starts=np.cumsum([0, *map(len, owners)]))
    used = np.array([index for index in range(40) if index != 11])
    factors = repeat_factors(images, used, 0.5)
    frequency = [sum(label in owners[index] for index in used) / len(used) for label in range(3)]
    plain = [max([max(1, (0.5 / frequency[label]) ** 0.5) for label in owners[index]], default=1) for index in used]
    np.testing.assert_allclose(factors, plain, rtol=1e-6)

    sampler = EpochSampler(used, 1, factors)
    items = list(itertools.islice(sampler, 3000))
    counts = np.bincount([index for _, index in items], minlength=40)[used] / 3000
    np.testing.assert_allclose(counts, factors / factors.sum(), atol=0.012)
    theirs = RepeatFactorTrainingSampler(torch.tensor(factors), seed=1)
    lengths = [len(theirs._get_epoch_indices(torch.Generator().manual_seed(seed))) for seed in range(50)]
    ours = [len(sampler._epoch(epoch)) for epoch in range(50)]
    assert abs(np.mean(ours) - np.mean(lengths)) < 2 and set(ours) <= set(range(min(lengths) - 4, max(lengths) + 5))
    for start in (0, 1, 55, 1234, 2000):
        assert list(itertools.islice(sampler.beginning_at(start), 100)) == items[start : start + 100]
    ones = EpochSampler(used, 1, np.ones(len(used)))
    assert sorted(index for _, index in itertools.islice(ones, len(used))) == used.tolist()


@pytest.mark.parametrize("repeats", [None, np.linspace(0.2, 1.9, 11)])
@pytest.mark.parametrize("start", [0, 1, 5])
def test_indices_alone_are_those_of_the_items(repeats, start):
    for rank in (0, 1):
        shared = {"batch_size": 4, "start": start, "steps": 12, "rank": rank, "world_size": 2}
        sampler = BatchSampler(EpochSampler(range(100, 111), 3, repeats), **shared)
        found = [batch.tolist() for batch in sampler.indices()]
        assert found == [[index for _, index in batch] for batch in sampler]
        assert len(found) == 12 - start
    endless = BatchSampler(EpochSampler(range(3), 1), batch_size=8)
    assert [len(batch) for batch in itertools.islice(endless.indices(), 3)] == [8, 8, 8]
