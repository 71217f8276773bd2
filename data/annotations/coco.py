"""A dataset of images and one JSON file in COCO's format."""

from __future__ import annotations

import contextlib
import copy
import difflib
import gc
import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from data.classes import Categories
from data.images import read_image
from data.options import DEFAULT_OPTIONS, DataOptions
from data.problems import Problem, counted, log_problems, printable, some_of
from data.sample import Annotation, ImageInfo, Sample

from .as_coco import coco_content, coco_index
from .entries import entries_of, other_names, read_categories, read_content
from .images import Images, check_enough, read_images
from .locate import image_path
from .reader import ObjectReader, numbered
from .table import Ints

if TYPE_CHECKING:
    from pycocotools.coco import COCO

_logger = logging.getLogger(__name__)

_SHOWN_CLASSES = 8  # in a message
_NOT_FOR_WORKERS = ("coco", "image_ids")  # made from the tables when asked for


class ObjectCounts(NamedTuple):
    """What there is to learn from.

    Attributes:
        objects: crowds excepted.
        crowds: regions that are ignored.
        boxes_only: how many of the objects have no outline.
        rectangles: how many have one that is drawn as a box.
        most_in_image: objects in one image.
        most_of_class: objects of one class in one image.
        crowd_classes: names of the classes that occur as crowds alone.
    """

    objects: int
    crowds: int
    boxes_only: int
    rectangles: int
    most_in_image: int
    most_of_class: int
    crowd_classes: tuple[str, ...]


class CocoInstances:
    """The images and annotated objects of one split of a COCO-style dataset.

    Everything in the file is checked here. What makes the file useless is an error; an annotation
    that cannot be used is left out and counted in a warning. Images without objects stay, as
    negatives.

    Args:
        image_folder: where the images are.
        annotation_file: COCO-style JSON: `images`, `categories` and, unless it is a test set,
            `annotations` with polygons or run lengths.
        categories: the classes of a trained model, whose labels are to be used. Annotations of
            other classes are left out.
        content: what the file holds, if it was read already, or is made from another format.
        options: what to make of crowds, and of objects with a box alone.

    Attributes:
        categories: the classes.
        left_out: how many annotations were left out, for each reason.
        mended: how many images and boxes are not taken as they are annotated, for each reason.
        skipped: how many images were left out since not all of their objects have outlines.

    Raises:
        FileNotFoundError: the file, the folder or an image is missing.
        ValueError: the file is not what was expected.
    """

    def __init__(
        self,
        image_folder: Path,
        annotation_file: Path,
        categories: Categories | None = None,
        content: Mapping[str, object] | None = None,
        options: DataOptions = DEFAULT_OPTIONS,
    ) -> None:
        self._file = Path(annotation_file)
        self._folder = Path(image_folder)
        with _paused_gc():
            content = read_content(self._file) if content is None else content
            with _blaming(self._file):
                self.categories, label_of = read_categories(content, categories)
                listed = entries_of(content, "images")
                images = read_images(listed, self._folder, self._file, _refuse)
                check_enough(images)
                others = {} if categories is None else other_names(content, label_of)
                objects = ObjectReader(images, label_of, other_names=others)
                if "annotations" in content:
                    objects.read(entries_of(content, "annotations"))
                del content, listed  # gigabytes for COCO: the table is made in their place
                self._images, self._objects = images.table, objects.table()
                lost = objects.lost.items()
                self.left_out = +Counter({reason: len(which) for reason, which in lost})
                self.mended = Counter(problem.what for problem in images.problems)
                self.mended["a bbox that does not fit its outline"] = objects.box_mismatches
                self._warn_of_others(objects.others)
                self._report(images, objects.box_mismatches)
        table = numbered(self._objects)
        is_crowd = table.is_crowd & (options.crowd == "ignore")
        is_boxed = table.has_box_only & ~is_crowd
        if options.boxes_only == "ignore":
            is_crowd = is_crowd | is_boxed
        self._objects = replace(table, is_crowd=is_crowd)
        kept = np.arange(len(self._images))
        if options.boxes_only == "skip":
            kept = np.setdiff1d(kept, table.images[is_boxed])
        self.skipped = len(self._images) - len(kept)
        self._keep(kept)

    def __getstate__(self) -> dict[str, object]:
        return {name: value for name, value in vars(self).items() if name not in _NOT_FOR_WORKERS}

    @cached_property
    def image_ids(self) -> tuple[int, ...]:
        """The dataset's own identifiers, in the order of the indices."""
        return tuple(self._images.ids.tolist())

    @cached_property
    def coco(self) -> COCO:
        """The ground truth as pycocotools takes it, without the annotations that were left out."""
        return coco_index(coco_content(self))

    def __len__(self) -> int:
        return len(self._images)

    def image_info(self, index: int) -> ImageInfo:
        """Return where an image is, relative to the image folder, and the size that it has."""
        height, width = self._image_hw(index)
        name = self._images.paths.text(index)
        number = int(self._images.ids[index])
        return {"id": number, "file_name": name, "height": height, "width": width}

    def image_path(self, index: int) -> Path:
        """Return where an image is stored."""
        return image_path(self._folder, self._images.paths.text(index))

    def annotations(self, index: int) -> list[Annotation]:
        """Return the objects of an image in COCO's form, every key filled in."""
        return [self.annotation(index, place) for place in range(len(self._rows(index)))]

    def annotation(self, index: int, place: int) -> Annotation:
        """Return one of the `annotations` of an image."""
        objects, row = self._objects, self._rows(index)[place]
        return {
            "id": int(objects.ids[row]),
            "image_id": int(self._images.ids[index]),
            "category_id": self.categories.category_ids[objects.labels[row]],
            "segmentation": objects.segmentation(row, self._image_hw(index)),
            "bbox": objects.boxes[row].tolist(),
            "area": float(objects.areas[row]),
            "iscrowd": int(objects.is_crowd[row]),
        }

    def sample(self, index: int) -> Sample:
        """Load one image with its objects.

        Raises:
            FileNotFoundError: the image is gone.
            ValueError: the image cannot be read.
        """
        objects, rows, image_hw = self._objects, self._rows(index), self._image_hw(index)
        image = read_image(self.image_path(index), image_hw)
        if image.shape[:2] != image_hw:
            raise ValueError(f"{self.image_path(index)} has changed: it had another size")
        boxes = objects.boxes[rows].astype(np.float32)
        boxes[:, 2:] += boxes[:, :2]
        return Sample(
            image=image,
            boxes=boxes,
            labels=objects.labels[rows],
            is_crowd=objects.is_crowd[rows],
            segmentations=tuple(objects.segmentation(row, image_hw) for row in rows),
            image_id=int(self._images.ids[index]),
        )

    def part(self, indices: Sequence[int]) -> CocoInstances:
        """Return the dataset of some images, in the order that they have here."""
        part = copy.copy(self)
        part._keep(np.unique(np.asarray(indices, np.int64)))
        return part

    def counts(self) -> ObjectCounts:
        """Count the objects."""
        objects = self._objects
        is_learned = ~objects.is_crowd
        images, labels = objects.images[is_learned], objects.labels[is_learned]
        # Not by bincount, which takes gigabytes for many images of many classes.
        of_class = np.unique(images * len(self.categories) + labels, return_counts=True)[1]
        learned, marked = set(labels.tolist()), set(objects.labels.tolist())
        return ObjectCounts(
            objects=len(labels),
            crowds=len(objects) - len(labels),
            boxes_only=int((objects.has_box_only & is_learned).sum()),
            rectangles=int((objects.are_rectangles() & is_learned).sum()),
            most_in_image=int(np.bincount(images).max(initial=0)),
            most_of_class=int(of_class.max(initial=0)),
            crowd_classes=tuple(self.categories.names[i] for i in sorted(marked - learned)),
        )

    def has_class(self) -> NDArray[np.bool_]:
        """Tell which of N images have objects of which of C classes, (N, C)."""
        result = np.zeros((len(self), len(self.categories)), np.bool_)
        rows = np.flatnonzero(~self._objects.is_crowd)
        result[self._objects.images[rows], self._objects.labels[rows]] = True
        return result

    def has_outline(self) -> NDArray[np.bool_]:
        """Tell which of N images have objects with an outline, (N,)."""
        result = np.zeros(len(self), np.bool_)
        result[self._objects.images[~self._objects.is_crowd & ~self._objects.has_box_only]] = True
        return result

    def _keep(self, images: Ints) -> None:
        """Keep some images, given in ascending order, and the objects in them."""
        if len(images) < len(self._images):
            rows = np.flatnonzero(np.isin(self._objects.images, images))
            objects = self._objects.take(rows)
            self._objects = replace(objects, images=np.searchsorted(images, objects.images))
            self._images = self._images.take(images)
        self._starts = np.searchsorted(self._objects.images, np.arange(len(self._images) + 1))

    def _rows(self, index: int) -> range:
        """Return the rows of the objects of an image."""
        index = range(len(self))[index]  # from the end, if negative
        return range(self._starts[index], self._starts[index + 1])

    def _image_hw(self, index: int) -> tuple[int, int]:
        height, width = self._images.sizes[index].tolist()
        return height, width

    def _report(self, images: Images, box_mismatches: int) -> None:
        log_problems(lambda line: _logger.warning("%s: %s", self._file, line), images.problems)
        if images.deep:
            _logger.info(
                "%s: more than 8 bits in %s: each is scaled by the bits that it uses",
                *(self._file, counted(images.deep, "image")),
            )
        if box_mismatches:
            _logger.warning(
                "%s: %d boxes do not fit their outlines, which are used instead",
                *(self._file, box_mismatches),
            )
        left_out = self.left_out.total()
        found = left_out + len(self._objects)
        reasons = ", ".join(f"{reason} ({n})" for reason, n in self.left_out.most_common())
        if found and left_out == found:
            raise ValueError(f"none of the {found} annotations can be used: {reasons}")
        if left_out:
            _logger.warning(
                "%s: left out %d of %d annotations: %s", self._file, left_out, found, reasons
            )

    def _warn_of_others(self, counts: Mapping[str, int]) -> None:
        """Name the classes that are left out since the model does not know them."""
        known, told = self.categories.names, []
        for name, count in [*counts.items()][:_SHOWN_CLASSES]:
            near = difflib.get_close_matches(name, known, n=1)
            like = f", like {near[0]!r}" if near else ""
            told.append(f"{name!r} ({counted(count, 'object')}{like})")
        if told:
            _logger.warning(
                "%s: not among the classes of the model (%s), so left out: class %s",
                self._file,
                some_of(known, _SHOWN_CLASSES),
                printable(some_of(told, _SHOWN_CLASSES, len(counts))),
            )


def _refuse(problem: Problem) -> None:
    raise ValueError(str(problem))


@contextlib.contextmanager
def _paused_gc() -> Iterator[None]:
    """Stop the garbage collector, which would search a growing heap without any garbage."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@contextlib.contextmanager
def _blaming(file: Path) -> Iterator[None]:
    """Name the file in the message of an error."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{file}: {printable(str(error))}") from error
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{file}: {error}") from error
