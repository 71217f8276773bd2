"""Objects in the types of other libraries, each imported only when needed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

import numpy as np
import torch
from torch import Tensor

from layers.instances import Instances

from .compact import compact_masks
from .exports import columns, rows


def to_dataframe(objects: Instances, source: str) -> Any:
    """Return a pandas table with the columns of `Row`."""
    return _library("pandas").DataFrame(list(rows(objects, source)), columns=columns(objects))


def to_supervision(objects: Instances) -> Any:
    """Return `supervision.Detections` with full-size masks."""
    supervision = _library("supervision")
    return supervision.Detections(
        xyxy=objects.boxes.cpu().numpy().reshape(-1, 4),
        mask=objects.masks.cpu().numpy(),
        confidence=objects.scores.cpu().numpy(),
        class_id=objects.labels.cpu().numpy(),
        tracker_id=None if objects.track_ids is None else objects.track_ids.cpu().numpy(),
        data={"class_name": np.array(objects.names(), dtype=np.str_)},
    )


def from_supervision(
    found: Any, image_hw: tuple[int, int], class_names: Sequence[str] | None = None
) -> dict[str, Any]:
    """Return the fields of `Instances` from `supervision.Detections`, sorted by score.

    If masks are missing, the objects have only boxes; missing scores are 1; without classes, there
    is a single class.

    Args:
        found: the detections.
        image_hw: height and width of the image, which `found` lacks.
        class_names: names of all classes, which `found` lacks; by default those of the objects.

    Raises:
        ValueError: the masks have another size, or a class has no name.
    """
    count = len(found)
    masks = found.mask if found.mask is not None else np.zeros((count, *image_hw), np.bool_)
    if masks.shape[1:] != image_hw:
        raise ValueError(f"image_hw={image_hw}: the masks are of {masks.shape[1:]}")
    soft_masks, frames = compact_masks([(mask, (0, 0)) for mask in np.asarray(masks)])
    scores = _values(found.confidence, count, 1.0).float()
    labels = _values(found.class_id, count, 0).long()
    names = _class_names(found.data, labels.tolist()) if class_names is None else class_names
    if count and not 0 <= int(labels.min()) <= int(labels.max()) < len(names):
        raise ValueError(f"class_id={labels.tolist()}: expected labels of {len(names)} classes")
    order = scores.argsort(descending=True, stable=True)
    tracks = found.tracker_id
    return {
        "boxes": torch.tensor(found.xyxy, dtype=torch.float32).reshape(-1, 4)[order],
        "scores": scores[order],
        "labels": labels[order],
        "soft_masks": soft_masks[order],
        "mask_frames": frames[order],
        "box_scores": scores[order],
        "image_hw": image_hw,
        "class_names": tuple(names),
        "track_ids": None if tracks is None else _values(tracks, count, 0).long()[order],
    }


def to_torchvision(objects: Instances) -> dict[str, Tensor]:
    """Return the format of torchvision's Mask R-CNN: labels from 1, masks (N, 1, H, W) of 0, 1."""
    return {
        "boxes": objects.boxes,
        "labels": objects.labels + 1,
        "scores": objects.scores,
        "masks": objects.masks[:, None].float(),
    }


def to_fiftyone(objects: Instances) -> Any:
    """Return `fiftyone.Detections`, whose boxes are relative to the image.

    Masks lie within their boxes there, so an object with a mask gets the box around its mask.
    """
    fiftyone = _library("fiftyone")
    height, width = objects.image_hw
    found = []
    for index, row in enumerate(rows(objects)):
        window, inside = objects.crop(index)
        has_mask = bool(inside.any())
        x1, y1, x2, y2 = window if has_mask else (row["x1"], row["y1"], row["x2"], row["y2"])
        box = [x1 / width, y1 / height, (x2 - x1) / width, (y2 - y1) / height]
        found.append(
            fiftyone.Detection(
                label=row["name"],
                confidence=row["score"],
                bounding_box=box,
                mask=inside.cpu().numpy() if has_mask else None,
            )
        )
    return fiftyone.Detections(detections=found)


def _library(name: str) -> Any:
    """Import an optional library.

    Raises:
        ImportError: it is not installed; the message says how to install it.
    """
    try:
        return import_module(name)
    except ImportError as error:
        raise ImportError(f"this needs {name}: pip install {name}") from error


def _values(given: Any, count: int, default: float) -> Tensor:
    return torch.full((count,), default) if given is None else torch.as_tensor(np.array(given))


def _class_names(data: Mapping[str, Any], labels: list[int]) -> tuple[str, ...]:
    named = dict(zip(labels, map(str, data.get("class_name", ())), strict=False))
    return tuple(named.get(label, f"class {label}") for label in range(max(labels, default=-1) + 1))
