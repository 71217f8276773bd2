"""The options of a training run that are not part of its `Config`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path

from yolact.config import Config
from yolact.engines.names import Precision
from yolact.errors import UsageError


@dataclass(frozen=True)
class TrainOptions:
    """How a run starts, uses the machine, and saves its results.

    Attributes:
        name: name of the run, in the names of its files.
        resume: continue the run that wrote the checkpoint; False starts a new run from its weights.
        backbone_weights: a file with ImageNet weights of a timm backbone; None finds them.
        start_iteration: iteration to resume at; -1: the checkpoint's own, 0: the start.
        epochs: passes over the images, instead of the iterations of the configuration.
        shorten: reduce the iterations for a small dataset.
        device: as in `pick_device`.
        precision: precision of the network; "auto" is float32.
        batch_alloc: sizes of the parts in which a process runs its share of a batch.
        accumulate: number of such parts, as equal as possible, instead of their sizes.
        num_workers: number of data loading processes.
        save_folder: folder for checkpoints.
        log_folder: folder for <name>.log and the folder <name>.
        save_interval: iterations between checkpoints; None for 10000, or a fifth of a shorter run.
        keep_latest: after each save, delete the previous checkpoint.
        keep_latest_interval: with `keep_latest`, keep those at multiples of this iteration.
        interrupt: save a checkpoint when the run is stopped.
        log: write log files.
        log_gpu: show the GPU memory in use.
        validation_size: images to validate on; less than 1 for no validation.
        validation_epoch: epochs between validations; less than 1 for only one at the end; None for
            2, or more to have at most `MAX_VALIDATIONS`.
        patience: stop after this many validations without a better mask AP.
        tensorboard: write TensorBoard events.
        report: write a dataset report before and a report at the end.
        arguments: all arguments of the command line, for the log.
        flags: those of the arguments that a checkpoint keeps for `resume`.
    """

    name: str
    resume: bool = False
    backbone_weights: Path | None = None
    start_iteration: int = -1
    epochs: float | None = None
    shorten: bool = False
    device: str = "auto"
    precision: Precision = "auto"
    batch_alloc: tuple[int, ...] = ()
    accumulate: int | None = None
    num_workers: int = 0
    save_folder: Path = Path("weights")
    log_folder: Path = Path("logs")
    save_interval: int | None = None
    keep_latest: bool = False
    keep_latest_interval: int = 100_000
    interrupt: bool = True
    log: bool = True
    log_gpu: bool = False
    validation_size: int = 5000
    validation_epoch: int | None = None
    patience: int | None = None
    tensorboard: bool = False
    report: bool = True
    arguments: Mapping[str, object] = field(default_factory=dict)
    flags: Mapping[str, object] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        """The folder for curves, pictures and the report."""
        return self.log_folder / self.name

    def less_memory(self, batch_size: int) -> str:
        """Advise how a step on the batch of one process can use less memory."""
        parts = 2 * len(self.batch_parts(batch_size))
        splits = f"--accumulate={parts} runs a batch in {parts} parts; " * (parts <= batch_size)
        return splits + self._less_memory

    @property
    def less_memory_to_validate(self) -> str:
        """Advice how a validation, which runs one image at a time, can use less memory."""
        return f"{self._less_memory}; --validation_size=-1 leaves validations out"

    @property
    def _less_memory(self) -> str:
        kept = "; --resume=interrupt goes on" * self.interrupt
        return f"--precision=bfloat16 and --set model.image_size=400 need less{kept}"

    def batch_parts(self, batch_size: int) -> list[slice]:
        """Split the batch of one process.

        Raises:
            UsageError: `batch_alloc` does not add up to the batch size.
        """
        sizes = self.batch_alloc or (batch_size,)
        if self.accumulate:
            parts = min(self.accumulate, batch_size)
            sizes = tuple((batch_size + i) // parts for i in range(parts))
        if min(sizes) < 1 or sum(sizes) != batch_size:
            alloc = ",".join(map(str, sizes))
            raise UsageError(f"--batch_alloc={alloc}: must add up to the batch size, {batch_size}")
        return [slice(end - size, end) for size, end in zip(sizes, accumulate(sizes), strict=True)]


def check_settings(config: Config) -> None:
    """Refuse settings that a model cannot be trained with.

    Raises:
        UsageError: there are such settings.
    """
    if config.model.keep_aspect:
        raise UsageError(
            "model.keep_aspect=True: training squeezes images to squares, and so must the model; "
            "add --set model.keep_aspect=False"
        )
    positive, negative = config.loss.positive_iou, config.loss.negative_iou
    if positive < negative:
        raise UsageError(
            f"loss.positive_iou={positive}: expected loss.negative_iou ({negative}) or more; "
            f"add --set loss.negative_iou={positive}"
        )
    if config.data.boxes_only == "ignore" and config.model.architecture == "mask_rcnn":
        raise UsageError(
            "--boxes_only=ignore: Mask R-CNN would learn what is ignored as background; take use "
            "or skip"
        )
