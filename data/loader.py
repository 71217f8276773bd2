"""Deterministic batches of training samples."""

from __future__ import annotations

import logging
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Sampler
from torch.utils.data import Dataset as MapDataset

from data.augment.copy_paste import paste_objects
from layers.structures import Target, concatenate_groups

from .sample import Dataset, Sample

Key = tuple[int, int]
"""Epoch and index of a sample."""

Item = tuple[Tensor, Target]
Transform = Callable[[Sample, np.random.Generator], Item]

# Separate random streams, or sample 0 of an epoch would get the numbers that shuffled it.
_SHUFFLE, _AUGMENT = 1, 2

_MAX_BROKEN = 10  # unreadable images in a row: a lost disk rather than single bad files
_OPEN_FILES = 65_536

_logger = logging.getLogger(__name__)


class SampleError(ValueError):
    """A sample could not be loaded.

    PyTorch's loader re-raises a worker's error with the whole traceback as the message; only its
    last line, which names the file, is kept.
    """

    def __init__(self, message: str) -> None:
        last = message.strip().rpartition("\n")[2]
        super().__init__(last.removeprefix(f"{SampleError.__module__}.{SampleError.__name__}: "))


@dataclass(frozen=True)
class Batch:
    """B images and their objects in six tensors; iterates over the list of images and of targets.

    Packed, because each tensor that a worker sends costs a file and an exchange of messages.

    Attributes:
        images: (B, 3, S, S) uint8.
        objects: objects of all images, one image after the other.
        counts: number of objects of each image.
    """

    images: Tensor
    objects: Target
    counts: list[int]

    def __iter__(self) -> Iterator[list[Any]]:
        """Yield the list of images, (3, S, S) uint8, then the list of targets."""
        yield list(self.images.unbind())
        parts = (torch.split(part, self.counts) for part in vars(self.objects).values())
        yield [Target(*each) for each in zip(*parts, strict=True)]

    def pin_memory(self) -> Batch:
        """Pin the tensors, for asynchronous copies to a GPU; PyTorch's loader calls this."""
        return Batch(self.images.pin_memory(), self.objects.pin_memory(), self.counts)


def collate(batch: Sequence[Item]) -> Batch:
    """Turn B (image, target) pairs, B > 0, into a batch."""
    images, targets = zip(*batch, strict=True)
    return Batch(
        torch.stack(images), concatenate_groups(targets), [len(target) for target in targets]
    )


class TrainingData(MapDataset[Item]):
    """Transformed samples of a dataset, addressed by (epoch, index).

    Args:
        dataset: where the samples come from.
        transform: converts a sample to tensors; its random generator depends only on seed, epoch
            and index.
        seed: not negative.
        copy_paste: average number of other samples whose objects each sample gets.
        paste_beside: share of these objects to place beside others, see `paste_objects`.
    """

    def __init__(
        self,
        dataset: Dataset,
        transform: Transform,
        seed: int,
        copy_paste: float = 0.0,
        paste_beside: float = 0.0,
    ) -> None:
        self.dataset = dataset
        self.transform = transform
        self.seed = seed
        self.copy_paste, self.paste_beside = copy_paste, paste_beside
        self._broken: set[int] = set()

    def __getitem__(self, key: Key) -> Item:
        """Load and transform one sample; an unreadable one is replaced by the next.

        Raises:
            SampleError: `_MAX_BROKEN` samples in a row cannot be read.
        """
        epoch, index = key
        rng = np.random.default_rng((_AUGMENT, self.seed, epoch, index))
        return self.paste_onto(self.transform(self._sample(index), rng), rng)

    def paste_onto(self, item: Item, rng: np.random.Generator) -> Item:
        """Paste objects of `copy_paste` other samples, on average, into a transformed one.

        Raises:
            SampleError: `_MAX_BROKEN` samples in a row cannot be read.
        """
        whole, part = divmod(self.copy_paste, 1)
        for _ in range(int(whole) + (self.copy_paste > 0 and rng.random() < part)):
            other = self._sample(int(rng.integers(len(self.dataset))))
            item = paste_objects(*item, *self.transform(other, rng), rng, self.paste_beside)
        return item

    def _sample(self, index: int) -> Sample:
        for _ in range(_MAX_BROKEN):
            try:
                return self.dataset.sample(index)
            except (ValueError, OSError) as error:
                if index not in self._broken:
                    _logger.warning("left out: %s", error)
                self._broken.add(index)
                reason = error
                index = (index + 1) % len(self.dataset)
        raise SampleError(f"{_MAX_BROKEN} images in a row cannot be read, the last: {reason}")

    def __len__(self) -> int:
        return len(self.dataset)


class BatchStream(Sampler[list[Key]]):
    """An endless stream of full batches of (epoch, index), each epoch in its own random order.

    A batch may begin in one epoch and end in the next, so that no sample is lost and training works
    with a dataset smaller than a batch.

    Args:
        length: number of samples in an epoch.
        batch_size: number of keys in a batch.
        seed: not negative.
        start_iteration: number of batches to skip, which an earlier run has used.
        part: (rank, processes): which equal share of every batch is yielded.

    Raises:
        ValueError: a number is out of range, or the batch cannot be shared equally.
    """

    def __init__(
        self,
        length: int,
        batch_size: int,
        seed: int,
        start_iteration: int = 0,
        part: tuple[int, int] = (0, 1),
    ) -> None:
        if length < 1:
            raise ValueError("the dataset has no images to train on")
        if batch_size < 1 or seed < 0 or start_iteration < 0:
            raise ValueError(
                "batch_size must be at least 1, seed and start_iteration at least 0: "
                f"{batch_size}, {seed}, {start_iteration}"
            )
        self.length = length
        self.batch_size = batch_size
        self.seed = seed
        self.start_iteration = start_iteration
        if batch_size % part[1]:
            raise ValueError(
                f"a batch of {batch_size} images cannot be shared by {part[1]} processes equally"
            )
        # Interleaved, so that the shares of half a batch are halves of the shares.
        self.part = slice(part[0], None, part[1])

    def __iter__(self) -> Iterator[list[Key]]:
        keys = self._keys(first=self.start_iteration * self.batch_size)
        while True:
            yield [next(keys) for _ in range(self.batch_size)][self.part]

    def _keys(self, first: int) -> Iterator[Key]:
        epoch, offset = divmod(first, self.length)
        while True:
            order = np.random.default_rng((_SHUFFLE, self.seed, epoch)).permutation(self.length)
            for index in order[offset:].tolist():
                yield epoch, index
            epoch, offset = epoch + 1, 0


def build_train_loader(
    data: TrainingData,
    batch_size: int,
    workers: int,
    start_iteration: int = 0,
    pin_memory: bool = False,
    part: tuple[int, int] = (0, 1),
) -> DataLoader[Item]:
    """Build the endless loader of the training loop; each item is a `Batch`.

    Args:
        data: the samples; its seed is that of their order, too.
        batch_size: images in a batch.
        workers: loading processes; 0 loads in the calling one.
        start_iteration: batches that an earlier run has had; the next ones are those that it
            would have got.
        pin_memory: lock the batches in memory for faster copies to a GPU.
        part: (rank, processes): which equal share of every batch this process gets.
    """
    if workers:
        _allow_many_files()
    return DataLoader(
        data,
        batch_sampler=BatchStream(len(data), batch_size, data.seed, start_iteration, part),
        num_workers=workers,
        collate_fn=collate,
        pin_memory=pin_memory,
        worker_init_fn=_set_up_worker,
        persistent_workers=workers > 0,
        # Its own generator: otherwise, starting the loader would advance training's random numbers.
        generator=torch.Generator(),
    )


def _allow_many_files() -> None:
    """Raise the limit of open files: each tensor that a worker sends needs one."""
    if sys.platform == "win32":
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _OPEN_FILES if hard == resource.RLIM_INFINITY else min(_OPEN_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _set_up_worker(_worker: int) -> None:
    """Limit OpenCV in a worker to one thread, like PyTorch: the workers together use all cores."""
    cv2.setNumThreads(0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the training loop handles Ctrl-C
