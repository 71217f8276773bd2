"""Everything that a training run works on, made from its command line."""

from __future__ import annotations

import argparse
import logging
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from data.annotations.coco import CocoInstances
from data.catalog import has_one_split, open_dataset
from data.checks.dataset import check_dataset
from data.classes import Categories
from data.sample import Dataset
from yolact import distributed
from yolact.build import build_model
from yolact.checkpoint import load_matching_weights, load_weights, read_checkpoint, resolve_weights
from yolact.config import Config
from yolact.engines.choose import pick_device
from yolact.evaluation.coco import CocoEvaluator
from yolact.models.segmenter import Segmenter
from yolact.training.dataset_report import describe_dataset
from yolact.training.log import Console, TrainingLog
from yolact.training.optim import MIN_BATCH_NORM_IMAGES, average_weights, build_optimizer
from yolact.training.pictures import picture_of_training_data, train_transform
from yolact.training.pretrained import load_backbone
from yolact.training.record import RunFiles, TensorBoard
from yolact.training.saver import Saver, restore
from yolact.training.state import Learner, Progress

from .common import UsageError, device_name
from .train import batch_parts, configure, fit_schedule, resumed_checkpoint, run_name

logger = logging.getLogger(__name__)

_CHECKED_IMAGES, _TOLD_PROBLEMS = 5000, 5


@dataclass
class Run:
    """Everything that the loop works on; `parallel` is the model as it is called for its losses."""

    args: argparse.Namespace
    learner: Learner
    parallel: nn.Module
    train_data: Dataset
    val_data: Dataset | None
    saver: Saver
    log: TrainingLog
    files: RunFiles | None
    console: Console
    evaluator: CocoEvaluator | None = None

    @property
    def folder(self) -> Path:
        """Where curves, pictures and the report go."""
        return Path(self.args.log_folder) / self.saver.name

    def tell(self, losses: dict[str, float], learning_rate: float, seconds: float) -> None:
        """Show and log a step that was taken.

        Args:
            losses: by name, already weighted.
            learning_rate: the one in force.
            seconds: that it took.
        """
        iteration, images = self.learner.progress.iteration, self.learner.config.train.batch_size
        self.console.update(losses, seconds)
        if self.files is not None:
            self.files.train(losses, iteration, learning_rate, seconds, images)
        if iteration % self.console.interval:
            return
        logger.info(self.console.line(self.saver.epoch, iteration) + self._gpu_memory())
        self.log.train(
            losses,
            epoch=self.saver.epoch,
            iteration=iteration,
            learning_rate=learning_rate,
            elapsed=seconds,
        )

    def _gpu_memory(self) -> str:
        device = self.learner.model.device
        if not self.args.log_gpu or device.type != "cuda":
            return ""
        return f" || GPU: {torch.cuda.max_memory_allocated(device) / 2**30:.2f} GiB"


def set_up(args: argparse.Namespace) -> Run:
    """Make everything that the loop works on."""
    if distributed.is_helper():
        logging.getLogger().setLevel(logging.ERROR)  # the first process speaks for all
    checkpoint = resumed_checkpoint(args)
    config = configure(args, checkpoint)
    train_data = open_dataset(config.dataset, "train")
    if train_data.categories.names != config.model.names:
        config = config.with_classes(train_data.categories.names)
    val_data = validation_data(args, config, train_data.categories)
    if args.patience and val_data is None:
        raise UsageError(f"--patience={args.patience}: there is no validation to wait for")
    device = distributed.join(pick_device(device_name(args)))
    config = fit_schedule(args, config, len(train_data))
    size, processes = config.train.batch_size, distributed.world_size()
    if size % processes:
        raise UsageError(f"--batch_size={size}: cannot be shared by {processes} processes equally")

    torch.manual_seed(config.train.seed)
    model = build_model(config)
    if checkpoint is not None:
        load_weights(model, checkpoint)
    else:
        initialise(model, config, args)
    model.to(device).to(memory_format=torch.channels_last)
    model.train()
    freeze_if_small(model, args, size)
    parallel = distributed.parallel(model, unused_parameters=config.model.mask_rescoring)
    optimizer = build_optimizer(model, config.train)
    average = average_weights(model, config.train.ema_decay) if config.train.ema_decay else None
    learner = Learner(config, model, optimizer, average, Progress(max(args.start_iter, 0)))
    if checkpoint is not None:
        restore(checkpoint, learner, args.start_iter)
    progress = learner.progress
    check_folder(args.save_folder)
    keep = args.keep_latest, args.keep_latest_interval
    saver = Saver(
        args.save_folder, learner, len(train_data), *keep, name=run_name(args, checkpoint)
    )
    if checkpoint is None and saver.best.exists():
        logger.warning("%s, of an earlier run, will be replaced: --name keeps both", saver.best)
    logs = args.log and distributed.rank() == 0
    folder = args.log_folder / saver.name
    log = TrainingLog(args.log_folder / f"{saver.name}.log" if logs else None)
    files = run_files(args, folder, progress.iteration) if logs else None
    log.start(vars(args) | {"settings": config.to_dict()}, [str(device)])
    of = f"{len(train_data)} images of {config.dataset}, {config.num_classes} classes"
    logger.info("%s: %s, on %s", config.name, of, device)
    logger.info(plan(args, config, len(train_data)))
    if args.report and logs and checkpoint is None:
        describe(train_data, config, folder)
    console = Console(config.train.max_iterations, config.train.batch_size, progress.iteration)
    return Run(args, learner, parallel, train_data, val_data, saver, log, files, console)


def freeze_if_small(model: Segmenter[Any, Any], args: argparse.Namespace, size: int) -> None:
    """Freeze batch norm where it would see too few images at once.

    Args:
        model: to be trained.
        args: tell how batches are split.
        size: images in a batch, of all processes.

    Raises:
        UsageError: the batch cannot be split so.
    """
    processes = distributed.world_size()
    parts = batch_parts(args, size // processes)
    smallest = min(part.stop - part.start for part in parts) * processes
    if smallest < MIN_BATCH_NORM_IMAGES:
        logger.warning(
            "batch norm is frozen, since %d images at once are too few for it: good with trained "
            "weights, bad from scratch; %d or more train it",
            smallest,
            MIN_BATCH_NORM_IMAGES,
        )
        model.freeze_batch_norm()


def plan(args: argparse.Namespace, config: Config, images: int) -> str:
    """Say how long a run will be, and how it is computed."""
    train = config.train
    passes = train.max_iterations * train.batch_size / images
    precision = "float32" if args.precision == "auto" else args.precision
    return (
        f"{train.max_iterations} steps of {train.batch_size} images, {config.model.image_size} px, "
        f"{passes:.3g} passes over the data; {precision}, {torch.get_num_threads()} threads"
    )


def run_files(args: argparse.Namespace, folder: Path, iteration: int) -> RunFiles:
    """Open the files that show how the run is going."""
    return RunFiles(folder, iteration, TensorBoard(folder, iteration) if args.tensorboard else None)


def describe(data: Dataset, config: Config, folder: Path) -> None:
    """Say what is in the training images, and show some as they are learned from."""
    if isinstance(data, CocoInstances):
        logger.info(describe_dataset(data, config))
        if len(data) <= _CHECKED_IMAGES:
            tell_problems(config.dataset)
    picture = folder / "train_pictures.jpg"
    logger.info("%s", picture_of_training_data(data, train_transform(config), picture))


def tell_problems(dataset: str) -> None:
    """Say what is suspicious in a dataset: a few lines, and how many more there are."""
    for split, problems in check_dataset(dataset).items():
        for problem in problems[:_TOLD_PROBLEMS]:
            logger.warning("%s: %s", split, problem)
        if len(problems) > _TOLD_PROBLEMS:
            more = len(problems) - _TOLD_PROBLEMS
            logger.warning("%s: %d more, see scripts/check_dataset.py %s", split, more, dataset)


def validation_data(
    args: argparse.Namespace, config: Config, categories: Categories
) -> Dataset | None:
    """Open the validation split, unless none is wanted; without one, say so and go on."""
    if args.validation_size < 1:
        return None
    try:
        data = open_dataset(config.dataset, "val", categories)
    except (ValueError, FileNotFoundError) as error:
        logger.warning("no validation: %s", error)
        return None
    if has_one_split(config.dataset):
        mend = "put images with their annotations into val/"
        logger.warning("%s: the AP will be of training images; %s", config.dataset, mend)
    return data


def initialise(model: Segmenter[Any, Any], config: Config, args: argparse.Namespace) -> None:
    """Give a new model trained weights to start from, where there are any."""
    if args.weights:
        checkpoint = read_checkpoint(resolve_weights(args.weights))
        skipped = load_matching_weights(model, checkpoint)
        for line in skipped:
            logger.info("not loaded: %s", line)
        if len(skipped) == len(model.state_dict()):
            raise UsageError(f"--weights={args.weights}: nothing in it fits {config.name}")
    elif config.train.pretrained_backbone:
        load_backbone(model, config.model)


def check_folder(folder: Path) -> None:
    """Make sure that checkpoints can be written, before hours are spent."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder):
        pass
