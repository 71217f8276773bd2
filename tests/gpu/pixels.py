"""All that follows the network as on the CPU: detections, losses, masks, drawing, copies."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from layers.detect import detect
from layers.masks import assemble_masks, refit, widened
from layers.matching import match_anchors
from layers.nms import cross_class_nms, cross_class_nms_padded, fast_nms, fast_nms_padded
from layers.structures import Candidates, Predictions, fetch, upload_picture
from yolact.config import LossConfig
from yolact.drawing.detections import draw_detections
from yolact.models.criterion import Criterion
from yolact.models.mask_rescorer import MaskRescorer
from yolact.results.detections import Detections
from yolact.timing import synchronize

from .made import (
    CLASSES,
    HD,
    KINDS,
    ODD,
    UHD,
    for_training,
    make_targets,
    objects,
    odd_boxes,
    of_objects,
    on,
    predictions,
    results,
    tiny_yolact,
)
from .material import needs_cuda
from .report import Report

Found = Candidates | Detections


def check_suppression(device: torch.device, report: Report) -> None:
    """Of the same boxes and scores the same are kept, in the same order."""
    for name in ODD:
        boxes, scores = odd_boxes(name)
        there = boxes.to(device), scores.to(device)
        for most in (10, 100, 1000):
            pairs = (
                (
                    fast_nms(boxes, scores, 0.5, 200, most),
                    fast_nms_padded(*there, 0.5, 200, most),
                ),
                (
                    cross_class_nms(boxes, scores, 0.5, most),
                    cross_class_nms_padded(*there, 0.5, most),
                ),
            )
            for expected, kept in pairs:
                count = int((kept[2] >= 0).sum())
                assert count == len(expected[0]), f"{name}: {count} of {len(expected[0])} kept"
                for part, other in zip(expected, kept, strict=True):
                    assert torch.equal(part, other[:count].cpu()), f"{name}: another order"


def check_detections(device: torch.device, report: Report) -> None:
    """From predictions to candidates: none, few, and more anchors than are looked at first."""
    for count, classes, scale in ((0, 3, 3.0), (30, 6, 3.0), (900, 1, 3.0), (3000, 20, 2.0)):
        raw = predictions(count, classes, scale=scale)
        for nms in KINDS:
            for most in (20, 400):
                every = detect(raw, max_detections=most, nms=nms)
                found = detect(on(device, raw), max_detections=most, nms=nms)
                for expected, candidates in zip(every, found, strict=True):
                    same_candidates(expected, candidates, f"{nms}, {count} anchors")


def same_candidates(expected: Found, found: Found, what: str) -> None:
    """Compare field by field; softmax may differ in the last digits."""
    assert len(expected) == len(found), f"{what}: {len(found)} of {len(expected)}"
    for name in ("labels", "scores", "boxes", "coefficients"):
        one, other = getattr(expected, name), getattr(found, name).cpu()
        assert torch.allclose(one.float(), other.float(), rtol=1e-4, atol=1e-5), f"{what}: {name}"


def check_matching(device: torch.device, report: Report) -> None:
    """Every anchor gets the same object, also among equal ones, crowds and none."""
    anchors = for_training(torch.device("cpu"), 1, 138).anchors
    for counts in ([0], [0, 0], [1, 0, 60], [300]):
        targets = make_targets(counts, 138)
        boxes = torch.cat([target.boxes / 138 for target in targets])
        labels = torch.cat([target.labels for target in targets])
        crowds = [target.boxes[target.is_crowd] / 138 for target in targets]
        expected = match_anchors(anchors, boxes, labels, counts, crowds)
        there = [part.to(device) for part in (anchors, boxes, labels)]
        found = match_anchors(*there, counts, [crowd.to(device) for crowd in crowds])
        for name, one, other in zip(("classes", "objects"), expected, found, strict=True):
            differing = int((one != other.cpu()).sum())
            assert not differing, f"{name} of {differing} anchors differ for {counts} objects"


def check_losses(device: torch.device, report: Report) -> None:
    """Losses and gradients are those of the CPU."""
    torch.backends.cudnn.allow_tf32 = False
    for counts in ([0], [3, 0, 20]):
        totals, slopes = [], []
        for where in (torch.device("cpu"), device):
            torch.manual_seed(0)
            criterion = Criterion(
                LossConfig(masks_to_train=1_000_000), MaskRescorer(CLASSES).to(where)
            )
            raw = for_training(where, len(counts), 138)
            losses = criterion(raw, [target.to(where) for target in make_targets(counts, 138)])
            torch.stack(list(losses.values())).sum().backward()
            totals.append({name: loss.item() for name, loss in losses.items()})
            slopes.append({name: grad.cpu() for name, grad in gradients(raw).items()})
        for name, value in totals[0].items():
            assert abs(value - totals[1][name]) <= 1e-3 * abs(value) + 1e-6, f"{name}: {totals}"
        for name, slope in slopes[0].items():
            apart = (slope - slopes[1][name]).norm() / slope.norm().clamp(min=1e-12)
            assert apart <= 1e-2, f"gradient of {name}: {apart:.2g} apart"


def gradients(raw: Predictions) -> dict[str, Tensor]:
    """Return the gradients that are there, by the names of the predictions."""
    return {name: part.grad for name, part in raw._asdict().items() if part.grad is not None}


def check_masks(device: torch.device, report: Report) -> None:
    """Soft masks are the CPU's; so are full-size ones, but for rounding at the threshold."""
    raw = of_objects(60, 100)
    parts = raw.prototypes[0], raw.coefficients[0, :60], raw.anchors[:60]
    soft = assemble_masks(*parts)
    there = assemble_masks(*(part.to(device) for part in parts))
    assert torch.allclose(soft, there.cpu(), atol=1e-5), "soft masks differ"
    differing = total = 0
    large = (60, 80) if device.type == "cpu" else HD
    for count, image_hw, grid in (
        (0, HD, 138),
        (1, (1, 1), 28),
        (40, (33, 50), 28),
        (12, large, 138),
    ):
        for crop in (False, True):
            here = objects(count, image_hw, grid, crop, seed=count)
            expected, found = here.masks, here.to(device).masks.cpu()
            assert found.shape == expected.shape
            assert found.dtype == torch.bool
            union = (expected | found).sum(dim=(1, 2)).clamp(min=1)
            apart = (expected ^ found).sum(dim=(1, 2))
            assert (apart <= 0.01 * union).all(), f"IoU of {1 - (apart / union).max().item():.4f}"
            areas = here.to(device).areas.cpu()
            assert torch.equal(areas, found.sum(dim=(1, 2))), "areas differ from masks"
            assert torch.equal(here.to(device).has_pixels().cpu(), areas > 0)
            differing, total = differing + int(apart.sum()), total + int(expected.sum())
    report.number("pasted masks: pixels that differ from the CPU's", differing, f"of {total}")


def check_refit(device: torch.device, report: Report) -> None:
    """Masks and boxes fitted to each other are the CPU's, of no object and of many at once."""
    for count in (0, 1, 60):
        raw = of_objects(count, 100)
        prototypes, coefficients = raw.prototypes[0], raw.coefficients[0, :count]
        boxes = raw.anchors[:count]
        soft = assemble_masks(prototypes, coefficients, widened(boxes), padding=0)
        expected, found = refit(soft, boxes), refit(soft.to(device), boxes.to(device))
        for one, other in zip(expected, found, strict=True):
            assert torch.allclose(one, other.cpu(), atol=1e-6), f"{count} objects differ"
    assert (expected[1] != boxes).any(), "nothing was fitted"


def check_drawing(device: torch.device, report: Report) -> None:
    """Masks are tinted as on the CPU, within a level."""
    rng = np.random.default_rng(0)
    for count, image_hw in ((0, (20, 30)), (1, (20, 30)), (30, (90, 160))):
        here = objects(count, image_hw, 28, crop=bool(count % 2))
        picture = rng.integers(0, 256, (*image_hw, 3), dtype=np.uint8)
        colors = [(40 * i % 256, 255 - 7 * i, 90 * i % 256) for i in range(count)]
        for alpha in (0.45, 0.1, 1.0):
            canvas = picture.copy()
            for index in reversed(range(count)):
                here.tint(canvas, index, colors[index], alpha)
            found = here.to(device).tinted(torch.from_numpy(picture).to(device), colors, alpha)
            apart = np.abs(found.cpu().numpy().astype(int) - canvas)
            assert apart.max(initial=0) <= 1, f"{apart.max()} levels apart, alpha {alpha}"
        drawn = draw_detections(torch.from_numpy(picture).to(device), here.to(device))
        apart = np.abs(drawn.astype(int) - draw_detections(picture, here))
        assert apart.max(initial=0) <= 1, f"boxes and labels: {apart.max()} levels apart"


def check_copies(device: torch.device, report: Report) -> None:
    """Nothing is overwritten or read before its copy has ended."""
    needs_cuda(device)
    rng = np.random.default_rng(0)
    busy = torch.rand(2048, 2048, device=device)
    copies, sums = [], []
    for _ in range(20):
        picture = rng.integers(0, 256, (360, 640, 3), dtype=np.uint8)
        for _ in range(5):
            busy = (busy @ busy).tanh()  # the copy has to wait its turn
        copies.append(upload_picture(torch.from_numpy(picture).permute(2, 0, 1), device))
        sums.append(int(picture.sum(dtype=np.int64)))
        picture[:] = 0
    found = [int(copy.sum(dtype=torch.int64)) for copy in copies]
    assert found == sums, "a picture changed on its way"
    for number in range(20):
        for _ in range(5):
            busy = (busy @ busy).tanh()
        late = (busy * 0).nan_to_num() + number
        there, other = fetch(late, late[:3].int())
        assert (there == number).all(), "read before it had arrived"
        assert (other == number).all()
        assert not there.is_pinned()


def check_batches(device: torch.device, report: Report) -> None:
    """Results of a batch are those of its pictures."""
    model = tiny_yolact(device)
    raw = on(device, of_objects(20, 200, images=3))
    together = results(model, raw, (60, 80))
    for i, found in enumerate(together):
        one = Predictions(*(part[i : i + 1] for part in raw[:4]), raw.anchors)
        (alone,) = results(model, one, (60, 80))
        same_candidates(alone, found, "a batch")
        assert torch.allclose(alone.soft_masks, found.soft_masks, atol=1e-5)


def milliseconds(device: torch.device, function: Callable[[], object], runs: int = 10) -> float:
    """Return the median time of a function, after two runs that do not count."""
    times = []
    for _ in range(runs + 2):
        synchronize(device)
        start = time.perf_counter()
        function()
        synchronize(device)
        times.append(1000 * (time.perf_counter() - start))
    return float(np.median(times[2:]))


def sizes(device: torch.device) -> list[tuple[str, tuple[int, int], int]]:
    """Return what is measured: image sizes and numbers of objects; on a CPU little."""
    if device.type == "cpu":
        return [("320 x 180", (180, 320), 10)]
    pairs = (("1280 x 720", HD), ("3840 x 2160", UHD))
    return [(name, image_hw, count) for name, image_hw in pairs for count in (10, 100, 1000)]


def measure_pasting(device: torch.device, report: Report) -> None:
    """Full-size masks, up to a gigabyte of them; their areas; their colours in a picture."""
    for name, image_hw, count in sizes(device):
        here = objects(count, image_hw).to(device)
        picture = torch.zeros((*image_hw, 3), dtype=torch.uint8, device=device)
        colors = [(9, 99, 199)] * count
        timed: dict[str, Callable[[], object]] = {"areas": lambda here=here: here.areas}
        if count * image_hw[0] * image_hw[1] <= 2**30:
            timed["masks"] = lambda here=here: here.masks
        if count <= 100:
            timed["drawing"] = lambda here=here, picture=picture, colors=colors: here.tinted(
                picture, colors, 0.45
            )
        for what, function in timed.items():
            report.number(
                f"{what} of {count} objects at {name}", milliseconds(device, function), "ms"
            )


def measure_results(device: torch.device, report: Report) -> None:
    """From the network's outputs to compact detections on the CPU."""
    model = tiny_yolact(device)
    for count in (10, 100):
        raw = on(device, of_objects(count))
        for nms in KINDS:
            model.detection = replace(model.detection, nms=nms)
            took = milliseconds(device, lambda raw=raw: results(model, raw, HD))
            report.number(f"results of {count} objects, {nms} NMS", took, "ms")


def measure_criterion(device: torch.device, report: Report) -> None:
    """Losses and their gradients for eight images of 550 pixels, a dozen objects in each."""
    images, side = (1, 138) if device.type == "cpu" else (8, 550)
    raw = for_training(device, images, side)
    targets = [target.to(device) for target in make_targets([12] * images, side)]
    criterion = Criterion(LossConfig())

    def step() -> None:
        torch.stack(list(criterion(raw, targets).values())).sum().backward()

    report.number(f"losses of {images} images of {side} px", milliseconds(device, step), "ms")


def measure_copies(device: torch.device, report: Report) -> None:
    """Pictures to the device and results back, through pinned memory and without."""
    for name, image_hw, count in sizes(device):
        if count != 10:
            continue
        picture = torch.zeros((*image_hw, 3), dtype=torch.uint8)
        pinned = milliseconds(device, lambda p=picture: upload_picture(p, device))
        plain = milliseconds(device, lambda p=picture: p.to(device))
        report.number(f"picture of {name} to the device, pinned", pinned, "ms")
        report.number(f"picture of {name} to the device, as it is", plain, "ms")
    for count in (10, 100):
        soft = torch.zeros(count, 138, 138, device=device)
        report.number(
            f"{count} masks back, pinned", milliseconds(device, lambda s=soft: fetch(s)), "ms"
        )
        report.number(f"{count} masks back, as they are", milliseconds(device, soft.cpu), "ms")
