"""Images in, answers out: what the endpoint says about objects, prototypes and the model."""

from __future__ import annotations

import base64
import time
from typing import Literal

import cv2
import numpy as np
from pydantic import BaseModel, Field

from data.annotations.polygons import Polygon
from data.images import Image
from yolact import __version__
from yolact.drawing.detections import PALETTE
from yolact.explain import prototypes_of
from yolact.models.yolact import Yolact
from yolact.predictor import Predictor
from yolact.results.detections import Detections
from yolact.results.exports import coco_ids
from yolact.results.thresholds import Thresholds

from .limits import Limits

Masks = Literal["all", "polygons", "rle", "none"]


class Part(BaseModel):
    """A connected part of a mask, its lines flat lists x, y, x, y, ... in pixels."""

    outline: list[float]
    holes: list[list[float]]


class RunLengths(BaseModel):
    """COCO's compressed run lengths; size is height, width."""

    size: list[int]
    counts: str


class Object(BaseModel):
    """An object in an image."""

    name: str
    label: int = Field(description="number of the class, from 0")
    score: float
    box: list[float] = Field(description="x1, y1, x2, y2 in pixels")
    area: int = Field(description="pixels of the mask")
    polygons: list[Part] | None = None
    segmentation: RunLengths | None = None
    coefficients: list[float] | None = Field(None, description="a weight for each prototype")


class Answer(BaseModel):
    """The objects in an image, highest score first."""

    width: int
    height: int
    seconds: float = Field(description="that this took")
    objects: list[Object]


class Prototypes(BaseModel):
    """The prototypes of an image; grey value / 255 x peak is what coefficients weigh."""

    width: int
    height: int
    peaks: list[float] = Field(description="largest value of each prototype")
    png: str = Field(description="base64 of a grey PNG, the prototypes one below the other")


class ModelClass(BaseModel):
    """A class that the model knows."""

    name: str
    category_id: int


class ModelInfo(BaseModel):
    """What is served."""

    name: str
    version: str
    image_size: int = Field(description="side to which images are resized, in pixels")
    prototypes: bool
    score_threshold: float = Field(description="from which on objects are shown, by default")
    classes: list[ModelClass]
    palette: list[str]
    upload_bytes: int
    pixels: int


def describe(predictor: Predictor, name: str, limits: Limits) -> ModelInfo:
    """Say what is served, and its limits."""
    names = predictor.model.class_names
    return ModelInfo(
        name=name,
        version=__version__,
        image_size=predictor.model.image_size,
        prototypes=isinstance(predictor.model, Yolact),
        score_threshold=predictor.model.score_threshold,
        classes=[
            ModelClass(name=name, category_id=category_id)
            for name, category_id in zip(names, coco_ids(names), strict=True)
        ],
        palette=[f"#{bytes(color).hex()}" for color in PALETTE],
        upload_bytes=limits.upload_bytes,
        pixels=limits.pixels,
    )


def segment(
    predictor: Predictor, image: Image, thresholds: Thresholds, masks: Masks, tolerance: float
) -> Answer:
    """Find the objects in an image.

    Args:
        predictor: finds them.
        image: (H, W, 3) uint8 RGB.
        thresholds: which objects count.
        masks: their form.
        tolerance: of polygons, in pixels.
    """
    start = time.perf_counter()
    (found,) = predictor.segment([image], thresholds)
    height, width = found.image_hw
    objects = _objects(found, masks, tolerance)
    seconds = round(time.perf_counter() - start, 4)
    return Answer(width=width, height=height, seconds=seconds, objects=objects)


def prototypes(predictor: Predictor, image: Image) -> Prototypes:
    """Return the prototypes of an image, in 8 bits.

    Raises:
        ValueError: the model has none.
    """
    values = prototypes_of(predictor, image).float().cpu().numpy()
    peaks = values.max(axis=(1, 2))
    grey = np.round(values * (255 / np.maximum(peaks, 1e-6))[:, None, None]).astype(np.uint8)
    count, height, width = grey.shape
    png = cv2.imencode(".png", grey.reshape(count * height, width))[1].tobytes()
    return Prototypes(
        width=width, height=height, peaks=peaks.tolist(), png=base64.b64encode(png).decode()
    )


def _objects(found: Detections, masks: Masks, tolerance: float) -> list[Object]:
    count = len(found)
    outlines = found.polygons(tolerance) if masks in ("all", "polygons") else [None] * count
    lengths = found.rle() if masks in ("all", "rle") else [None] * count
    weights = [None] * count if found.coefficients is None else found.coefficients.tolist()
    return [
        Object(
            name=name,
            label=label,
            score=round(score, 4),
            box=[round(side, 2) for side in box],
            area=area,
            polygons=None if outline is None else [_part(polygon) for polygon in outline],
            segmentation=None
            if rle is None
            else RunLengths(size=rle["size"], counts=rle["counts"]),
            coefficients=None if row is None else [round(weight, 4) for weight in row],
        )
        for name, label, score, box, area, outline, rle, row in zip(
            found.names(),
            found.labels.tolist(),
            found.scores.tolist(),
            found.boxes.tolist(),
            found.areas.tolist(),
            outlines,
            lengths,
            weights,
            strict=True,
        )
    ]


def _part(polygon: Polygon) -> Part:
    return Part(
        outline=polygon.outline.reshape(-1).tolist(),
        holes=[hole.reshape(-1).tolist() for hole in polygon.holes],
    )
