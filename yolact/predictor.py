"""From images, in whatever form, to detections."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from data.images import read_image
from yolact.engines.choose import for_throughput, prepare
from yolact.engines.exported import choose_engine_for, is_exported, open_exported, read_trained
from yolact.engines.names import Engine, EngineName, Precision, RunNetwork
from yolact.engines.pytorch import autocast
from yolact.models.segmenter import Segmenter
from yolact.results.detections import Detections

from .build import build_model
from .checkpoint import Checkpoint, load_matching_weights, load_weights, resolve_weights
from .config import Config
from .timing import StageTimer

Image = str | Path | NDArray[np.uint8]
Images = list[str] | list[Path] | list[NDArray[np.uint8]] | tuple[Image, ...]


class Predictor:
    """Runs a model on images.

    Args:
        model: on the device where it shall run; it is put into evaluation mode.
        precision: in which PyTorch runs `model.network`, see `yolact.engine.autocast`.
        timer: notes the time of each stage, when given.
        network: runs instead of `model.network`, see `yolact.engine.prepare`.

    Attributes:
        workers: threads that should call it at a time, for the most images per second.

    Example:
        >>> predictor = Predictor.from_checkpoint("yolact_resnet50")
        >>> detections = predictor("photo.jpg")
        >>> detections.masks.shape, detections.names()
    """

    def __init__(
        self,
        model: Segmenter[Any, Any],
        precision: Precision = "auto",
        timer: StageTimer | None = None,
        network: RunNetwork | None = None,
    ) -> None:
        """Keep the model."""
        self.model = model.eval()
        self.timer = timer or StageTimer()
        self.workers = 1
        self._precision: Precision = precision
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
            device: see `yolact.engine.pick_device`.
            precision: see `yolact.engine.choose_engine`.
            engine: see `yolact.engine.choose_engine`.
        """
        checkpoint = read_trained(resolve_weights(path_or_name))
        config = checkpoint.preset()
        chosen = choose_engine_for(checkpoint.path, config, device, engine, precision)
        return cls.from_parts(checkpoint, config, chosen)

    @classmethod
    def from_parts(cls, checkpoint: Checkpoint, config: Config, engine: Engine) -> Predictor:
        """Build a model, give it the weights of a checkpoint, and prepare its network.

        Raises:
            ValueError: the checkpoint does not fit the configuration.
        """
        model = build_model(config).eval()
        if is_exported(checkpoint.path):
            if config.model != checkpoint.preset().model or engine.name != "openvino":
                raise ValueError(
                    f"{checkpoint.path}: an exported model runs as it is, through openvino on the "
                    "CPU; leave out --engine, --device and --set model.*, or export it anew"
                )
            model.network.to("meta")  # without weights, so that nobody runs it by mistake
            skipped = load_matching_weights(model, checkpoint)
            if any(line.startswith("mask_rescorer.") for line in skipped):
                raise ValueError(f"{checkpoint.path}: lacks the weights of the mask rescorer")
            return cls(model, network=open_exported(checkpoint.path, engine))
        load_weights(model, checkpoint)
        model.to(engine.device)
        return cls(model, network=prepare(model.network, engine, model.image_size))

    def for_throughput(self) -> Predictor:
        """Return a predictor of the same model for many images; `workers` threads share it."""
        other = copy.copy(self)
        if self._network is not None:
            other._network, other.workers = for_throughput(self._network)
        return other

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.model.device

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

    def run_network(self, inputs: Any) -> Any:
        """Run the network on what `model.preprocess` gives: YOLACT's on (B, 3, S, S)."""
        if self._network is not None:
            return self._network(inputs)
        with autocast(self.device, self._precision):
            return self.model.network(inputs)

    @torch.no_grad()  # results are plain tensors, which a caller may change
    def _predict(
        self, images: list[Image], score_threshold: float, top_k: int | None
    ) -> list[Detections]:
        tensors = [_to_view(_to_array(image)) for image in images]
        detections = self.model.predict(
            tensors, score_threshold, top_k, self.run_network, self.timer
        )
        with self.timer.stage("copy"):
            return [d.to("cpu") for d in detections]


def _to_array(image: Image) -> NDArray[np.uint8]:
    if isinstance(image, (str, Path)):
        return read_image(Path(image))
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(
            f"image of shape {image.shape} and type {image.dtype}: expected (H, W, 3) uint8 RGB"
        )
    return image


def _to_view(image: NDArray[np.uint8]) -> Tensor:
    """View an (H, W, 3) array as a (3, H, W) tensor, without a copy where that is possible."""
    usable = image.flags.writeable and image.flags.c_contiguous
    return torch.from_numpy(image if usable else image.copy()).permute(2, 0, 1)
