"""Detections: the objects that a model finds in one image, and their conversions."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from data.annotations.polygons import Polygon
from data.images import Image, read_image
from data.sample import RunLengths
from layers.instances import Instances
from layers.structures import Index
from yolact.files import PICTURE_SUFFIXES, as_file_name, write_json, write_picture, write_text

from . import cropping, exports, selection
from .thresholds import labels_of

if TYPE_CHECKING:
    from yolact.drawing.detections import Color, ColorBy

_SORT_KEYS = ("score", "area", "left", "top", "label")


@dataclass(frozen=True, repr=False, eq=False)
class Detections(Instances):
    """N objects found in one image, highest score first; see `Instances` for their parts.

    Full-size masks are made only on request: reading boxes does not cost their time.

    Attributes:
        source: path or address of the image, with the number of the frame in a video; "" if none.
        picture: the image itself if it is kept; otherwise `image` reads it again.
        coefficients: (N, K), the weight of each prototype in each mask; None except for YOLACT.
        carried: whether optical flow carried the objects over from other frames of a video.
        seconds: time of the frame in its video; None for an image.

    Example:
        >>> people = detections["person"].filter(min_score=0.5)
        >>> people.save("people.json"), people.polygons(tolerance=1), people.cutouts()
    """

    source: str = ""
    picture: Image | None = None
    coefficients: Tensor | None = None
    carried: bool = False
    seconds: float | None = None

    def __repr__(self) -> str:
        names = Counter(self.names()).most_common()
        found = ", ".join(f"{count} {name}" for name, count in names) or "nothing"
        height, width = self.image_hw
        return f"<Detections: {found} in {self.source or 'an image'} of {width} x {height}>"

    def _repr_png_(self) -> bytes | None:
        """Draw the objects, for notebooks; None without an image to draw on."""
        try:
            picture = self.plot()
        except (OSError, ValueError):
            return None
        encoded = cv2.imencode(".png", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))[1]
        return encoded.tobytes()

    # --- selection ---------------------------------------------------------------------------

    def __getitem__(self, index: Index | str) -> Detections:
        """Select by position, slice, positions, boolean mask, or the name of a class.

        Raises:
            IndexError: a position out of range, or a mask of another length.
            ValueError: no class has this name.
        """
        if isinstance(index, str):
            return self.filter(classes=(index,))
        return super().__getitem__(index)

    def filter(
        self,
        classes: Collection[str | int] | None = None,
        min_score: float = 0.0,
        min_area: int = 0,
        inside: selection.Region | None = None,
    ) -> Detections:
        """Keep the objects that meet every condition.

        Args:
            classes: names or labels of the classes to keep; None for all.
            min_score: minimum score.
            min_area: minimum number of mask pixels.
            inside: region as x1, y1, x2, y2 or as a (P, 2) polygon, in pixels, which must contain
                the centre of the box.

        Raises:
            ValueError: an unknown class name, or a region that is neither.
        """
        kept = self.scores >= min_score
        if classes is not None:
            wanted = labels_of(classes, self.class_names)
            kept &= torch.isin(self.labels, self.labels.new_tensor(wanted))
        if inside is not None:
            kept &= selection.centres_inside(self.boxes, inside)
        found = self[kept]
        return found[found.areas >= min_area] if min_area > 0 else found

    def sort(self, by: str = "score", descending: bool | None = None) -> Detections:
        """Sort the objects by "score", "area", "left", "top" or "label".

        Args:
            by: the key.
            descending: largest first; None for largest first with score and area only.

        Raises:
            ValueError: another key.
        """
        if by not in _SORT_KEYS:
            raise ValueError(f"by={by!r}: expected one of {', '.join(_SORT_KEYS)}")
        keys = {"left": self.boxes[:, 0], "top": self.boxes[:, 1]}
        key = keys[by] if by in keys else getattr(self, "areas" if by == "area" else f"{by}s")
        largest_first = by in ("score", "area") if descending is None else descending
        return self[key.argsort(descending=largest_first, stable=True)]

    def __add__(self, other: Detections) -> Detections:
        """Join the objects of one image, highest score first, without coefficients.

        Raises:
            ValueError: the image sizes or the class names differ.
        """
        return selection.concatenate(replace(self, coefficients=None), other).sort()

    # --- masks -------------------------------------------------------------------------------

    def polygons(self, tolerance: float = 0.0) -> list[list[Polygon]]:
        """Return each mask as polygons with holes, one for each connected part.

        They follow the edges of pixels, so that rasterising them gives the same mask.

        Args:
            tolerance: simplify outlines, moving lines by less than this many pixels.
        """
        here = self.to("cpu")
        return [exports.polygons(here, index, tolerance) for index in range(len(here))]

    def rle(self) -> list[RunLengths]:
        """Return each mask in COCO's compressed run lengths."""
        here = self.to("cpu")
        return [exports.run_lengths(here, index) for index in range(len(here))]

    def run_lengths(self, index: int) -> str:
        """Return COCO's compressed run lengths of one mask, as text."""
        return exports.run_lengths(self, index)["counts"]

    # --- pictures ----------------------------------------------------------------------------

    @property
    def image(self) -> Image:
        """The image of these detections, (H, W, 3) uint8 RGB.

        Raises:
            ValueError: the image was not kept, and there is no file to read it from.
        """
        if self.picture is not None:
            return self.picture
        if not self.source:
            raise ValueError("these detections hold no picture: give the image to this call")
        return read_image(self.source)

    def crops(self, image: Image | None = None, margin: int = 0) -> list[Image]:
        """Return the content of each box, N images (h, w, 3) uint8 RGB.

        Args:
            image: (H, W, 3) uint8 RGB; by default `self.image`.
            margin: pixels to add around the box, within the image.
        """
        return cropping.crops(self, self._on(image), margin)

    def cutouts(self, image: Image | None = None) -> list[NDArray[np.uint8]]:
        """Return each object alone, N images (h, w, 4) uint8 RGBA, transparent outside its mask.

        Args:
            image: (H, W, 3) uint8 RGB; by default `self.image`.
        """
        return cropping.cutouts(self.to("cpu"), self._on(image))

    def plot(
        self,
        image: Image | None = None,
        *,
        colors: ColorBy | Sequence[Color] = "instance",
        masks: bool = True,
        boxes: bool = True,
        text: bool = True,
        scores: bool = True,
        alpha: float = 0.45,
    ) -> Image:
        """Draw the objects over a copy of the image, (H, W, 3) uint8 RGB.

        Args:
            image: (H, W, 3) uint8 RGB; by default `self.image`.
            colors: by "class", by "instance", or an RGB triple for each object.
            masks: tint each object.
            boxes: draw each object's box.
            text: write each object's class.
            scores: write the score after the class.
            alpha: weight of the colour in the tint, 0 to 1.
        """
        from yolact.drawing.detections import draw_detections

        given = {"color_by": colors} if isinstance(colors, str) else {"colors": colors}
        return draw_detections(
            self._on(image),
            self,
            masks=masks,
            boxes=boxes,
            text=text,
            scores=scores,
            alpha=alpha,
            **given,
        )

    # --- other formats -----------------------------------------------------------------------

    def to_coco(
        self,
        image_id: int = 1,
        category_ids: Sequence[int] | None = None,
        tolerance: float | None = None,
    ) -> list[exports.CocoObject]:
        """Return a list of COCO results, with areas.

        Args:
            image_id: COCO's id of this image.
            category_ids: label -> category id; by default COCO's for COCO's classes, else 1, 2, ...
            tolerance: write masks as polygons, simplified by this many pixels; None for run
                lengths.
        """
        return exports.coco_objects(self.to("cpu"), image_id, category_ids, tolerance)

    def to_dict(self) -> dict[str, Any]:
        """Return all data as plain values, masks in COCO's run lengths.

        `"key": False` marks objects carried over from other frames of a video.
        """
        plain = exports.plain_values(self.to("cpu"), self.source, self.seconds)
        return plain | {"key": False} if self.carried else plain

    def to_json(self, indent: int | None = None) -> str:
        """Return `to_dict` as JSON."""
        return json.dumps(self.to_dict(), indent=indent)

    def to_csv(self) -> str:
        """Return a table: source, name, label, score, x1, y1, x2, y2, area; track_id if known."""
        return exports.csv_header(self) + exports.csv_lines(self, self.source)

    def to_yolo(self, tolerance: float = 0.0) -> str:
        """Return a line for each object, "label x y x y ...", relative to the image.

        Args:
            tolerance: tolerance of the outlines, see `polygons`.
        """
        from .labelling import yolo

        return yolo(self.to("cpu"), tolerance)

    def to_labelme(self, path: str | Path | None = None, tolerance: float = 1.0) -> dict[str, Any]:
        """Return the content of a labelme file, and write it if a path is given.

        Args:
            path: path of the file, which names the image relative to it; None to write no file.
            tolerance: tolerance of the outlines, see `polygons`; fewer points are easier to edit.
        """
        from .labelling import labelme

        content = labelme(
            self.to("cpu"), self.source, "" if path is None else Path(path).parent, tolerance
        )
        if path is not None:
            write_json(Path(path), content, indent=1)
        return content

    def to_cvat(self) -> str:
        """Return a file in the format "CVAT for images 1.1" (XML), masks in its run lengths."""
        from .labelling import cvat

        return cvat(self.to("cpu"), Path(self.source).name)

    def to_dataframe(self) -> Any:
        """Return a pandas table with the columns of `to_csv`."""
        from .toolkits import to_dataframe

        return to_dataframe(self, self.source)

    def to_supervision(self) -> Any:
        """Return `supervision.Detections`."""
        from .toolkits import to_supervision

        return to_supervision(self)

    @classmethod
    def from_supervision(
        cls, found: Any, image_hw: tuple[int, int], class_names: Sequence[str] | None = None
    ) -> Detections:
        """Convert from `supervision.Detections`.

        Args:
            found: the detections, whose `class_id` are labels.
            image_hw: height and width of their image.
            class_names: names of all classes, by label; by default those of the objects.

        Raises:
            ValueError: the masks have another size, or a label has no name.
        """
        from .toolkits import from_supervision

        return cls(**from_supervision(found, image_hw, class_names))

    def to_torchvision(self) -> dict[str, Tensor]:
        """Return the format of torchvision's models: labels from 1, masks (N, 1, H, W) of 0, 1."""
        from .toolkits import to_torchvision

        return to_torchvision(self)

    def to_fiftyone(self) -> Any:
        """Return `fiftyone.Detections`."""
        from .toolkits import to_fiftyone

        return to_fiftyone(self)

    def save(self, path: str | Path) -> Path:
        """Write a file in the format of its suffix: .png, .jpg, .webp, .json, .txt, .csv, .xml.

        .txt is for YOLO, .xml for CVAT. Without a suffix, write a folder: a picture, the JSON, and
        a cut-out of each object.

        Raises:
            ValueError: another suffix, or no image to draw on.
            OSError: the file cannot be written.
        """
        path = Path(path)
        texts = {
            ".json": self.to_json,
            ".txt": self.to_yolo,
            ".csv": self.to_csv,
            ".xml": self.to_cvat,
        }
        suffix = path.suffix.lower()
        if suffix in texts:
            write_text(path, texts[suffix]())
        elif suffix in PICTURE_SUFFIXES:
            write_picture(path, self.plot())
        elif suffix:
            known = ", ".join((*texts, *PICTURE_SUFFIXES))
            raise ValueError(f"{path}: expected the name of a folder, or a suffix of {known}")
        else:
            write_picture(path / "picture.png", self.plot())
            write_text(path / "detections.json", self.to_json(indent=1))
            for number, (name, cutout) in enumerate(zip(self.names(), self.cutouts(), strict=True)):
                if cutout.size:
                    write_picture(path / f"{number:03}_{as_file_name(name)}.png", cutout)
        return path

    def _on(self, image: Image | None) -> Image:
        """Return the image to draw on or cut from.

        Raises:
            ValueError: its size differs from `image_hw`.
        """
        image = self.image if image is None else image
        if image.shape != (*self.image_hw, 3):
            raise ValueError(f"image of shape {image.shape}: expected {(*self.image_hw, 3)}")
        return image
