from __future__ import annotations

import signal
from itertools import chain, islice

import cv2
import numpy as np
import pytest
import torch
from support.plain import plain_target

from data.augment.transform import TrainTransform
from data.loader import BatchStream, SampleError, TrainingData, build_train_loader, collate
from data.sample import Sample
from layers.structures import Target


class Numbers:
    """Image i is filled with the value i and shows one object."""

    names = ("thing",)

    def __init__(self, length: int) -> None:
        self.length = length

    def __len__(self) -> int:
        return self.length

    def sample(self, index: int) -> Sample:
        return Sample(
            image=np.full((20, 30, 3), index, np.uint8),
            boxes=np.array([[5, 5, 25, 15]], np.float32),
            labels=np.zeros(1, np.int64),
            is_crowd=np.zeros(1, np.bool_),
            segmentations=([[5, 5, 25, 5, 25, 15, 5, 15]],),
            image_id=index,
        )


@pytest.mark.parametrize("counts", [(0,), (0, 0), (1, 0, 3)])
def test_a_batch_unpacks_to_what_went_in(counts: tuple[int, ...]) -> None:
    items = [plain_target(Numbers(9).sample(i), 16) for i in range(len(counts))]
    items = [(image, target[[0] * n]) for (image, target), n in zip(items, counts, strict=True)]
    images, targets = collate(items)
    for found, expected in zip(zip(images, targets, strict=True), items, strict=True):
        assert torch.equal(found[0], expected[0])
        for name, value in vars(expected[1]).items():
            assert torch.equal(getattr(found[1], name), value)


@pytest.mark.parametrize(("length", "batch_size"), [(1, 4), (3, 8), (10, 4), (8, 4), (7, 1)])
def test_batches_are_full_and_epochs_complete(length: int, batch_size: int) -> None:
    batches = list(islice(BatchStream(length, batch_size, seed=3), 3 * length))
    assert {len(batch) for batch in batches} == {batch_size}
    keys = list(chain.from_iterable(batches))
    for epoch in range(len(keys) // length):
        part = keys[epoch * length : (epoch + 1) * length]
        assert sorted(part) == [(epoch, index) for index in range(length)]


@pytest.mark.parametrize("processes", [1, 2, 4])
def test_processes_share_every_batch(processes: int) -> None:
    parts = [
        list(islice(BatchStream(10, 4, 3, 2, part=(rank, processes)), 5))
        for rank in range(processes)
    ]
    joined = [
        list(chain.from_iterable(zip(*shares, strict=True))) for shares in zip(*parts, strict=True)
    ]
    assert joined == list(islice(BatchStream(10, 4, 3, 2), 5))


def test_a_batch_that_cannot_be_shared() -> None:
    with pytest.raises(ValueError, match="8 images cannot be shared by 3 processes"):
        BatchStream(10, 8, 0, part=(0, 3))


def test_epochs_and_seeds_differ() -> None:
    first, second = islice(BatchStream(50, 50, seed=0), 2)
    assert [index for _, index in first] != [index for _, index in second]
    assert next(iter(BatchStream(50, 50, seed=1))) != first


@pytest.mark.parametrize("start", [0, 1, 2, 5, 13, 1_000_003])
@pytest.mark.parametrize(("length", "batch_size"), [(10, 4), (3, 8), (1, 1)])
def test_resumed_equals_uninterrupted(length: int, batch_size: int, start: int) -> None:
    resumed = list(islice(BatchStream(length, batch_size, 5, start_iteration=start), 4))
    assert resumed[1:] == list(islice(BatchStream(length, batch_size, 5, start + 1), 3))
    if start < 100:
        assert resumed == list(islice(BatchStream(length, batch_size, 5), start, start + 4))


@pytest.mark.parametrize("numbers", [(0, 4, 0, 0), (5, 0, 0, 0), (5, 4, -1, 0), (5, 4, 0, -1)])
def test_impossible_streams(numbers: tuple[int, int, int, int]) -> None:
    with pytest.raises(ValueError, match=r"no images|at least"):
        BatchStream(*numbers)


def test_items_depend_on_seed_epoch_and_index_alone() -> None:
    data = TrainingData(Numbers(9), TrainTransform(32), seed=1)
    assert len(data) == 9
    image, target = data[2, 5]
    assert not torch.equal(image, data[3, 5][0])
    again, same = TrainingData(Numbers(9), TrainTransform(32), seed=1)[2, 5]
    assert torch.equal(image, again)
    assert torch.equal(target.boxes, same.boxes)
    assert not torch.equal(image, TrainingData(Numbers(9), TrainTransform(32), seed=2)[2, 5][0])


def test_augmentation_is_independent_of_the_order() -> None:
    """Sample 0 does not get the numbers that shuffled its epoch."""
    order = [index for _, index in next(iter(BatchStream(50, 50, seed=3)))]
    data = TrainingData(Numbers(50), lambda _, rng: rng.permutation(50).tolist(), seed=3)
    assert data[0, 0] != order


def taken(workers: int, start: int, count: int) -> list[torch.Tensor]:
    data = TrainingData(Numbers(5), TrainTransform(24), seed=7)
    loader = build_train_loader(data, 4, workers, start_iteration=start)
    batches = list(islice(loader, count))
    assert all(len(images) == len(targets) == 4 for images, targets in batches)
    return [torch.stack(images) for images, _ in batches]


@pytest.mark.parametrize("workers", [0, 2])
def test_loader_resumes_exactly(workers: int) -> None:
    whole = taken(workers=0, start=0, count=5)
    resumed = taken(workers, start=3, count=2)
    assert all(torch.equal(a, b) for a, b in zip(whole[3:], resumed, strict=True))


def about_the_worker(sample: Sample, _: np.random.Generator) -> tuple[torch.Tensor, Target]:
    ignores_ctrl_c = signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    threads = torch.get_num_threads(), cv2.getNumThreads()
    return torch.tensor((*threads, ignores_ctrl_c)), plain_target(sample, 8)[1]


def test_workers_have_one_thread_and_leave_ctrl_c_to_training() -> None:
    loader = build_train_loader(TrainingData(Numbers(2), about_the_worker, 0), 1, workers=1)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored under nohup
    try:
        images, _ = next(iter(loader))
    finally:
        signal.signal(signal.SIGINT, before)
    assert images[0].tolist() == [1, 1, 1]


def test_workers_may_open_many_files() -> None:
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        for workers, expected in ((0, 256), (1, min(65_536, hard))):
            resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
            build_train_loader(TrainingData(Numbers(2), TrainTransform(24), 0), 1, workers)
            assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == expected
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_loader_leaves_the_random_numbers_of_training_alone() -> None:
    before = torch.random.get_rng_state()
    data = TrainingData(Numbers(2), TrainTransform(24), seed=0)
    next(iter(build_train_loader(data, 1, workers=0)))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_settings_reach_the_loader() -> None:
    data = TrainingData(Numbers(5), TrainTransform(24), seed=3)
    loader = build_train_loader(data, 4, 0, pin_memory=True, part=(1, 2))
    assert loader.pin_memory
    whole, half = next(iter(BatchStream(5, 4, seed=3))), next(iter(loader.batch_sampler))
    assert half == whole[1::2]


class Broken(Numbers):
    def sample(self, index: int) -> Sample:
        raise FileNotFoundError("no such image: gone.jpg")


@pytest.mark.parametrize("workers", [0, 1])
def test_errors_are_one_line(workers: int) -> None:
    loader = build_train_loader(TrainingData(Broken(3), TrainTransform(24), 0), 2, workers)
    with pytest.raises(SampleError) as caught:
        next(iter(loader))
    reason = "10 images in a row cannot be read, the last: no such image: gone.jpg"
    assert str(caught.value) == reason


class OneBroken(Numbers):
    def sample(self, index: int) -> Sample:
        if index == 1:
            raise ValueError("b.jpg: not a known image format")
        return super().sample(index)


def test_a_broken_image_is_left_out_and_told_once(caplog: pytest.LogCaptureFixture) -> None:
    data = TrainingData(OneBroken(3), TrainTransform(24), seed=0)
    for epoch in range(2):
        (image, _), (following, _) = data[epoch, 1], data[epoch, 2]
        assert image.shape == following.shape
    assert (data._sample(1).image == 2).all()  # the next one's
    data = TrainingData(OneBroken(2), TrainTransform(24), seed=0)
    assert (data._sample(1).image == 0).all()  # after the last one comes the first
    caplog.records.pop()
    assert [record.getMessage() for record in caplog.records] == [
        "left out: b.jpg: not a known image format"
    ]
