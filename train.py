"""Train YOLACT or YOLACT++ on COCO, on your own data, or on generated shapes.

Examples:
  python train.py --config=yolact_base                            COCO, as published
  python train.py --config=yolact_resnet50 --dataset=my_folder    your own COCO-style data
  python train.py --dataset=my_folder --weights=yolact_resnet50   the same, fine-tuned
  python train.py --config=yolact_resnet18_shapes                 no download, no GPU
  python train.py --config=yolact_base --resume=latest            go on after a stop
"""

from __future__ import annotations

import argparse
import logging
import math
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from data.catalog import Categories
from data.datasets import open_dataset
from data.loader import Batch, build_train_loader
from data.transforms import Samples, TrainTransform
from layers.structures import Detections
from yolact import Config, Predictor, Yolact, build_model
from yolact.checkpoint import (
    load_matching_weights,
    load_weights,
    read_checkpoint,
    resolve_weights,
)
from yolact.cli import UsageError, device_name, run
from yolact.engine import autocast, pick_device
from yolact.evaluation import EvaluationDataset, evaluate
from yolact.metrics import format_table
from yolact.optim import (
    MIN_BATCH_NORM_IMAGES,
    build_optimizer,
    learning_rate_at,
    set_learning_rate,
)
from yolact.pretrained import load_backbone
from yolact.run import Console, Progress, Saver, Stopped, restore, stop_requested
from yolact.train_flags import batch_parts, configure, parse_arguments, resumed_checkpoint
from yolact.training_log import TrainingLog

logger = logging.getLogger("train")

# After so many steps in a row without finite losses, training is not going to recover.
MAX_BAD_STEPS = 20


@dataclass
class Run:
    """Everything that the loop works on."""

    args: argparse.Namespace
    config: Config
    model: Yolact
    optimizer: torch.optim.Optimizer
    progress: Progress
    train_data: Samples
    val_data: EvaluationDataset | None
    saver: Saver
    log: TrainingLog


def main(argv: Sequence[str] | None = None) -> None:
    """Read the command line, set up, train."""
    train(set_up(parse_arguments(__doc__, argv)))


def train(run: Run) -> None:
    """Run the loop: how YOLACT is trained, on one page."""
    args, config, model, progress = run.args, run.config, run.model, run.progress
    loader = build_train_loader(
        run.train_data,
        TrainTransform(image_size=config.model.image_size, **vars(config.augment)),
        config.train.batch_size,
        args.num_workers,
        config.train.seed,
        start_iteration=progress.iteration,
        pin_memory=model.pixel_mean.is_cuda,
    )
    console = Console(config.train.max_iterations)
    with stop_requested() as stop, saving(run):
        batches = iter(loader)
        bad_steps, start = 0, time.perf_counter()
        while progress.iteration < config.train.max_iterations:
            learning_rate = learning_rate_at(progress.iteration, config.train)
            set_learning_rate(run.optimizer, learning_rate)
            losses, finite = train_step(run, next(batches))
            bad_steps = 0 if finite else bad_steps + 1
            if bad_steps:
                progress.skipped += 1
                logger.warning("not finite, skipped (%d so far): %s", progress.skipped, losses)
            if bad_steps == MAX_BAD_STEPS:
                raise FloatingPointError(diagnosis(losses, learning_rate))

            progress.iteration += 1
            seconds, start = time.perf_counter() - start, time.perf_counter()
            console.update(losses, seconds)
            if progress.iteration % console.interval == 0:
                line = console.line(run.saver.epoch, progress.iteration)
                logger.info(line + gpu_memory(args, model))
                run.log.train(
                    losses,
                    epoch=run.saver.epoch,
                    iteration=progress.iteration,
                    learning_rate=learning_rate,
                    elapsed=seconds,
                )
            if run.val_data is not None and validation_due(run):
                validate(run, run.val_data, stop)
                start = time.perf_counter()
            if stop.is_set():
                raise Stopped
            if progress.iteration % args.save_interval == 0:
                run.saver.save()
        path = run.saver.save()
        if run.val_data is not None and progress.validated != progress.iteration:
            validate(run, run.val_data, stop)
    print(path)


@contextmanager
def saving(run: Run) -> Iterator[None]:
    """Save what was learned before anything that goes wrong ends the run, divergence excepted."""
    try:
        yield
    except FloatingPointError:
        raise
    except (Stopped, Exception):
        if run.args.interrupt and run.progress.iteration:
            run.saver.save_interrupted()
        raise


def train_step(run: Run, batch: Batch) -> tuple[dict[str, float], bool]:
    """Take one step of gradient descent.

    Returns:
        The losses by name, and whether they and the gradients were finite; if not, the model is
        left as it was.
    """
    model, optimizer = run.model, run.optimizer
    device = model.pixel_mean.device
    images, targets = batch
    targets = [target.to(device) for target in targets]
    optimizer.zero_grad(set_to_none=True)
    statistics = [(buffer, buffer.clone()) for buffer in model.buffers()]
    totals: dict[str, float] = {}
    parts = batch_parts(run.args.batch_alloc, len(images))
    for part in parts:
        with autocast(device, run.args.precision):
            losses = model(images[part], targets[part])
        torch.autograd.backward(torch.stack(list(losses.values())).sum() / len(parts))
        for name, loss in losses.items():
            totals[name] = totals.get(name, 0.0) + loss.item() / len(parts)
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    norm = get_total_norm(gradients)
    finite = math.isfinite(sum(totals.values())) and bool(norm.isfinite())
    if finite:
        if run.config.train.gradient_clip:
            clip_grads_with_norm_(model.parameters(), run.config.train.gradient_clip, norm)
        optimizer.step()
    else:  # batch norm has seen what the weights shall not
        for buffer, before in statistics:
            buffer.copy_(before)
    return totals, finite


def diagnosis(losses: dict[str, float], learning_rate: float) -> str:
    """Say what to do about losses that stay infinite or undefined."""
    bad = [name for name, loss in losses.items() if not math.isfinite(loss)] or ["the gradients"]
    return (
        f"training diverged: {MAX_BAD_STEPS} steps in a row were not finite, in {', '.join(bad)}; "
        f"resume from an earlier checkpoint with a learning rate below {learning_rate:g} (--lr), "
        "a longer warm-up (--set train.warmup_iterations=2000), or check the annotations"
    )


def validation_due(run: Run) -> bool:
    """Tell whether this iteration completed an epoch after which to validate."""
    if run.args.validation_epoch < 1:
        return False
    batch_size, images = run.config.train.batch_size, len(run.train_data)
    seen = run.progress.iteration * batch_size
    period = images * run.args.validation_epoch
    return bool(seen // period > (seen - batch_size) // period)


def validate(run: Run, val_data: EvaluationDataset, stop: Event) -> None:
    """Evaluate on validation images, print the table, keep the best weights."""
    predictor = Predictor(run.model, run.args.precision)

    def predict(image: NDArray[np.uint8]) -> Detections:
        if stop.is_set():
            raise Stopped
        return predictor(image, score_threshold=0.0, top_k=None)

    start = time.perf_counter()
    try:
        evaluator, _ = evaluate(predict, val_data, max_images=run.args.validation_size)
        metrics = evaluator.summarize()
    except (ValueError, OSError) as error:  # one bad image must not end a long run
        logger.warning("validation failed: %s", error)
        return
    finally:
        run.model.train()
    print(format_table(metrics), flush=True)
    run.progress.validated = run.progress.iteration
    run.log.validation(
        metrics.box,
        metrics.mask,
        epoch=run.saver.epoch,
        iteration=run.progress.iteration,
        elapsed=time.perf_counter() - start,
    )
    run.saver.save_best(metrics.mask["all"])


def set_up(args: argparse.Namespace) -> Run:
    """Make everything that the loop works on."""
    checkpoint = resumed_checkpoint(args)
    config = configure(args, checkpoint)
    train_data = open_dataset(config.dataset, "train")
    if train_data.names != config.model.names:
        config = config.with_classes(train_data.names)
    val_data = validation_data(args, config, train_data.categories)
    device = pick_device(device_name(args))

    torch.manual_seed(config.train.seed)
    model = build_model(config)
    if checkpoint is not None:
        load_weights(model, checkpoint)
    else:
        initialise(model, config, args)
    model.to(device).to(memory_format=torch.channels_last)
    model.train()
    parts = batch_parts(args.batch_alloc, config.train.batch_size)
    if min(part.stop - part.start for part in parts) < MIN_BATCH_NORM_IMAGES:
        logger.info("batches of fewer than %d images: batch norm is frozen", MIN_BATCH_NORM_IMAGES)
        model.freeze_batch_norm()
    optimizer = build_optimizer(model, config.train)
    progress = Progress(max(args.start_iter, 0))
    if checkpoint is not None:
        progress = restore(checkpoint, optimizer, args.start_iter)
    check_folder(args.save_folder)
    saver = Saver(
        args.save_folder,
        config,
        model,
        optimizer,
        progress,
        len(train_data),
        args.keep_latest,
        args.keep_latest_interval,
    )
    log = TrainingLog(args.log_folder / f"{config.name}.log" if args.log else None)
    log.start(vars(args) | {"settings": config.to_dict()}, [str(device)])
    of = f"{len(train_data)} images of {config.dataset}, {config.num_classes} classes"
    logger.info("%s: %s, on %s", config.name, of, device)
    return Run(args, config, model, optimizer, progress, train_data, val_data, saver, log)


def validation_data(
    args: argparse.Namespace, config: Config, categories: Categories
) -> EvaluationDataset | None:
    """Open the validation split, unless none is wanted; without one, say so and go on."""
    if args.validation_size < 1:
        return None
    try:
        return open_dataset(config.dataset, "val", categories)
    except (ValueError, FileNotFoundError) as error:
        logger.warning("no validation: %s", error)
        return None


def initialise(model: Yolact, config: Config, args: argparse.Namespace) -> None:
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


def gpu_memory(args: argparse.Namespace, model: Yolact) -> str:
    """Return the end of the console line that --log_gpu asks for."""
    device = model.pixel_mean.device
    if not args.log_gpu or device.type != "cuda":
        return ""
    return f" || GPU: {torch.cuda.max_memory_allocated(device) / 2**30:.2f} GiB"


if __name__ == "__main__":
    raise SystemExit(run(main))
