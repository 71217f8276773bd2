"""Run a model over a dataset, collect its detections, and score them."""

from __future__ import annotations

import contextlib
import logging
import random
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from tqdm import tqdm

from data.images import Image
from data.sample import Dataset, Sample
from yolact.results.detections import Detections
from yolact.threads import map_ahead

from .metrics import STANDARD_LIMIT, CocoMetrics
from .result_files import CocoResults, Result
from .scoring import ground_truth, score

if TYPE_CHECKING:
    from pycocotools.coco import COCO

logger = logging.getLogger(__name__)


class CocoEvaluator:
    """Collects the detections of one image after another, then scores them all.

    Masks are run-length encoded at once, one at a time; full-size masks are not kept.

    Args:
        coco: the ground truth; not changed.
        category_ids: label -> category id; only these categories are scored.
        results: results of an earlier evaluation, to resume from.
        limit: number of detections that count per image and class; COCO's maxDets.
        note: called with each image that is added, its height and width, and its detections.

    Attributes:
        results: results so far; save them, or write them as COCO's result files.
        category_ids: label -> category id.

    Raises:
        ValueError: the results are from another dataset.
    """

    def __init__(
        self,
        coco: COCO,
        category_ids: Sequence[int],
        results: CocoResults | None = None,
        limit: int = STANDARD_LIMIT,
        note: Callable[[int, tuple[int, int], list[Result]], None] | None = None,
    ) -> None:
        self._coco = coco
        self._limit, self._note = limit, note
        self.category_ids = tuple(category_ids)
        self.results = CocoResults() if results is None else results
        self._metrics: CocoMetrics | None = None
        for image_id, image_hw in self.results.images.items():
            self._check_image(image_id, image_hw)
        if strangers := {d.category_id for d in self.results.detections} - set(category_ids):
            raise ValueError(f"results of another dataset: categories {sorted(strangers)}")

    def add(self, image_id: int, detections: Detections) -> None:
        """Encode the detections of one image; images without any must be added, too.

        Args:
            image_id: id in the ground truth.
            detections: N objects, in pixels of that image.

        Raises:
            ValueError: the image is unknown, was added before, or has bitmaps of another size in
                the ground truth; or a label has no category.
        """
        self._check_image(image_id, detections.image_hw)
        if image_id in self.results.images:
            raise ValueError(f"image {image_id} was added before")
        # A network that diverged emits NaN, which can be neither ranked nor written as JSON.
        numbers = torch.column_stack((detections.boxes, detections.scores, detections.box_scores))
        finite = numbers.isfinite().all(dim=1)
        sound = detections if finite.all() else detections[finite]  # selecting copies the masks
        encoded = list(self._encode(image_id, sound))
        self.results.images[image_id] = detections.image_hw
        self.results.detections += encoded
        if self._note is not None:
            self._note(image_id, detections.image_hw, encoded)
        self._metrics = None

    def summarize(self) -> CocoMetrics:
        """Score the images added so far; others do not count.

        This takes a while for a large dataset; a second call returns at once.
        """
        if self._metrics is None:
            truth = self.ground_truth()
            self._metrics = score(truth, self.results, self.category_ids, self._limit)
        return self._metrics

    def ground_truth(self) -> COCO:
        """Return a copy of the annotations of the added images; see `scoring.ground_truth`."""
        return ground_truth(self._coco, self.results, self.category_ids)

    @property
    def has_ground_truth(self) -> bool:
        """Whether there are annotations to score against; test sets have none."""
        return bool(self._coco.anns)

    def _check_image(self, image_id: int, image_hw: tuple[int, int]) -> None:
        if image_id not in self._coco.imgs:
            raise ValueError(f"image {image_id} is not in the ground truth")
        for annotation in self._coco.imgToAnns.get(image_id, ()):
            outline = annotation.get("segmentation")
            # For run lengths of two sizes, pycocotools silently finds no overlap.
            if isinstance(outline, dict) and tuple(outline["size"]) != image_hw:
                raise ValueError(
                    f"image {image_id} is {image_hw[1]} x {image_hw[0]} pixels, but its ground "
                    f"truth has masks of {outline['size'][1]} x {outline['size'][0]}"
                )

    def _encode(self, image_id: int, detections: Detections) -> Iterator[Result]:
        labels = detections.labels.tolist()
        if labels and not 0 <= min(labels) <= max(labels) < len(self.category_ids):
            raise ValueError(
                f"image {image_id} has labels {min(labels)} to {max(labels)}, "
                f"but there are {len(self.category_ids)} categories"
            )
        box_scores, mask_scores = detections.box_scores.tolist(), detections.scores.tolist()
        detections = detections.to("cpu")
        for index, (x1, y1, x2, y2) in enumerate(detections.boxes.tolist()):
            yield Result(
                image_id=image_id,
                category_id=self.category_ids[labels[index]],
                box=(x1, y1, x2 - x1, y2 - y1),
                box_score=box_scores[index],
                mask_score=mask_scores[index],
                mask_counts=detections.run_lengths(index),
            )


def evaluate(
    predict: Callable[[Image], Detections],
    dataset: Dataset,
    evaluator: CocoEvaluator | None = None,
    *,
    progress: bool = True,
    order: Sequence[int] | None = None,
    workers: int = 1,
    on_image: Callable[[Image, Detections], None] | None = None,
) -> CocoEvaluator:
    """Run a model over a dataset; images that cannot be read are reported and skipped.

    Args:
        predict: (H, W, 3) uint8 RGB -> detections of that image; called in other threads, without
            gradients.
        dataset: images with their ground truth.
        evaluator: collects the detections; pass one to keep its results if this is interrupted.
        progress: show a bar on standard error.
        order: indices into the dataset; by default all, in the order of `eval_order`.
        workers: threads that load images and predict.
        on_image: called in order, in the caller's thread, with each image and its detections.

    Returns:
        The evaluator, to summarise or to save.
    """
    indices = eval_order(dataset.image_ids) if order is None else order
    evaluator = evaluator or CocoEvaluator(dataset.coco, dataset.categories.category_ids)

    @torch.no_grad()
    def detect(index: int) -> tuple[Sample, Detections] | None:
        try:
            sample = dataset.sample(index)
        except (ValueError, OSError) as error:
            logger.warning("left out: %s", error)
            return None
        return sample, predict(sample.image)

    # While threads work on the next images, this one encodes.
    with contextlib.closing(map_ahead(detect, indices, workers, ahead=workers)) as found:
        for pair in tqdm(found, "evaluate", len(indices), unit="img", disable=not progress):
            if pair is None:
                continue
            sample, detections = pair
            if on_image is not None:
                on_image(sample.image, detections)
            evaluator.add(sample.image_id, detections)
    return evaluator


def eval_order(
    image_ids: Sequence[int],
    *,
    shuffle: bool = False,
    seed: int | None = None,
    no_sort: bool = False,
) -> list[int]:
    """Choose the order in which images are evaluated.

    By default they are sorted by a hash of the image id: the first 1000 images are then the same in
    every run and on every machine, yet a fair sample of the dataset.

    Args:
        image_ids: all image ids of the dataset.
        shuffle: use a random order instead.
        seed: seed of the random order; None for a different order each time.
        no_sort: use the dataset's order instead.

    Returns:
        Indices into `image_ids`.
    """
    indices = list(range(len(image_ids)))
    if shuffle:
        random.Random(seed).shuffle(indices)
    elif not no_sort:
        indices.sort(key=lambda index: (_hash32(image_ids[index]), image_ids[index]))
    return indices


def _hash32(number: int) -> int:
    """Hash the low 32 bits of an integer one to one."""
    number &= 0xFFFFFFFF
    for _ in range(2):
        number = (((number >> 16) ^ number) * 0x045D9F3B) & 0xFFFFFFFF
    return (number >> 16) ^ number
