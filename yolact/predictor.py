"""From images to detections, by a model and whatever runs its network."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch
from torch import Tensor

from data.images import Image, read_image
from yolact.engines.choose import choose_precision
from yolact.engines.exported import engine_for_file, open_trained, read_trained
from yolact.engines.names import Engine, EngineName, Precision, RunNetwork
from yolact.engines.prepare import for_many, warm_up
from yolact.engines.pytorch import autocast
from yolact.models.segmenter import AnySegmenter, sizes_of
from yolact.results.detections import Detections
from yolact.results.thresholds import Thresholds

from .checkpoint import Checkpoint, resolve_weights
from .config import Config
from .timing import StageTimer

ImageLike = str | Path | Image
Images = list[str] | list[Path] | list[Image] | tuple[ImageLike, ...]


class Predictor:
    """Runs a model on images.

    Args:
        model: on the device where it shall run; it is put into evaluation mode.
        precision: in which PyTorch runs `model.network`; "auto" is what is fast here, see
            `yolact.engines.choose.choose_precision`.
        timer: notes the time of each stage, when given.
        network: runs instead of `model.network`, see `yolact.engines.prepare.prepare`.

    Attributes:
        workers: threads that should call it at a time, for the most images per second.

    Example:
        >>> predictor = Predictor.from_checkpoint("yolact_resnet50")
        >>> detections = predictor("photo.jpg")
        >>> detections.masks.shape, detections.names()
    """

    def __init__(
        self,
        model: AnySegmenter,
        precision: Precision = "float32",
        timer: StageTimer | None = None,
        network: RunNetwork | None = None,
    ) -> None:
        self.model = model.eval()
        self.timer = timer or StageTimer()
        self.workers = 1
        self._precision = choose_precision(model.device, precision)
        self._network = network

    @classmethod
    def from_checkpoint(
        cls,
        path_or_name: str | Path,
        device: str = "auto",
        precision: Precision = "auto",
        engine: EngineName = "auto",
    ) -> Predictor:
        """Load a checkpoint or exported file, or a released model by name, see `load_model`.

        Args:
            path_or_name: .pth, .xml (OpenVINO) or .onnx, or a name.
            device: see `yolact.engines.choose.pick_device`.
            precision: see `yolact.engines.choose.choose_engine`.
            engine: see `yolact.engines.choose.choose_engine`.
        """
        checkpoint = read_trained(resolve_weights(path_or_name))
        config = checkpoint.preset()
        chosen = engine_for_file(checkpoint.path, config, device, engine, precision)
        return cls.from_parts(checkpoint, config, chosen)

    @classmethod
    def from_parts(cls, checkpoint: Checkpoint, config: Config, engine: Engine) -> Predictor:
        """Build the model of a file with another configuration or engine than its own.

        Raises:
            ValueError: the checkpoint does not fit the configuration.
        """
        model, network = open_trained(checkpoint, config, engine)
        return cls(model, network=network)

    def for_many(self) -> Predictor:
        """Return a predictor of the same model for many images; `workers` threads share it."""
        other = copy.copy(self)
        if self._network is not None:
            other._network, other.workers = for_many(self._network)
        return other

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.model.device

    @overload
    def __call__(
        self, image: ImageLike, score_threshold: float = ..., top_k: int | None = ...
    ) -> Detections: ...

    @overload
    def __call__(
        self, image: Images, score_threshold: float = ..., top_k: int | None = ...
    ) -> list[Detections]: ...

    def __call__(
        self,
        image: ImageLike | Images,
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
        thresholds = Thresholds(score_threshold, top_k)
        if isinstance(image, (str, Path, np.ndarray)):
            return self.segment([image], thresholds)[0]
        return self.segment(image, thresholds)

    def run_network(self, inputs: Any) -> Any:
        """Run the network on what `model.preprocess` gives: YOLACT's on (B, 3, S, S)."""
        if self._network is not None:
            return self._network(inputs)
        with autocast(self.device, self._precision):
            return self.model.network(inputs)

    def warm_up(self) -> None:
        """Compile what is compiled at first use, so that it does not delay the first image."""
        if self._network is not None:
            warm_up(self._network)

    @torch.no_grad()  # results are plain tensors, which a caller may change
    def segment(self, images: Sequence[ImageLike], thresholds: Thresholds) -> list[Detections]:
        """Segment a batch of images, of any sizes: preprocess, network, postprocess.

        Args:
            images: as `__call__` takes them.
            thresholds: which detections count.

        Returns:
            Detections of each image, on the CPU.
        """
        if not images:
            return []
        tensors = [_to_tensor(image) for image in images]
        with self.timer.stage("preprocess"):
            inputs = self.model.preprocess(tensors)
        with self.timer.stage("network"):
            outputs = self.run_network(inputs)
        with self.timer.stage("postprocess"):
            found = self.model.postprocess(outputs, sizes_of(tensors), thresholds)
            return [detections.to("cpu") for detections in found]


def _to_tensor(image: ImageLike) -> Tensor:
    """View an image as a (3, H, W) tensor, without a copy where that is possible."""
    if isinstance(image, (str, Path)):
        image = read_image(Path(image))
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
        raise ValueError(
            f"image of shape {image.shape} and type {image.dtype}: expected (H, W, 3) uint8 RGB "
            "with at least one pixel"
        )
    usable = image.flags.writeable and image.flags.c_contiguous
    return torch.from_numpy(image if usable else image.copy()).permute(2, 0, 1)
