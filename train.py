"""Train YOLACT, YOLACT++ or Mask R-CNN on COCO, on your own data, or on generated shapes.

Examples:
  python train.py --config=yolact_base                            COCO, as published
  python train.py --config=yolact_resnet50 --dataset=my_folder    your own: COCO, YOLO, CVAT, ...
  python train.py --dataset=my_folder --weights=yolact_resnet50   the same, fine-tuned
  python train.py --dataset=my_folder --val=0.2                   a fifth held out to validate on
  python train.py --config=yolact_resnet18_shapes                 no download, no GPU
  python train.py --config=yolact_base --resume=latest            continue after a stop
  torchrun --nproc-per-node=4 train.py --config=yolact_base       four GPUs, or processes
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm
from tqdm.contrib.logging import logging_redirect_tqdm

from data.loader import Batch
from yolact import distributed
from yolact.cli.common import run_command
from yolact.cli.train_flags import parse_arguments
from yolact.engines.memory import out_of_memory_advice
from yolact.engines.pytorch import autocast
from yolact.training.interrupt import Stopped, save_on_error, stop_requested
from yolact.training.optim import input_size_at, learning_rate_at, set_learning_rate
from yolact.training.setup import Session, set_up
from yolact.training.state import Progress, StepSnapshot
from yolact.training.validation import (
    patience_ended,
    report_validation,
    validate,
    validation_due,
    validation_missed,
    warn_of_crowded_images,
)

logger = logging.getLogger("train")

# After so many steps in a row without finite losses, training is not going to recover.
MAX_BAD_STEPS = 20


def main(argv: Sequence[str] | None = None) -> None:
    """Read the command line, set up, train."""
    if distributed.is_secondary():
        logging.getLogger().setLevel(logging.ERROR)  # only the first process logs progress
    try:
        train(set_up(*parse_arguments(__doc__, argv)))
    finally:
        distributed.shut_down()


def train(session: Session) -> None:
    """Train to the last iteration: the whole loop on one page."""
    options, learner, saver = session.options, session.learner, session.saver
    config, model, progress = learner.config, learner.model, learner.progress
    loader = session.loader()
    warn_of_crowded_images(session)
    less_memory = options.less_memory(config.train.batch_size // distributed.world_size())
    save_interval = options.save_interval or min(10_000, config.train.max_iterations // 5 or 1)
    with (
        closing(session),
        stop_requested() as stop,
        save_on_error(saver, options.interrupt, stop),
        logging_redirect_tqdm(),
    ):
        batches = iter(loader)
        due = validation_missed(session)
        if due:
            validate(session, stop)
        if progress.iteration >= config.train.max_iterations:
            logger.info("trained to its last step already: --epochs=N goes on with a resumed run")
        start = time.perf_counter()
        while progress.iteration < config.train.max_iterations:
            if due and patience_ended(session):
                break
            learning_rate = learning_rate_at(progress.iteration, config.train)
            set_learning_rate(learner.optimizer, learning_rate)
            model.input_size = input_size_at(progress.iteration, model.image_size, config.train)
            with out_of_memory_advice(less_memory):
                losses, finite = train_step(session, next(batches))
            count_bad_steps(progress, losses, finite, learning_rate)
            progress.iteration += 1
            seconds, start = time.perf_counter() - start, time.perf_counter()
            session.record_step(losses, learning_rate, seconds)
            due = validation_due(session)
            if due:
                validate(session, stop)
                start = time.perf_counter()
            if distributed.any_process(stop.is_set()):
                raise Stopped
            is_last = progress.iteration == config.train.max_iterations
            if progress.iteration % save_interval == 0 and not is_last:
                saver.try_save()
        path = saver.save()
        if progress.validated != progress.iteration and validate(session, stop) is not None:
            saver.save(again=True)  # with the score threshold that the validation found
    if distributed.rank() == 0:
        print_results(session, path)


def train_step(session: Session, batch: Batch) -> tuple[dict[str, float], bool]:
    """Take one step of gradient descent.

    Returns:
        The losses by name, and whether they and the gradients were finite; if not, the model stays
        unchanged. It also does if an error ends the step, except for what the optimiser has already
        changed.
    """
    learner, model, parallel = session.learner, session.learner.model, session.parallel
    images, targets = batch
    learner.optimizer.zero_grad(set_to_none=True)
    snapshot = StepSnapshot(model)
    totals: dict[str, Tensor] = {}
    parts = session.options.batch_parts(len(images))
    with snapshot.restored_on_error():
        for part in parts:
            shared = distributed.gradient_sync(parallel, part is parts[-1])
            with shared, autocast(model.device, session.options.precision):
                losses = parallel(images[part], targets[part])
                loss = torch.stack(list(losses.values())).sum() / len(parts)
                torch.autograd.backward(learner.scaler.scale(loss))
            for name, value in losses.items():
                totals[name] = totals.get(name, 0) + value.detach() / len(parts)
        learner.scaler.unscale_(learner.optimizer)
        norm = get_total_norm([p.grad for p in model.parameters() if p.grad is not None])
        means = distributed.all_reduce_mean(torch.stack(list(totals.values())))
        *values, length = torch.cat((means, norm[None])).tolist()  # sync: once in a step
        finite = math.isfinite(sum(values)) and math.isfinite(length)
        if finite:
            if limit := learner.config.train.gradient_clip:
                clip_grads_with_norm_(model.parameters(), limit, norm)
            learner.scaler.step(learner.optimizer)
            if learner.average is not None:
                learner.average.update_parameters(model)
        else:  # undo the update of the batch norm statistics, too
            snapshot.restore_statistics()
        learner.scaler.update()
    return dict(zip(totals, values, strict=True)), finite


def count_bad_steps(
    progress: Progress, losses: dict[str, float], finite: bool, learning_rate: float
) -> None:
    """Count the steps whose losses or gradients were not finite.

    Raises:
        FloatingPointError: too many such steps in a row.
    """
    progress.bad_steps = 0 if finite else progress.bad_steps + 1
    if not finite:
        progress.skipped += 1
        logger.warning("not finite, skipped (%d so far): %s", progress.skipped, losses)
    if progress.bad_steps == MAX_BAD_STEPS:
        raise FloatingPointError(diagnosis(losses, learning_rate))


def diagnosis(losses: dict[str, float], learning_rate: float) -> str:
    """Say what to do about losses that stay infinite or undefined."""
    bad = [name for name, loss in losses.items() if not math.isfinite(loss)] or ["the gradients"]
    return (
        f"training diverged: {MAX_BAD_STEPS} steps in a row were not finite, in {', '.join(bad)}; "
        f"resume from an earlier checkpoint with a learning rate below {learning_rate:g} (--lr), "
        "a longer warm-up (--set train.warmup_iterations=2000), or check the annotations"
    )


def print_results(session: Session, weights: Path) -> None:
    """Print the paths of the last checkpoint and of the report, and how to try the model."""
    print(weights)
    report = report_validation(session, weights)
    if report is not None:
        print(report)
    flags = "--images=your_images:results"
    logger.info("to try it: yolact eval --trained_model=%s %s", weights, flags)


if __name__ == "__main__":
    raise SystemExit(run_command(main))
