"""From images, in whatever form, to detections."""

from __future__ import annotations

from pathlib import Path
from typing import overload

import numpy as np
import torch
from numpy.typing import NDArray

from data.images import read_image
from data.transforms import to_tensor
from layers.detect import detect
from layers.structures import Detections

from .checkpoint import load_model
from .engine import Precision, autocast, pick_device
from .meters import StageTimer
from .model import Yolact

Image = str | Path | NDArray[np.uint8]
Images = list[str] | list[Path] | list[NDArray[np.uint8]] | tuple[Image, ...]


class Predictor:
    """Runs a model on images.

    Args:
        model: on the device where it shall run; it is put into evaluation mode.
        precision: see `yolact.engine.autocast`.
        timer: notes the time of each stage, when given.

    Example:
        >>> predictor = Predictor.from_checkpoint("yolact_resnet50")
        >>> detections = predictor("photo.jpg")
        >>> detections.masks.shape, detections.names()
    """

    def __init__(
        self, model: Yolact, precision: Precision = "auto", timer: StageTimer | None = None
    ) -> None:
        """Keep the model."""
        self.model = model.eval()
        self.precision: Precision = precision
        self.timer = timer or StageTimer()

    @classmethod
    def from_checkpoint(
        cls, path_or_name: str | Path, device: str = "auto", precision: Precision = "auto"
    ) -> Predictor:
        """Load a checkpoint file, or a released model by name, see `load_model`."""
        return cls(load_model(path_or_name, device=str(pick_device(device))), precision)

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.model.pixel_mean.device

    @overload
    def __call__(
        self, image: Image, score_threshold: float = ..., top_k: int | None = ...
    ) -> Detections: ...

    @overload
    def __call__(
        self, image: Images, score_threshold: float = ..., top_k: int | None = ...
    ) -> list[Detections]: ...

    def __call__(
        self,
        image: Image | Images,
        score_threshold: float = 0.15,
        top_k: int | None = 15,
    ) -> Detections | list[Detections]:
        """Segment one image, or a list of them in one batch.

        Args:
            image: a path, or an (H, W, 3) uint8 RGB array; or a list of these, of any sizes.
            score_threshold: detections scoring lower are dropped.
            top_k: at most this many are kept, best first; None keeps all.

        Returns:
            Detections on the CPU: one, or a list for a list.

        Raises:
            FileNotFoundError: no such image.
            ValueError: not an image, or an array of another shape or type.
        """
        if isinstance(image, (str, Path, np.ndarray)):
            return self._predict([image], score_threshold, top_k)[0]
        return self._predict(list(image), score_threshold, top_k) if len(image) else []

    @torch.no_grad()  # results are plain tensors, which a caller may change
    def _predict(
        self, images: list[Image], score_threshold: float, top_k: int | None
    ) -> list[Detections]:
        model, timer = self.model, self.timer
        tensors = [to_tensor(_to_array(image)) for image in images]
        with timer.stage("preprocess"):
            x = model.preprocess(tensors)
        with timer.stage("network"), autocast(self.device, self.precision):
            predictions = model.network(x)
        with timer.stage("detect"):
            found = detect(predictions, **vars(model.detection))
        with timer.stage("masks"):
            sizes = [(tensor.shape[-2], tensor.shape[-1]) for tensor in tensors]
            detections = model.postprocess(
                found, predictions.prototypes, sizes, score_threshold, top_k
            )
            return [d.to("cpu") for d in detections]


def _to_array(image: Image) -> NDArray[np.uint8]:
    if isinstance(image, (str, Path)):
        return read_image(Path(image))
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(
            f"image of shape {image.shape} and type {image.dtype}: expected (H, W, 3) uint8 RGB"
        )
    return image
