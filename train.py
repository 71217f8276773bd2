"""Train YOLACT, YOLACT++ or Mask R-CNN on COCO, on your own data, or on generated shapes.

Examples:
  python train.py --config=yolact_base                            COCO, as published
  python train.py --config=yolact_resnet50 --dataset=my_folder    your own: COCO, YOLO, labelme, VIA
  python train.py --dataset=my_folder --weights=yolact_resnet50   the same, fine-tuned
  python train.py --config=yolact_resnet18_shapes                 no download, no GPU
  python train.py --config=yolact_base --resume=latest            go on after a stop
  torchrun --nproc-per-node=4 train.py --config=yolact_base       four GPUs, or processes
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from threading import Event

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm
from tqdm.contrib.logging import logging_redirect_tqdm

from data.loader import Batch, build_train_loader
from data.sample import Dataset
from yolact import Predictor, distributed
from yolact.cli.common import run
from yolact.cli.setup import Run, set_up
from yolact.cli.train import batch_parts, parse_arguments
from yolact.engines.pytorch import autocast
from yolact.evaluation.coco import CocoEvaluator, eval_order, evaluate
from yolact.evaluation.metrics import format_table
from yolact.evaluation.result_files import merge_results
from yolact.report.write import write_report
from yolact.results.detections import Detections
from yolact.training.interrupt import Stopped, stop_requested
from yolact.training.optim import input_size_at, learning_rate_at, set_learning_rate
from yolact.training.pictures import train_transform, write_validation_pictures
from yolact.training.state import Progress

logger = logging.getLogger("train")

# After so many steps in a row without finite losses, training is not going to recover.
MAX_BAD_STEPS = 20
VALIDATION_EPOCHS, MAX_VALIDATIONS = 2, 20  # unless --validation_epoch says otherwise


def main(argv: Sequence[str] | None = None) -> None:
    """Read the command line, set up, train."""
    args = parse_arguments(__doc__, argv)
    try:
        train(set_up(args))
    finally:
        distributed.leave()


def train(run: Run) -> None:
    """Run the loop: how YOLACT is trained, on one page."""
    args, learner = run.args, run.learner
    config, model, progress = learner.config, learner.model, learner.progress
    loader = build_train_loader(
        run.train_data,
        train_transform(config),
        config.train.batch_size,
        args.num_workers,
        config.train.seed,
        start_iteration=progress.iteration,
        pin_memory=model.device.type == "cuda",
        copy_paste=config.augment.copy_paste,
        part=(distributed.rank(), distributed.world_size()),
    )
    save_interval = args.save_interval or min(10_000, config.train.max_iterations // 5 or 1)
    with stop_requested() as stop, saving(run), logging_redirect_tqdm():
        batches = iter(loader)
        start = time.perf_counter()
        while progress.iteration < config.train.max_iterations:
            learning_rate = learning_rate_at(progress.iteration, config.train)
            set_learning_rate(learner.optimizer, learning_rate)
            model.input_size = input_size_at(progress.iteration, model.image_size, config.train)
            losses, finite = train_step(run, next(batches))
            take_note(progress, losses, finite, learning_rate)
            progress.iteration += 1
            seconds, start = time.perf_counter() - start, time.perf_counter()
            run.tell(losses, learning_rate, seconds)
            val_data = run.val_data if validation_due(run) else None
            if val_data is not None:
                validate(run, val_data, stop)
                start = time.perf_counter()
            if distributed.agree(stop.is_set()):
                raise Stopped
            if val_data is not None and args.patience and progress.stale >= args.patience:
                logger.info("stopped early: %d validations without a better AP", progress.stale)
                break
            if progress.iteration % save_interval == 0:
                run.saver.save()
        path = run.saver.save()
        if run.val_data is not None and progress.validated != progress.iteration:
            validate(run, run.val_data, stop)
    run.console.close()
    if distributed.rank() == 0:
        print(path)
        report(run, path)
        eval_flags = "--score_threshold=0.5 --images=your_images:results"
        logger.info("to try it: python eval.py --trained_model=%s %s", path, eval_flags)


def report(run: Run, path: Path) -> None:
    """Write the report of the last validation, if it is wanted."""
    if run.args.report and run.evaluator is not None and run.val_data is not None:
        about = {"weights": str(path), "date": date.today().isoformat()}
        config = run.learner.config
        print(write_report(run.folder / "report", run.evaluator, run.val_data, config, about))


@contextmanager
def saving(run: Run) -> Iterator[None]:
    """Save what was learned before anything that goes wrong ends the run, divergence excepted."""
    try:
        yield
    except FloatingPointError:
        raise
    except (Stopped, Exception):
        if run.args.interrupt and run.learner.progress.iteration:
            run.saver.save_interrupted()
        raise


def train_step(run: Run, batch: Batch) -> tuple[dict[str, float], bool]:
    """Take one step of gradient descent.

    Returns:
        The losses by name, and whether they and the gradients were finite; if not, the model is
        left as it was.
    """
    learner, model = run.learner, run.learner.model
    device = model.device
    images, targets = batch
    targets = [target.to(device) for target in targets]
    learner.optimizer.zero_grad(set_to_none=True)
    statistics = [(buffer, buffer.clone()) for buffer in model.buffers()]
    totals: dict[str, Tensor] = {}
    parts = batch_parts(run.args, len(images))
    for part in parts:
        last = part is parts[-1]
        with distributed.sharing(run.parallel, last), autocast(device, run.args.precision):
            losses = run.parallel(images[part], targets[part])
            loss = torch.stack(list(losses.values())).sum() / len(parts)
            torch.autograd.backward(loss)
        for name, value in losses.items():
            totals[name] = totals.get(name, 0) + value.detach() / len(parts)
    values = distributed.mean(torch.stack(list(totals.values()))).tolist()
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    norm = get_total_norm(gradients)
    finite = math.isfinite(sum(values)) and bool(norm.isfinite())
    if finite:
        if limit := learner.config.train.gradient_clip:
            clip_grads_with_norm_(model.parameters(), limit, norm)
        learner.optimizer.step()
        if learner.average is not None:
            learner.average.update_parameters(model)
    else:  # batch norm has seen what the weights shall not
        for buffer, before in statistics:
            buffer.copy_(before)
    return dict(zip(totals, values, strict=True)), finite


def take_note(
    progress: Progress, losses: dict[str, float], finite: bool, learning_rate: float
) -> None:
    """Count the steps that were not finite.

    Raises:
        FloatingPointError: too many of them in a row.
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


def validation_due(run: Run) -> bool:
    """Tell whether this iteration completed a period after which to validate."""
    epochs, train = run.args.validation_epoch, run.learner.config.train
    if epochs is not None and epochs < 1:
        return False
    period = len(run.train_data) * (epochs or VALIDATION_EPOCHS)
    if epochs is None:
        period = max(period, train.max_iterations * train.batch_size // MAX_VALIDATIONS)
    seen = run.learner.progress.iteration * train.batch_size
    return bool(seen // period > (seen - train.batch_size) // period)


def validate(run: Run, val_data: Dataset, stop: Event) -> None:
    """Evaluate on validation images, print the table, keep the best weights."""
    predictor = Predictor(run.learner.best_model, run.args.precision)

    def predict(image: NDArray[np.uint8]) -> Detections:
        if stop.is_set():
            raise Stopped
        return predictor(image, score_threshold=0.0, top_k=None)

    start = time.perf_counter()
    try:
        results = evaluate(predict, val_data, order=validation_images(run, val_data)).results
    finally:
        run.learner.model.train()
    merged = merge_results(distributed.gather(results))
    evaluator = CocoEvaluator(val_data.coco, val_data.categories.category_ids, merged)
    metrics = evaluator.summarize()
    run.evaluator = evaluator
    if distributed.rank() == 0:
        print(format_table(metrics), flush=True)
    progress = run.learner.progress
    progress.validated = progress.iteration
    run.log.validation(
        metrics.box.overlaps,
        metrics.mask.overlaps,
        epoch=run.saver.epoch,
        iteration=progress.iteration,
        elapsed=time.perf_counter() - start,
    )
    if run.files is not None:
        run.files.validation(metrics, run.saver.epoch, progress.iteration)
        show_validation(run, val_data, predict)
    run.saver.save_best(metrics.mask.overlaps["all"])


def show_validation(
    run: Run, val_data: Dataset, predict: Callable[[NDArray[np.uint8]], Detections]
) -> None:
    """Draw a few validation images; without room for the picture, training goes on."""
    run.learner.best_model.eval()
    try:
        write_validation_pictures(run.folder, val_data, predict)
    except OSError as error:
        logger.warning("no validation pictures: %s", error)
    finally:
        run.learner.model.train()


def validation_images(run: Run, val_data: Dataset) -> list[int]:
    """Return the images that this process evaluates."""
    chosen = eval_order(val_data.image_ids)[: run.args.validation_size]
    return chosen[distributed.rank() :: distributed.world_size()]


if __name__ == "__main__":
    raise SystemExit(run(main))
