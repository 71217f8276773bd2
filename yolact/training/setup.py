"""Set up a training run from its configuration and its options."""

from __future__ import annotations

import ctypes
import logging
import os
import platform
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from data.annotations.coco import CocoInstances
from data.catalog import has_one_split, open_dataset, resolve_dataset
from data.classes import Categories
from data.loader import build_train_loader
from data.problems import counted, told_once
from data.sample import Dataset
from layers.structures import Target
from yolact import distributed
from yolact.build import build_model
from yolact.checkpoint import Checkpoint
from yolact.config import Config, TrainConfig
from yolact.engines.choose import pick_device
from yolact.engines.pytorch import autocast, memory_format_of
from yolact.engines.training_graphs import RecordedLosses, can_record
from yolact.errors import OptionError, UsageError, naming_checkpoint
from yolact.evaluation.coco import CocoEvaluator
from yolact.evaluation.metrics import CocoMetrics
from yolact.models.segmenter import AnySegmenter
from yolact.runs.provenance import provenance
from yolact.timm_networks import TIMM_PREFIX

from .dataset_report import fitted_to_density, log_what_is_learned, report_on_dataset
from .diagnosis import LossTrend
from .log import Console, TrainingLog
from .optim import (
    MIN_BATCH_NORM_IMAGES,
    AveragedWeights,
    build_optimizer,
    gradient_scaler,
    shortened_for,
    with_epochs,
)
from .options import TrainOptions
from .pictures import training_data
from .pretrained import categories_to_train, load_start_weights
from .record import RunFiles, TensorBoard
from .saver import Saver, lock_run, make_saver, restore
from .state import Learner, Progress

if TYPE_CHECKING:
    from yolact.models.backbones.from_timm import TimmBackbone

logger = logging.getLogger(__name__)

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # of malloc.h


@dataclass
class Session:
    """Everything that the training loop works on.

    Attributes:
        options: options of the run.
        learner: the model in training, and its progress.
        parallel: the function for the model's losses, see `loss_function`.
        train_data: training data.
        val_data: validation data; None for no validation.
        saver: writes checkpoints.
        log: the log file.
        files: results.csv, curves and pictures; None if not wanted.
        console: the progress line on the terminal.
        evaluator: evaluator of the last validation.
        trend: trend of the losses.
        diagnosed: whether the reason for finding nothing was already reported.
        lock: lock on the run's name; None in secondary processes.
    """

    options: TrainOptions
    learner: Learner
    parallel: nn.Module | RecordedLosses
    train_data: Dataset
    val_data: Dataset | None
    saver: Saver
    log: TrainingLog
    files: RunFiles | None
    console: Console
    evaluator: CocoEvaluator | None = None
    trend: LossTrend = field(default_factory=LossTrend)
    diagnosed: bool = False
    lock: ExitStack | None = None

    def loader(self) -> DataLoader[tuple[Tensor, Target]]:
        """Make the loader of batches from the current iteration on."""
        config = self.learner.config
        return build_train_loader(
            training_data(self.train_data, config, config.train.seed),
            config.train.batch_size,
            self.options.num_workers,
            start_iteration=self.learner.progress.iteration,
            pin_memory=self.learner.model.device.type == "cuda",
            part=(distributed.rank(), distributed.world_size()),
        )

    def record_step(self, losses: dict[str, float], learning_rate: float, seconds: float) -> None:
        """Show and log a step: its weighted losses, learning rate and duration."""
        epoch, iteration = self.learner.epoch, self.learner.progress.iteration
        self.console.update(losses, seconds)
        self.trend.add(losses)
        if self.files is not None:
            images = self.learner.config.train.batch_size
            self.files.train(losses, iteration, learning_rate, seconds, images)
        if iteration % self.console.interval == 0:
            logger.info(self.console.line(epoch, iteration) + self._gpu_memory())
            self.log.train(
                losses,
                epoch=epoch,
                iteration=iteration,
                learning_rate=learning_rate,
                elapsed=seconds,
            )

    def record_validation(self, metrics: CocoMetrics, seconds: float) -> None:
        """Log a validation, and redraw the curves."""
        epoch, iteration = self.learner.epoch, self.learner.progress.iteration
        self.log.validation(
            metrics.box.overlaps,
            metrics.mask.overlaps,
            epoch=epoch,
            iteration=iteration,
            elapsed=seconds,
        )
        if self.files is not None:
            self.files.validation(metrics, epoch, iteration)

    def close(self) -> None:
        """Close the progress line, and write TensorBoard's last events."""
        self.console.close()
        if self.files is not None:
            self.files.close()
        if self.lock is not None:
            self.lock.close()

    def _gpu_memory(self) -> str:
        device = self.learner.model.device
        if not self.options.log_gpu or device.type != "cuda":
            return ""
        return f" || GPU: {torch.cuda.max_memory_allocated(device) / 2**30:.2f} GiB"


@told_once()
def set_up(config: Config, options: TrainOptions, checkpoint: Checkpoint | None = None) -> Session:
    """Make everything that the training loop works on.

    Args:
        config: its classes are replaced by the dataset's.
        options: all other options of the run.
        checkpoint: to continue from, or to take weights from, see `TrainOptions.resume`.

    Raises:
        UsageError: configuration, options, data and processes do not fit together.
    """
    device = pick_device(options.device)
    if device.type == "cpu" and options.precision == "bfloat16":
        avoid_faulty_kernels()
    try:
        autocast(device, options.precision)
        scaler = gradient_scaler(device, options.precision)
    except OptionError as error:  # before anything is read
        raise UsageError(error.on_command_line) from None
    train_data = open_training_data(config, checkpoint, options.resume)
    if train_data.categories.names != config.model.names:
        config = config.with_classes(train_data.categories.names)
    val_data = open_validation_data(config, options, train_data.categories)
    config = fitted_to_density(config, (train_data, val_data))
    device = distributed.init_process(device)
    distributed.check_shared_folder(options.save_folder)
    if device.type == "cpu":
        disable_malloc_trim()
    config = replace(config, train=fit_schedule(config.train, options, len(train_data)))

    torch.manual_seed(config.train.seed)
    model = new_model(config)
    load_start_weights(model, config, checkpoint, options)
    model.to(device).to(memory_format=memory_format_of(device)).train()
    freeze_parts(model, options, config.train)
    parallel = loss_function(model, config, options)
    optimizer = build_optimizer(model, config.train)
    average = AveragedWeights(model, config.train.ema_decay) if config.train.ema_decay else None
    progress = Progress(max(options.start_iteration, 0))
    learner = Learner(config, model, optimizer, len(train_data), average, scaler, progress)
    if checkpoint is not None and options.resume:
        restore(checkpoint, learner, options.start_iteration)

    lock = lock_run(options) if distributed.rank() == 0 else None
    saver = make_saver(options, learner)
    if checkpoint is not None and options.resume:
        saver.resume_from(checkpoint.path)
    saver.warn_of_later_checkpoints()
    log, files = make_logs(options, learner)
    classes = counted(config.num_classes, "class")
    of = f"{counted(len(train_data), 'image')} of {config.dataset}, {classes}"
    logger.info("%s: %s, on %s", config.name, of, device)
    logger.info(plan(learner, options.precision))
    if options.report and writes_logs(options) and not options.resume:
        report_on_dataset(train_data, config, options.folder)
    train, iteration = config.train, learner.progress.iteration
    console = Console(train.max_iterations, model.loss_letters, train.batch_size, iteration)
    return Session(
        *(options, learner, parallel, train_data, val_data, saver, log, files, console), lock=lock
    )


def new_model(config: Config) -> AnySegmenter:
    """Build a model with random weights, and test a timm backbone at the input's size.

    Raises:
        ValueError: the backbone does not accept images of this size.
    """
    model = build_model(config)
    if config.model.backbone.startswith(TIMM_PREFIX):
        backbone = cast("TimmBackbone", model.network.get_submodule("backbone"))
        backbone.check_side(config.model.backbone, config.model.image_size)
    return model


def avoid_faulty_kernels() -> None:
    """Disable oneDNN's newest kernels; to be called before its first operator.

    With them, a Xeon's gradients in bfloat16 are not always finite (PyTorch 2.14). Processors
    without AMX lose nothing, and a limit that is already set is kept.
    """
    os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "AVX512_CORE_AMX")


def disable_malloc_trim() -> None:
    """Let the allocator of GNU's C library keep freed memory for the next step.

    By default it returns large blocks at once, and the system zeroes each page of new ones, which
    costs a quarter of a step's processor time. Other C libraries are not affected.
    """
    if platform.libc_ver()[0] == "glibc":
        library = ctypes.CDLL(None)
        for name, value in ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, -1)):
            library.mallopt(name, value)


def open_training_data(config: Config, checkpoint: Checkpoint | None, resume: bool) -> Dataset:
    """Open the training split, with its classes in a checkpoint's order.

    Raises:
        ValueError: there are no objects to learn in it.
        FileNotFoundError: its files do not exist.
    """
    name = config.dataset
    stored = checkpoint.config if checkpoint is not None else None
    try:
        with naming_checkpoint((stored.dataset, stored.data.val) if stored else ()):
            data = open_dataset(name, "train", options=config.data)
    except FileNotFoundError as error:
        mend = "--dataset takes your own data, --config=yolact_resnet18_shapes needs none"
        raise FileNotFoundError(f"{error}; {mend}") from None
    if checkpoint is not None:
        categories = categories_to_train(data.categories, name, checkpoint, resume)
        if categories is not data.categories:
            data = open_dataset(name, "train", categories, options=config.data)
    if isinstance(data, CocoInstances):
        log_what_is_learned(data, name)
    return data


def open_validation_data(
    config: Config, options: TrainOptions, categories: Categories
) -> Dataset | None:
    """Open the validation split, unless none is wanted; if there is none, log this.

    Raises:
        UsageError: `--patience` is given, but there is no validation split.
        ValueError: the dataset of `--val` cannot be opened.
    """
    data, mend = None, "--val=0.2 holds out a fifth of the images, --val=path names others"
    if options.validation_size > 0:
        try:
            data = open_dataset(config.dataset, "val", categories, options=config.data)
        except (ValueError, FileNotFoundError) as error:
            if config.data.val:
                raise
            logger.warning("no validation: %s; %s", error, mend)
    if data is None and options.patience:
        raise UsageError(f"--patience={options.patience} needs validations: this run has none")
    if data is not None and has_one_split(config.dataset, options=config.data):
        logger.warning("%s: the AP will be of training images; %s", config.dataset, mend)
    own = resolve_dataset(config.dataset) if config.data.val else None
    if own is not None and own.has("val") and not own.is_shared:
        logger.warning("%s has a val split, which --val leaves unused", config.dataset)
    if data is not None and config.data.val:
        if not len(data):
            raise UsageError(f"--val={config.data.val}: no image to validate on; label more")
        images = counted(len(data), "image")
        logger.info("%s to validate on (--val=%s)", images, config.data.val)
    return data


def fit_schedule(train: TrainConfig, options: TrainOptions, images: int) -> TrainConfig:
    """Fit a schedule to the number of images, if the options ask for it.

    Raises:
        UsageError: the processes cannot share the batch.
    """
    size, processes = train.batch_size, distributed.world_size()
    if size % processes:
        raise UsageError(f"--batch_size={size}: cannot be shared by {processes} processes equally")
    if options.epochs is not None:
        return with_epochs(train, options.epochs, images)
    return shortened_for(train, images) if options.shorten else train


def freeze_parts(model: AnySegmenter, options: TrainOptions, train: TrainConfig) -> None:
    """Freeze a backbone with rate 0, and batch norm that would get too few images at a time.

    Args:
        model: model to be trained.
        options: determine how batches are split.
        train: its batch size is that of all processes together.

    Raises:
        UsageError: the batch cannot be split that way.
    """
    if train.backbone_rate == 0:
        model.freeze_backbone()
    processes = distributed.world_size()
    parts = options.batch_parts(train.batch_size // processes)
    smallest = min(part.stop - part.start for part in parts) * processes
    if smallest < MIN_BATCH_NORM_IMAGES:
        logger.warning(
            "batch norm is frozen, which %s at once would train badly: good with trained weights, "
            "bad from scratch; %d or more train it",
            counted(smallest, "image"),
            MIN_BATCH_NORM_IMAGES,
        )
        model.freeze_batch_norm()


def loss_function(
    model: AnySegmenter, config: Config, options: TrainOptions
) -> nn.Module | RecordedLosses:
    """Return a function for a model's losses: the model, in parallel with others, or recorded."""
    parallel = distributed.wrap_parallel(model, unused_parameters=config.model.mask_rescoring)
    is_whole = parallel is model and len(options.batch_parts(config.train.batch_size)) == 1
    if is_whole and not config.train.multi_scale and can_record(model):
        return RecordedLosses(model)
    return parallel


def writes_logs(options: TrainOptions) -> bool:
    """Tell whether this process writes log files."""
    return options.log and distributed.rank() == 0


def make_logs(options: TrainOptions, learner: Learner) -> tuple[TrainingLog, RunFiles | None]:
    """Open the log, and results.csv with the files beside it; without `--log`, neither."""
    config, iteration = learner.config, learner.progress.iteration
    path, files = None, None
    if writes_logs(options):
        board = TensorBoard(options.folder, iteration) if options.tensorboard else None
        files = RunFiles(options.folder, iteration, board)
        path = options.log_folder / f"{options.name}.log"
    log = TrainingLog(path, learner.model.loss_letters)
    settings = {"settings": config.to_dict(), "made_by": provenance(config.train.seed)}
    log.start({**options.arguments, **settings}, [str(learner.model.device)])
    return log, files


def plan(learner: Learner, precision: str) -> str:
    """Describe the length of a run, and how it is computed."""
    config = learner.config
    steps, size = config.train.max_iterations, config.train.batch_size
    threads = counted(torch.get_num_threads(), "thread")
    return (
        f"{counted(steps, 'step')} of {counted(size, 'image')}, {config.model.image_size} px, "
        f"{steps * size / learner.images_per_epoch:.3g} passes over the data; "
        f"{'float32' if precision == 'auto' else precision}, {threads}"
    )
