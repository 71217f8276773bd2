"""The options of a training run that are no part of its `Config`."""

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
    """The start of a run, its use of the machine, and what it keeps.

    Attributes:
        name: of the run, in the names of its files.
        resume: go on with the run that wrote the checkpoint; False starts a new one from its
            weights.
        backbone_weights: a file with ImageNet weights of timm's backbone; None finds them.
        start_iteration: to count from when resuming; -1 is the checkpoint's own, 0 begins anew.
        epochs: passes over the images, instead of the iterations of the configuration.
        shorten: fit the iterations to a small dataset.
        device: as in `pick_device`.
        precision: of the network; "auto" is float32.
        batch_alloc: sizes of the parts in which a process runs its share of a batch.
        accumulate: the number of such parts, as equal as can be, instead of their sizes.
        num_workers: data loading processes.
        save_folder: for checkpoints.
        log_folder: for <name>.log and the folder <name>.
        save_interval: iterations between checkpoints; None for 10000, or a fifth of a shorter run.
        keep_latest: delete the previous checkpoint after a save ...
        keep_latest_interval: ... except at multiples of this iteration.
        interrupt: save a checkpoint when the run is stopped.
        log: write log files.
        log_gpu: show the GPU memory in use.
        validation_size: images to validate on; less than 1 for no validation.
        validation_epoch: epochs between validations; less than 1 for only a last one, None for 2 or
            as many as make `MAX_VALIDATIONS`.
        patience: stop after so many validations without a better mask AP.
        tensorboard: write TensorBoard events.
        report: describe the data before, write a report at the end.
        arguments: all of the command line, for the log.
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

    @property
    def folder(self) -> Path:
        """For curves, pictures and the report."""
        return self.log_folder / self.name

    def less_memory(self, batch_size: int) -> str:
        """Say what makes a step on the batch of one process need less memory."""
        parts = 2 * len(self.batch_parts(batch_size))
        splits = f"--accumulate={parts} runs a batch in {parts} parts; " * (parts <= batch_size)
        return splits + self._less_memory

    @property
    def less_memory_to_validate(self) -> str:
        """What makes a validation, which sees one image at a time, need less memory."""
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
    """Refuse settings by which a model cannot be trained.

    Raises:
        UsageError: so they are.
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
