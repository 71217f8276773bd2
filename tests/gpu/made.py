"""Predictions, objects and targets without a network, for the checks of what follows one."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from layers.anchors import AnchorGenerator
from layers.detect import Nms
from layers.structures import Predictions, Target, fetch_groups
from yolact import build_model, get_config
from yolact.models.yolact import Yolact
from yolact.results.detections import Detections
from yolact.results.thresholds import Thresholds

HD, UHD = (720, 1280), (2160, 3840)
CLASSES, PROTOTYPES = 80, 32
SHOWN = Thresholds(0.2)  # of each object one class
KINDS: tuple[Nms, ...] = ("fast", "cross_class", "greedy")


def predictions(
    count: int, classes: int, seed: int = 0, images: int = 2, scale: float = 3.0
) -> Predictions:
    """Return random predictions of `count` anchors, many of which overlap."""
    rng = torch.Generator().manual_seed(seed)
    anchors = torch.rand(count, 4, generator=rng) * torch.tensor([1, 1, 0.2, 0.2]) + 0.02
    return Predictions(
        class_logits=scale * torch.randn(images, count, classes + 1, generator=rng),
        box_deltas=torch.randn(images, count, 4, generator=rng),
        coefficients=torch.randn(images, count, PROTOTYPES, generator=rng).tanh(),
        prototypes=torch.rand(images, PROTOTYPES, 64, 64, generator=rng),  # fits a rescorer
        anchors=anchors,
    )


def of_objects(count: int, anchors: int = 19_248, images: int = 1) -> Predictions:
    """Return predictions of `count` objects that do not overlap, among anchors of background."""
    side = 40
    cells = torch.arange(count)
    found = torch.zeros(anchors, 4) + 0.01
    found[:count, 0] = (cells % side + 0.5) / side
    found[:count, 1] = (cells // side + 0.5) / side
    logits = torch.zeros(images, anchors, CLASSES + 1)
    logits[..., 0] = 10
    logits[:, cells, 0], logits[:, cells, 1 + cells % CLASSES] = 0, 4 + cells / count
    rng = torch.Generator().manual_seed(count)
    coefficients = torch.randn(images, anchors, PROTOTYPES, generator=rng).tanh()
    prototypes = torch.rand(images, PROTOTYPES, 138, 138, generator=rng)
    return Predictions(logits, torch.zeros(images, anchors, 4), coefficients, prototypes, found)


def on(device: torch.device, raw: Predictions) -> Predictions:
    """Return predictions on a device."""
    return Predictions(*(None if part is None else part.to(device) for part in raw))


def objects(
    count: int, image_hw: tuple[int, int], grid: int = 138, crop: bool = False, seed: int = 0
) -> Detections:
    """Return blobs of several cells, each about a box, which reaches out of the image at times."""
    height, width = image_hw
    rng = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 1, 9, 9, generator=rng)
    soft = torch.nn.functional.interpolate(coarse, (grid, grid), mode="bilinear")[:, 0]
    middle = torch.rand(count, 2, generator=rng) * torch.tensor([width, height])
    half = (0.02 + 0.2 * torch.rand(count, 2, generator=rng)) * torch.tensor([width, height])
    boxes = torch.cat((middle - half, middle + half), dim=1)
    frames = torch.tensor([0.0, 0.0, width, height]).repeat(count, 1)
    frames[1::3] = boxes[1::3]  # as those of Mask R-CNN, and of tracks
    scores = torch.linspace(1, 0.5, count)
    labels = torch.arange(count) % CLASSES
    return Detections(boxes, scores, labels, soft, frames, scores, image_hw, crop_to_boxes=crop)


def odd_boxes(name: str) -> tuple[Tensor, Tensor]:
    """Return boxes and scores that are hard to suppress alike."""
    rng = torch.Generator().manual_seed(1)
    count = {"nothing": 0, "one": 1}.get(name, 1000)
    low = torch.rand(count, 2, generator=rng)
    boxes = torch.cat((low, low + 0.1 * torch.rand(count, 2, generator=rng)), dim=1)
    scores = torch.rand(count, 1 if name == "one class" else 20, generator=rng)
    if name == "ties":
        boxes, scores = (boxes * 16).round() / 16, (scores * 8).round() / 8
    if name == "one box":
        boxes[:] = boxes[:1]
    if name == "degenerate":
        boxes[::2, 2:] = boxes[::2, :2]
        boxes[::3] = boxes[::3].flip(1)
        boxes[::5] *= 1e4
    return boxes, scores


ODD = ("nothing", "one", "one class", "ties", "one box", "degenerate", "random")


def make_targets(counts: Sequence[int], side: int) -> list[Target]:
    """Return rectangles, some of them alike, crowds, or without a mask."""
    rng = torch.Generator().manual_seed(sum(counts))
    found = []
    for count in counts:
        low = torch.rand(count, 2, generator=rng) * 0.7
        boxes = torch.cat((low, low + 0.05 + 0.2 * torch.rand(count, 2, generator=rng)), dim=1)
        boxes = boxes * side
        boxes[3::4] = boxes[2::4][: len(boxes[3::4])]
        x1, y1, x2, y2 = boxes[:, :, None].unbind(1)
        at = torch.arange(side)
        masks = ((at >= y1) & (at < y2))[:, :, None] & ((at >= x1) & (at < x2))[:, None]
        number = torch.arange(count)
        has_mask = number % 7 != 5
        masks &= has_mask[:, None, None]
        found.append(Target(boxes, number % CLASSES, masks, number % 6 == 4, has_mask))
    return found


def for_training(device: torch.device, images: int, side: int) -> Predictions:
    """Return random predictions in training mode, with gradients, for S x S images."""
    grids = [-(-side // stride) for stride in (8, 16, 32)]
    levels = [torch.zeros(1, 1, grid, grid) for grid in grids]
    anchors = AnchorGenerator([[24], [48], [96]], [1, 0.5, 2], side, True)(levels)
    rng = torch.Generator().manual_seed(0)

    def random(*shape: int) -> Tensor:
        return torch.randn(images, *shape, generator=rng).to(device).requires_grad_()

    return Predictions(
        class_logits=random(len(anchors), CLASSES + 1),
        box_deltas=random(len(anchors), 4),
        coefficients=random(len(anchors), PROTOTYPES),
        prototypes=random(PROTOTYPES, 4 * grids[0], 4 * grids[0]),
        anchors=anchors.to(device),
        semantic_logits=random(CLASSES, grids[0], grids[0]),
    )


def tiny_yolact(device: torch.device) -> Yolact:
    """Return a model whose network is not used."""
    model = build_model(get_config("yolact_resnet18_shapes"))
    assert isinstance(model, Yolact)
    return model.to(device).eval()


def results(model: Yolact, raw: Predictions, image_hw: tuple[int, int]) -> list[Detections]:
    """Do what `Predictor` does after the network, up to detections on the CPU."""
    sizes = [image_hw] * len(raw.class_logits)
    with torch.no_grad():
        return fetch_groups(model.postprocess(raw, sizes, SHOWN))
