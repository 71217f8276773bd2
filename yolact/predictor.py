"""From images to detections, with a model and the engine that runs its network."""

from __future__ import annotations

import os
import pickle
from collections.abc import Generator, Iterable, Iterator, Sequence, Set
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any, Literal, overload

import numpy as np
import torch

from data.images import Image, Picture
from layers.structures import fetch_groups
from yolact.engines.choose import card_of, choose_precision
from yolact.engines.exported import engine_for_file, open_trained, read_trained
from yolact.engines.memory import BatchLimit
from yolact.engines.names import Engine, EngineName, Precision, RunNetwork
from yolact.engines.prepare import for_many, run_here, warm_up
from yolact.engines.pytorch import autocast
from yolact.models.segmenter import AnySegmenter, sizes_of
from yolact.results.detections import Detections
from yolact.results.thresholds import Thresholds, check_count
from yolact.sources.many import Many, batches, open_many, read_each
from yolact.sources.one import OneImage, is_one, read
from yolact.sources.pixels import Pixels, is_pixels, view_tensor

from .checkpoint import Checkpoint, resolve_weights
from .config import Config
from .errors import OptionError
from .stream import segment_batch, segment_many
from .timing import StageTimer

LIST_BATCH = 8
"""Number of images of a list that run through the network together."""

Classes = Iterable[str | int] | None


class Predictor:
    """Runs a model on images.

    Threads can share a predictor. It can be pickled for another process, as `multiprocessing` does
    with the start method "spawn"; a forked process can use it with only one thread of PyTorch.

    Args:
        model: on the device where it shall run; it is put into evaluation mode. All engines except
            "plain" run a copy of its weights: make a new predictor after changing them.
        precision: precision in which PyTorch runs `model.network`; "auto" is whichever is fast on
            this machine, see `yolact.engines.choose.choose_precision`.
        timer: records the time of each stage, if given.
        network: runs instead of `model.network`, see `yolact.engines.prepare.prepare`.

    Attributes:
        workers: number of threads that should call it at a time, for the most images per second.

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
        if not hasattr(model, "eval"):
            raise TypeError(f"{model!r:.80}: Predictor.from_checkpoint loads a model by its name")
        run_here()
        self.model = model.eval()
        self.timer = timer or StageTimer()
        self.workers = 1
        self._precision = choose_precision(model.device, precision)
        self._network = network
        self._limit, self._process = BatchLimit(), os.getpid()

    @classmethod
    def from_checkpoint(
        cls,
        path_or_name: str | Path,
        device: str = "auto",
        precision: Precision = "auto",
        engine: EngineName = "auto",
    ) -> Predictor:
        """Load a checkpoint, an exported file, or a model by its name, see `load_model`.

        Args:
            path_or_name: .pth, .xml (OpenVINO) or .onnx, a folder, or a name.
            device: see `yolact.engines.choose.pick_device`.
            precision: see `yolact.engines.choose.choose_engine`.
            engine: see `yolact.engines.choose.choose_engine`.
        """
        run_here()
        checkpoint = read_trained(resolve_weights(path_or_name))
        config = checkpoint.preset()
        chosen = engine_for_file(checkpoint.path, config, device, engine, precision)
        return cls.from_parts(checkpoint, config, chosen)

    @classmethod
    def from_parts(cls, checkpoint: Checkpoint, config: Config, engine: Engine) -> Predictor:
        """Build the model of a checkpoint with a given configuration and engine.

        Raises:
            ValueError: the checkpoint does not fit the configuration.
        """
        model, network = open_trained(checkpoint, config, engine)
        return cls(model, network=network)

    def for_many(self) -> Predictor:
        """Return a predictor of the same model for many images; share it by `workers` threads."""
        network, workers = for_many(self._network) if self._network else (None, 1)
        other = object.__new__(Predictor)
        other.__dict__.update(self.__dict__, _network=network, workers=workers)
        return other

    def __getstate__(self) -> bytes:
        # Pickled as one: `multiprocessing` would keep a file open for each single tensor.
        return pickle.dumps(self.__dict__)

    def __setstate__(self, state: bytes) -> None:
        self.__dict__.update(pickle.loads(state), _process=os.getpid())

    @property
    def device(self) -> torch.device:
        """The device of the model."""
        return self.model.device

    @overload
    def __call__(
        self,
        image: list[Any] | tuple[Any, ...],
        score_threshold: float | None = ...,
        top_k: int | None = ...,
        classes: Classes = ...,
    ) -> list[Detections]: ...

    @overload
    def __call__(
        self,
        image: OneImage,
        score_threshold: float | None = ...,
        top_k: int | None = ...,
        classes: Classes = ...,
    ) -> Detections: ...

    @overload
    def __call__(
        self,
        image: int | Iterator[object] | Set[Any],
        score_threshold: float | None = ...,
        top_k: int | None = ...,
        classes: Classes = ...,
    ) -> Generator[Detections, None, None]: ...

    def __call__(
        self,
        image: object,
        score_threshold: float | None = None,
        top_k: int | None = None,
        classes: Classes = None,
    ) -> Detections | list[Detections] | Generator[Detections, None, None]:
        """Segment an image, a list of images, or any number of images.

        Args:
            image: one image: a path, an http or https address, an array or tensor (see
                `yolact.sources.pixels`), a PIL image, the bytes of a file. A list or tuple of
                these. Or many: a folder, a pattern, a video, the number of a camera, the address
                of a stream, an iterator, see `stream`.
            score_threshold: drop detections with lower scores; None for the model's own threshold.
            top_k: keep at most this many detections, best first; None for no limit.
            classes: names or labels of the classes to keep; None for all.

        Returns:
            Detections on the CPU: one, or a list for a list, or the result of `stream`. They know
            their source and keep their picture, except for files of a list, which are read again.

        Raises:
            OSError: no such image, or it cannot be fetched.
            ValueError: not an image, or an argument out of range.
        """
        if not isinstance(image, (list, tuple)) and not is_one(image):
            return self.stream(image, score_threshold=score_threshold, top_k=top_k, classes=classes)
        thresholds = self.thresholds(score_threshold, top_k, classes)

        def segment(images: list[Image]) -> list[Detections]:
            return self.segment(images, thresholds)

        if isinstance(image, (list, tuple)):
            parts = batches(enumerate(image), LIST_BATCH)
            found = (segment_batch(list(read_each(part)), segment) for part in parts)
            return list(chain.from_iterable(found))
        return segment_batch([read(image)], segment, keep=True)[0]

    def stream(
        self,
        source: object,
        *,
        batch: int = 1,
        score_threshold: float | None = None,
        top_k: int | None = None,
        classes: Classes = None,
        on_error: Literal["raise", "skip"] = "raise",
        keyframes: int | Literal["auto", "off"] = "off",
        track: bool = False,
    ) -> Generator[Detections, None, None]:
        """Segment any number of images, in order, in bounded memory.

        Files of lists, folders and videos are read ahead and processed by as many threads as are
        fast on this machine. From an iterator, camera or live stream, the next image is requested
        only when the results of all previous ones have been taken.

        Args:
            source: a list or other iterable of images as for `__call__`; a folder and its
                subfolders; a pattern such as "in/**/*.jpg"; a video file; the number of a camera;
                the address of a stream. A web address without the suffix of an image is a stream.
            batch: number of images that run through the network together.
            score_threshold: see `__call__`.
            top_k: see `__call__`.
            classes: see `__call__`.
            on_error: "raise" ends at an image that cannot be read; "skip" logs and counts it.
            keyframes: run the network on every Nth frame of a video, or on frames chosen by "auto";
                optical flow carries its results to the others. For a camera, the network runs on
                the newest frame while others are yielded.
            track: the images are frames of one video; give their objects lasting `track_ids`, and
                average masks along the motion, see `yolact.video.tracks.Tracker`.

        Returns:
            An iterator over the detections. Closing it, once begun, closes a video or camera.
            `source` is "clip.mp4#17" for frame 17 of a video, counted from 0; "0#17" for camera 0.

        Raises:
            OSError: no such file or folder.
            ValueError: the source cannot be opened, or an argument is out of range.
        """
        check_count("batch", batch)
        if on_error not in ("raise", "skip"):
            raise OptionError("on_error", on_error, "expected raise or skip")
        thresholds = self.thresholds(score_threshold, top_k, classes)
        if keyframes != "off":
            from .video.keyframes import check_keyframes

            check_keyframes(keyframes)
        skip = on_error == "skip"
        many = open_many(source, card_of(self.device))
        found = self._segment_many(many, batch, thresholds, keyframes, skip)
        if not track:
            return found
        from .video.tracks import track_frames

        return track_frames(found, thresholds.top_k)

    def _segment_many(
        self, many: Many, batch: int, thresholds: Thresholds, keyframes: int | str, skip: bool
    ) -> Generator[Detections, None, None]:
        """Segment an opened source, see `stream`."""
        predictor = self.for_many() if many.is_stored else self

        def segment(images: Sequence[Picture]) -> list[Detections]:
            return predictor.segment(images, thresholds)

        if keyframes in ("off", 1):
            return segment_many(many, segment, batch, predictor.workers, skip=skip)
        from .video.streaming import segment_frames

        parts = batch, predictor.workers, keyframes, self.counting(thresholds).select
        return segment_frames(many, segment, *parts)

    def tiled(
        self,
        source: OneImage | Pixels,
        tile: float = 1024,
        overlap: float = 0.2,
        score_threshold: float | None = None,
        top_k: int | None = None,
        classes: Classes = None,
        *,
        overview: bool = True,
        max_pixels: int | None = None,
    ) -> Detections:
        """Segment a large image in overlapping tiles, to find objects that are otherwise too small.

        Args:
            source: one image as for `__call__`; or any object with a shape (H, W, 3) that returns
                uint8 pixels for `source[y1:y2, x1:x2]`, such as a memmap or a zarr or HDF5 array,
                which is read only tile by tile. An array is kept as `picture` without a copy.
            tile: side in pixels; 0.5 for half of an image's longer side. Smaller images stay whole.
            overlap: minimum overlap of neighbouring tiles, as a share of a side, 0 to 0.9.
            score_threshold: see `__call__`.
            top_k: see `__call__`; for the whole image.
            classes: see `__call__`.
            overview: also segment the whole image, shrunk to a tile, for objects beyond one tile.
            max_pixels: refuse files with more pixels; None for 178 million.

        Returns:
            Detections of the whole image, each object once.

        Raises:
            OSError: no such image, or it cannot be fetched.
            ValueError: not an image, or an argument out of range.
        """
        from .tiles.segment import Tiling, segment_tiled

        tiling = Tiling(tile, overlap, overview, max_pixels)
        thresholds = self.thresholds(score_threshold, top_k, classes)
        if is_pixels(source):
            name, image = "", source
        else:
            image, name, *_ = read(source, max_pixels)
        found = segment_tiled(self, image, tiling, thresholds)
        return replace(found, source=name, picture=image if isinstance(image, np.ndarray) else None)

    def thresholds(
        self,
        score_threshold: float | None = None,
        top_k: int | None = None,
        classes: Classes = None,
    ) -> Thresholds:
        """Return the thresholds for detections, with the model's own score threshold for None.

        Raises:
            OptionError: a value out of range, or an unknown class.
        """
        own, names = self.model.score_threshold, self.model.class_names
        return Thresholds.for_pictures(own, names, score_threshold, top_k, classes)

    def counting(self, thresholds: Thresholds) -> Thresholds:
        """Return the thresholds, adapted to keep empty masks if the model predicts boxes only."""
        has_masks = self.model.mask_mode != "none"
        return thresholds if has_masks else replace(thresholds, drop_empty=False)

    def run_network(self, inputs: Any) -> Any:
        """Run the network on the result of `model.preprocess`: (B, 3, S, S) for YOLACT.

        An engine may reuse the memory of its result at the thread's next call: clone it to keep it.
        """
        if self._network is not None:
            return self._network(inputs)
        with autocast(self.device, self._precision):
            return self.model.network(inputs)

    def warm_up(self) -> None:
        """Compile in advance what is compiled at first use, so as not to delay the first image."""
        if self._network is not None:
            warm_up(self._network)

    def find_all(self, image: Image) -> Detections:
        """Return all detections in an (H, W, 3) uint8 RGB image, as the AP counts them."""
        return self.segment([image], Thresholds())[0]

    @torch.inference_mode(False)
    @torch.no_grad()  # results are plain tensors, which a caller may change
    def segment(self, images: Sequence[Picture], thresholds: Thresholds) -> list[Detections]:
        """Segment a batch of images of any size: preprocess, network, postprocess.

        A batch too large for a GPU's memory runs in parts, see `BatchLimit`.

        Args:
            images: (H, W, 3) uint8 RGB; tensors preferably on the model's device.
            thresholds: which detections count.

        Returns:
            Detections of each image, on the CPU.

        Raises:
            RuntimeError: the process was forked after one was made, or the model is training.
        """
        if self.model.training:
            raise RuntimeError("the model is in training mode: model.eval() ends that")
        run_here(self._network, self._process)
        return self._limit.run(lambda part: self._segment(part, thresholds), images)

    def _segment(self, images: Sequence[Picture], thresholds: Thresholds) -> list[Detections]:
        tensors = [view_tensor(image) for image in images]
        with self.timer.stage("preprocess"):
            inputs = self.model.preprocess(tensors)
        with self.timer.stage("network"):
            outputs = self.run_network(inputs)
        return self.postprocess(outputs, sizes_of(tensors), thresholds)

    def postprocess(
        self, outputs: Any, sizes: Sequence[tuple[int, int]], thresholds: Thresholds
    ) -> list[Detections]:
        """Turn the result of `run_network` into the detections that count, on the CPU.

        Args:
            outputs: network outputs for B images.
            sizes: height and width of each image in pixels.
            thresholds: which detections count.
        """
        thresholds = self.counting(thresholds)
        every = replace(thresholds, top_k=None) if thresholds.drop_empty else thresholds
        with self.timer.stage("postprocess"):
            found = self.model.postprocess(outputs, sizes, every)
            return [thresholds.select(detections) for detections in fetch_groups(found)]
