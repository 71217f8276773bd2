"""How often the processor waits for the card, and the memory that it takes."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from support.tiny import train_flags

import train
from yolact.cli.train_flags import parse_arguments
from yolact.config import LossConfig
from yolact.models.criterion import Criterion
from yolact.models.mask_rescorer import MaskRescorer
from yolact.training.setup import set_up

from .made import (
    CLASSES,
    HD,
    SHOWN,
    UHD,
    for_training,
    make_targets,
    objects,
    of_objects,
    on,
    results,
    tiny_yolact,
)
from .material import needs_cuda
from .report import Report

MOST_MB = 500  # beside what is given and returned, for 1000 objects in an image of 3840 x 2160
# How often the processor waits, however many images and objects there are.
WAITS = {"results": 2, "results of many anchors": 3, "losses": 3, "re-scored losses": 4, "step": 3}


@contextmanager
def counted_waits() -> Iterator[list[str]]:
    """Collect what makes the processor wait for the card."""
    waits: list[str] = []
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            yield waits
    finally:
        torch.cuda.set_sync_debug_mode("default")
    waits += [
        f"{w.filename}:{w.lineno}" for w in told if "called a synchronizing" in str(w.message)
    ]


def extra_mb(device: torch.device, function: Callable[[], object]) -> tuple[float, object]:
    """Return the most memory that a function takes beside what was there, and its result."""
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    result = function()
    torch.cuda.synchronize(device)
    return (torch.cuda.max_memory_allocated(device) - before) / 2**20, result


def check_waits_for_results(device: torch.device, report: Report) -> None:
    """From predictions to detections on the CPU the card is waited for a fixed number of times."""
    needs_cuda(device)
    model = tiny_yolact(device)
    model.detection = replace(model.detection, max_detections=1000)
    for images in (1, 4):
        for count in (0, 10, 1000):
            raw = on(device, of_objects(count, images=images))
            results(model, raw, UHD)
            with counted_waits() as waits:
                (found, *_) = results(model, raw, UHD)
            assert len(found) == count, f"{len(found)} of {count} objects"
            many = count > 500
            most = WAITS["results of many anchors" if many else "results"]
            report.number(f"waits for {count} objects in {images} images", len(waits), "")
            assert len(waits) <= most, f"{len(waits)} waits, at most {most}: {sorted(set(waits))}"


def check_waits_for_masks(device: torch.device, report: Report) -> None:
    """Pasting, areas and drawing on the card wait for nothing."""
    needs_cuda(device)
    picture = torch.zeros((*HD, 3), dtype=torch.uint8, device=device)
    for count in (0, 10, 200):
        here = objects(count, HD).to(device)
        with counted_waits() as waits:
            assert here.masks.shape == (count, *HD)
            here.areas, here.has_pixels()
            here.tinted(picture, [(255, 0, 0)] * count, 0.5)
        assert not waits, f"{len(waits)} waits: {sorted(set(waits))}"


def check_waits_in_training(device: torch.device, report: Report) -> None:
    """So do the losses, however many objects there are, and a whole step."""
    needs_cuda(device)
    for rescoring in (False, True):
        rescorer = MaskRescorer(CLASSES).to(device) if rescoring else None
        most = WAITS["re-scored losses" if rescoring else "losses"]
        for counts in ([0], [5], [5] * 8, [100] * 4):
            raw = for_training(device, len(counts), 138)
            targets = [target.to(device) for target in make_targets(counts, 138)]
            with counted_waits() as waits:
                losses = Criterion(LossConfig(), rescorer)(raw, targets)
                torch.stack(list(losses.values())).sum().backward()
            assert len(waits) <= most, f"{len(waits)} waits, at most {most}: {sorted(set(waits))}"
    flags = ("--no_log", "--set=train.ema_decay=0.9", "--precision=float32")
    with TemporaryDirectory() as folder:
        given = train_flags(Path("shapes"), Path(folder), 3, f"--device={device}", *flags)
        session = set_up(*parse_arguments(None, given))
        for number, batch in enumerate(islice(session.loader(), 3)):
            with counted_waits() as waits:
                train.train_step(session, batch)
            report.number(f"waits in step {number} of training", len(waits), "")
        session.close()
    assert len(waits) <= WAITS["step"], f"{len(waits)} waits: {sorted(set(waits))}"


def check_memory(device: torch.device, report: Report) -> None:
    """1000 objects at 3840 x 2160 take less than 500 MB beside what is given and returned."""
    needs_cuda(device)
    model, colors = tiny_yolact(device), [(9, 99, 199)] * 1000
    model.detection = replace(model.detection, max_detections=1000)
    raw = on(device, of_objects(1000))
    used, found = extra_mb(device, lambda: model.postprocess(raw, [UHD], SHOWN)[0])
    assert len(found) == 1000
    picture = torch.zeros((*UHD, 3), dtype=torch.uint8, device=device)
    told = {"detection": used, "areas": extra_mb(device, lambda: found.areas)[0]}
    told["drawing"] = extra_mb(device, lambda: found.tinted(picture, colors, 0.5))[0]
    if torch.cuda.mem_get_info(device)[0] > 12 * 2**30:  # they are 8.3 GB
        used, masks = extra_mb(device, lambda: found.masks)
        told["full-size masks"] = used - masks.nbytes / 2**20
    for name, used in told.items():
        report.number(f"1000 objects at 3840 x 2160, {name}", used, "MB")
    assert max(told.values()) < MOST_MB, told
