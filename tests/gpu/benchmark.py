"""How fast models run and learn here, by what is chosen where nothing is asked for."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import redirect_stdout
from io import StringIO
from itertools import repeat
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

import eval
import train
from data.images import Image, to_tensor
from data.loader import Batch
from data.shapes.clip import shape_clip
from yolact import Predictor
from yolact.cli.train_flags import parse_arguments
from yolact.engines.choose import choose_engine, matmul_speeds
from yolact.engines.prepare import prepare, warm_up
from yolact.evaluation.speed import describe_machine, network_gflop, peak_memory_mb
from yolact.models.segmenter import AnySegmenter
from yolact.results.thresholds import Thresholds
from yolact.timing import summarize
from yolact.training.setup import Session, set_up

from .clock import rate, report_latency, timed
from .material import folder, needs, untrained
from .report import NotHere, Report

BATCHES = (8, 32)
SMALL = "model.image_size=128"  # for a CPU


def measure_products(device: torch.device, report: Report) -> None:
    """Time large matrix products, the ceiling of everything."""
    report.note(describe_machine(device))
    for precision, speed in matmul_speeds(device).items():
        report.number(f"matrix products, {precision}", speed, "TFLOP/s")
    report.number("memory of this process at its peak", peak_memory_mb(device) or 0, "MB")


def measure_stages(device: torch.device, report: Report) -> None:
    """Time every stage of the bundled model, by the command that users have for it."""
    command = ["--benchmark", "--trained_model=yolact_resnet18_shapes", "--max_images=12"]
    with redirect_stdout(StringIO()) as printed:
        eval.main([*command, f"--device={device}"])
    report.note(f"yolact benchmark\n{printed.getvalue().strip()}")


def measure_published(device: torch.device, report: Report) -> None:
    """Time the models of the papers."""
    every = ("yolact_base", "yolact_resnet50", "yolact_plus_base", "yolact_plus_resnet50")
    for preset in every if device.type != "cpu" else every[1:2]:
        time_model(preset, device, report)


def measure_mask_rcnn(device: torch.device, report: Report) -> None:
    """Time the two-stage baseline."""
    if device.type == "cpu":
        raise NotHere("too slow on a CPU")
    time_model("maskrcnn_resnet50_fpn", device, report)


def measure_light(device: torch.device, report: Report) -> None:
    """Time the light models."""
    for preset in ("yolact_resnet18", "yolact_mobilenetv3"):
        time_model(preset, device, report)


def measure_lite(device: torch.device, report: Report) -> None:
    """Time the light models on backbones of timm."""
    needs("timm")
    for preset in ("yolact_lite0", "yolact_lite2")[: 1 if device.type == "cpu" else None]:
        time_model(preset, device, report)


def measure_training(device: torch.device, report: Report) -> None:
    """Count the images a second that `yolact_resnet50` learns from at 550 px."""
    for number, (batch, precision) in enumerate(((8, "auto"), (8, "bfloat16"), (32, "bfloat16"))):
        with TemporaryDirectory() as kept:
            session = training_session(device, Path(kept), batch, precision)
            time_training(session, report, f"training, batch {batch}, {precision}", number == 0)
            session.close()
        if device.type == "cpu":
            return


def time_model(preset: str, device: torch.device, report: Report) -> None:
    """Time a model: the network on one image, an image through the predictor, the best batch."""
    small = device.type == "cpu"
    model = untrained(preset, device, *([SMALL] if small else []))
    engine = choose_engine(device, fixed_shapes=model.fixed_shapes)
    run = prepare(model.network, engine, model.image_size)
    predictor = Predictor(model, network=run)
    warm_up(run)
    name = f"{preset}, {engine.name}, {engine.precision}"
    image = next(shape_clip(1, (720, 1280), 0))
    with torch.no_grad():
        latency = report_latency(report, f"{name}: network", device, run, inputs_of(model, image))
        every = Thresholds()  # a hundred objects
        counted = len(predictor.segment([image], every)[0])
        report.note(f"{preset}: {counted} objects in the image that is timed")
        report_latency(
            report, f"{name}: 720p to masks", device, lambda _: whole(predictor, image, every), None
        )
        if not small:
            report_throughput(report, name, device, run, model, image)
    if not model.fixed_shapes:
        return
    gflop = network_gflop(model, image)
    share = gflop / latency / matmul_speeds(device)[engine.precision]  # GFLOP / ms is TFLOP/s
    report.number(f"{name}: of the matrix products' speed", 100 * share, "%")


def whole(predictor: Predictor, image: Image, thresholds: Thresholds) -> object:
    """Go all the way from an image to full-size masks."""
    (found,) = predictor.segment([image], thresholds)
    return found.masks


def inputs_of(model: AnySegmenter, image: Image, batch: int = 1) -> object:
    """Return what a network takes."""
    return model.preprocess([to_tensor(image)] * batch)


def report_throughput(
    report: Report,
    name: str,
    device: torch.device,
    run: Callable,
    model: AnySegmenter,
    image: Image,
) -> None:
    """Report the images a second of the best batch."""
    best = 0.0, 0
    for batch in BATCHES:
        try:
            seconds = timed(device, run, inputs_of(model, image, batch), 0.25)
        except torch.OutOfMemoryError:
            break
        rate = batch / (summarize(seconds).median / 1000)
        best = max(best, (rate, batch))
    report.number(f"{name}: network, batch {best[1]}", best[0], "images/s")


def training_session(device: torch.device, kept: Path, batch: int, precision: str) -> Session:
    """Set up a run on real images where they are, else on generated ones."""
    small = device.type == "cpu"
    flags = [
        "--config=yolact_resnet18" if small else "--config=yolact_resnet50",
        f"--dataset={training_images()}",
        f"--device={device}",
        f"--precision={precision}",
        f"--batch_size={batch}",
        "--no_autoscale",
        f"--num_workers={0 if small else max(min((os.cpu_count() or 2) - 1, 16), 1)}",
        f"--save_folder={kept}",
        "--no_log",
        "--no_report",
        "--validation_size=-1",
        "--set=train.pretrained_backbone=False",
        *([f"--set={SMALL}"] if small else []),
    ]
    return set_up(*parse_arguments(None, flags))


def training_images() -> str:
    """Return the name of the dataset to train on."""
    try:
        needs("pycocotools")
        return str(folder("YOLACT_DATA", "data") / "coco_small")
    except NotHere:
        return "shapes"


def time_training(session: Session, report: Report, name: str, loader_too: bool) -> None:
    """Report images a second: of the loader, of steps on one batch, and of both together."""
    size = session.learner.config.train.batch_size
    device, batches = session.learner.model.device, iter(session.loader())
    batch, ahead = next(batches), 2 * session.options.num_workers  # batches that are ready
    seconds = 4.0 if device.type != "cpu" else 0.5
    if loader_too:
        images = "generated" if session.learner.config.dataset == "shapes" else "real"
        what = f"loader of {images} images, {session.options.num_workers} processes"
        report.number(
            what, rate(batches, lambda _: None, seconds, device, ahead) * size, "images/s"
        )

    def step(each: Batch) -> object:
        return train.train_step(session, each)

    for part, source in (("steps alone", repeat(batch)), ("with the loader", batches)):
        first = ahead if source is batches else 0
        found = rate(source, step, seconds, device, first) * size
        report.number(f"{name}, {part}", found, "images/s")
    if session.parallel is not session.learner.model:
        session.parallel = session.learner.model
        found = rate(repeat(batch), step, seconds, device) * size
        report.number(f"{name}, steps alone, not recorded", found, "images/s")
