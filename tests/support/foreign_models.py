"""Other projects' YOLACTs, computed by the letter of their papers and configurations.

Nothing here uses the package. A layer makes its seeded weights when it first runs, so that one pass
of a network makes its state dict as that project names it.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

MEAN, STD = np.array((123.68, 116.78, 103.94)), np.array((58.40, 57.12, 57.38))  # RGB
RESNET50 = (3, 4, 6, 3)
# Of MobileNetV2: expansion, channels, blocks, stride.
MOBILENET_V2 = (
    (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2),
    (6, 320, 1, 1),
)  # fmt: skip
WIDTH, PROTOTYPES, CLASSES = 8, 6, 3
GAIN, SEED = 0.6, 3  # of batch norm and of all: scores and masks of all kinds


@dataclass
class Weights:
    """Layers by name, and the state dict that they make."""

    state: dict[str, Tensor] = field(default_factory=dict)

    def make(self, name: str, shape: tuple[int, ...], std: float, mean: float = 0.0) -> Tensor:
        if name not in self.state:
            rng = np.random.default_rng([SEED, zlib.crc32(name.encode())])
            values = mean + std * rng.standard_normal(shape, dtype=np.float32)
            self.state[name] = torch.from_numpy(values.astype(np.float32))
        return self.state[name]

    def conv(
        self, x: Tensor, name: str, out: int, kernel: int = 1, stride: int = 1, gain: float = 1.4
    ) -> Tensor:
        std = gain / math.sqrt(x.shape[1] * kernel**2)
        weight = self.make(f"{name}.weight", (out, x.shape[1], kernel, kernel), std)
        return F.conv2d(x, weight, self.make(f"{name}.bias", (out,), 0.1), stride, kernel // 2)

    def conv_norm(
        self, x: Tensor, names: tuple[str, str], out: int, kernel=1, stride=1, groups=1
    ) -> Tensor:
        width = x.shape[1] // groups
        std = 1.4 / math.sqrt(width * kernel**2)
        weight = self.make(f"{names[0]}.weight", (out, width, kernel, kernel), std)
        x = F.conv2d(x, weight, None, stride, kernel // 2, groups=groups)
        self.state[f"{names[1]}.num_batches_tracked"] = torch.tensor(7)
        return F.batch_norm(
            x,
            self.make(f"{names[1]}.running_mean", (out,), 0.1),
            self.make(f"{names[1]}.running_var", (out,), 0.05, 1.0).abs(),
            self.make(f"{names[1]}.weight", (out,), 0.1, GAIN),
            self.make(f"{names[1]}.bias", (out,), 0.1),
        )


def light(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same names and shapes, but hardly any numbers."""
    return {name: tensor.new_zeros(()).expand(tensor.shape) for name, tensor in state.items()}


def resnet50(w: Weights, x: Tensor, layers: Sequence[str]) -> list[Tensor]:
    """C3, C4, C5; `layers` are the names of the four stages."""
    x = w.conv_norm(x, ("backbone.conv1", "backbone.bn1"), 64, 7, 2).relu()
    x, outs = F.max_pool2d(x, 3, 2, 1), []
    for stage, (layer, blocks) in enumerate(zip(layers, RESNET50, strict=True)):
        width = 64 * 2**stage
        for i in range(blocks):
            name, stride = f"{layer}.{i}.", 2 if stage and not i else 1
            y = w.conv_norm(x, (f"{name}conv1", f"{name}bn1"), width).relu()
            y = w.conv_norm(y, (f"{name}conv2", f"{name}bn2"), width, 3, stride).relu()
            y = w.conv_norm(y, (f"{name}conv3", f"{name}bn3"), 4 * width)
            if not i:
                names = (f"{name}downsample.0", f"{name}downsample.1")
                x = w.conv_norm(x, names, 4 * width, 1, stride)
            x = (x + y).relu()
        outs.append(x)
    return outs[1:]


def mobilenet_v2(w: Weights, x: Tensor) -> list[Tensor]:
    """The outputs of YolactEdge's layers 3, 4 and 6."""
    name = "backbone.layers."
    x, outs = F.relu6(w.conv_norm(x, (f"{name}0.0", f"{name}0.1"), 32, 3, 2)), []
    for layer, (expansion, out, blocks, stride) in enumerate(MOBILENET_V2, 1):
        for i in range(blocks):
            part, hidden, y = f"{name}{layer}.{i}.conv.", expansion * x.shape[1], x
            if expansion > 1:
                y = F.relu6(w.conv_norm(y, (f"{part}0.0", f"{part}0.1"), hidden))
            j, step = int(expansion > 1), 1 if i else stride
            names = (f"{part}{j}.0", f"{part}{j}.1")
            y = F.relu6(w.conv_norm(y, names, hidden, 3, step, hidden))
            y = w.conv_norm(y, (f"{part}{j + 1}", f"{part}{j + 2}"), out)
            x = x + y if step == 1 and x.shape[1] == out else y
        outs.append(x)
    w.conv_norm(x, (f"{name}8.0", f"{name}8.1"), 1280)
    return [outs[i - 1] for i in (3, 4, 6)]


def bilinear(x: Tensor, hw: Sequence[int], align_corners: bool = False) -> Tensor:
    return F.interpolate(x, tuple(hw), mode="bilinear", align_corners=align_corners)


def resized(image: np.ndarray, side: int) -> Tensor:
    """(H, W, 3) RGB -> (1, 3, S, S), normalised; without the rounding to whole grey values."""
    x = (cv2.resize(image.astype(np.float32), (side, side)) - MEAN) / STD
    return torch.from_numpy(x.astype(np.float32)).permute(2, 0, 1)[None]


@dataclass
class Found:
    """Everything that a network says about one input of S x S.

    Attributes:
        anchors: (P, 4) xyxy in pixels of the input.
        boxes: (P, 4) likewise.
        scores: (P, C), without background.
        coefficients: (P, K).
        prototypes: (K, h, w).
    """

    anchors: Tensor
    boxes: Tensor
    scores: Tensor
    coefficients: Tensor
    prototypes: Tensor

    def mask(self, index: int, side: int, hw: tuple[int, int]) -> Tensor:
        """One object's mask, (H, W) bool, of what was resized to the input of a side."""
        height, width = self.prototypes.shape[1:]
        soft = (self.coefficients[index] @ self.prototypes.flatten(1)).sigmoid()
        soft = soft.view(height, width)
        x1, y1, x2, y2 = self.boxes[index] / side
        columns, rows = torch.arange(width), torch.arange(height)[:, None]
        inside = (columns >= x1 * width - 1) & (columns < x2 * width + 1)
        inside = inside & (rows >= y1 * height - 1) & (rows < y2 * height + 1)
        return bilinear((soft * inside)[None, None], hw)[0, 0] > 0.5


def decoded(anchors: Tensor, deltas: Tensor) -> Tensor:
    """SSD's offsets of (P, 4) xyxy anchors, with standard deviations .1 and .2."""
    centre, size = (anchors[:, :2] + anchors[:, 2:]) / 2, anchors[:, 2:] - anchors[:, :2]
    centre = centre + 0.1 * deltas[:, :2] * size
    size = size * (0.2 * deltas[:, 2:]).exp()
    return torch.cat((centre - size / 2, centre + size / 2), 1)


def laid_out(
    levels: Sequence[Tensor], sizes: Sequence[Sequence[tuple[float, float]]], side: int
) -> Tensor:
    """Anchors of these widths and heights in each cell, row by row."""
    anchors = []
    for level, shapes in zip(levels, sizes, strict=True):
        rows, columns = level.shape[2:]
        for i in range(rows):
            for j in range(columns):
                x, y = (j + 0.5) * side / columns, (i + 0.5) * side / rows
                anchors += [(x - a / 2, y - b / 2, x + a / 2, y + b / 2) for a, b in shapes]
    return torch.tensor(anchors)


def head(w: Weights, levels: Sequence[Tensor], names: Sequence[str]) -> tuple[Tensor, ...]:
    """Class logits (P, C + 1), box deltas (P, 4) and coefficients (P, K) of all levels."""
    rows = []
    for level in levels:
        y = w.conv(level, names[0], WIDTH, 3).relu()
        outputs = (
            (w.conv(y, names[1], 3 * (CLASSES + 1), 3, gain=2.5), CLASSES + 1),
            (w.conv(y, names[2], 3 * 4, 3), 4),
            (w.conv(y, names[3], 3 * PROTOTYPES, 3).tanh(), PROTOTYPES),
        )
        rows.append([x[0].permute(1, 2, 0).reshape(-1, numbers) for x, numbers in outputs])
    return tuple(torch.cat(parts) for parts in zip(*rows, strict=True))


def protonet(w: Weights, x: Tensor, names: Sequence[str], align_corners: bool = False) -> Tensor:
    """(K, 2h, 2w)."""
    for name in names[:3]:
        x = w.conv(x, name, WIDTH, 3).relu()
    x = bilinear(x, [2 * n for n in x.shape[2:]], align_corners)
    return w.conv(w.conv(x, names[3], WIDTH, 3).relu(), names[4], PROTOTYPES).relu()[0]


class MmDetection:
    """configs/yolact/yolact_r50 of mmdetection 2: `neck`, `bbox_head`, `mask_head`, `segm_head`."""

    side = 138

    def __init__(self) -> None:
        self.weights = Weights()

    def prepare(self, image: np.ndarray) -> Tensor:
        return resized(image, self.side)

    def __call__(self, x: Tensor) -> Found:
        w = self.weights
        features = resnet50(w, x, [f"backbone.layer{i}" for i in (1, 2, 3, 4)])
        merged = [
            w.conv(c, f"neck.lateral_convs.{i}.conv", WIDTH, gain=0.3)
            for i, c in enumerate(features)
        ]
        for i in (2, 1):
            merged[i - 1] = merged[i - 1] + bilinear(merged[i], merged[i - 1].shape[2:])
        levels = [w.conv(p, f"neck.fpn_convs.{i}.conv", WIDTH, 3) for i, p in enumerate(merged)]
        levels.append(
            w.conv(features[2], "neck.fpn_convs.3.conv", WIDTH, 3, 2, gain=0.3)
        )  # "on_input"
        levels.append(w.conv(levels[3], "neck.fpn_convs.4.conv", WIDTH, 3, 2))
        w.conv(levels[0], "segm_head.segm_conv", CLASSES)
        layers = ("head_convs.0.conv", "conv_cls", "conv_reg", "conv_coeff")
        logits, deltas, coefficients = head(w, levels, [f"bbox_head.{name}" for name in layers])
        ratios = [math.sqrt(ratio) for ratio in (0.5, 1.0, 2.0)]  # height / width
        sizes = [[(3 * base / r, 3 * base * r) for r in ratios] for base in (8, 16, 32, 64, 128)]
        anchors = laid_out(levels, sizes, self.side)
        scores = logits.softmax(1)[:, :CLASSES]  # background comes last
        prototypes = protonet(w, levels[0], [f"mask_head.protonet.{i}" for i in (0, 2, 4, 8, 10)])
        return Found(anchors, decoded(anchors, deltas), scores, coefficients, prototypes)


class YolactEdge:
    """yolact_edge_mobilenetv2: the names of 2019, but for a pyramid in two phases."""

    side = 138

    def __init__(self) -> None:
        self.weights = Weights()

    def prepare(self, image: np.ndarray) -> Tensor:
        return resized(image, self.side)

    def __call__(self, x: Tensor) -> Found:
        w, merged = self.weights, []
        for i, feature in enumerate(reversed(mobilenet_v2(w, x))):  # stored from C5 to C3
            lateral = w.conv(feature, f"fpn_phase_1.lat_layers.{i}", WIDTH)
            merged.append(lateral + bilinear(merged[-1], lateral.shape[2:]) if merged else lateral)
        name = "fpn_phase_2.pred_layers"
        levels = [w.conv(p, f"{name}.{i}", WIDTH, 3).relu() for i, p in enumerate(merged)][::-1]
        for i in (0, 1):
            name = f"fpn_phase_2.downsample_layers.{i}"
            levels.append(w.conv(levels[-1], name, WIDTH, 3, 2))
        w.conv(levels[0], "semantic_seg_conv", CLASSES)
        layers = ("upfeature.0", "conf_layer", "bbox_layer", "mask_layer")
        names = [f"prediction_layers.0.{name}" for name in layers]
        logits, deltas, coefficients = head(w, levels, names)
        ratios = [math.sqrt(ratio) for ratio in (1, 1 / 2, 2)]
        sizes = [[(s * r, s * r) for r in ratios] for s in (24, 48, 96, 192, 384)]  # all square
        anchors = laid_out(levels, sizes, self.side)
        scores = logits.softmax(1)[:, 1:]
        prototypes = protonet(w, levels[0], [f"proto_net.{i}" for i in (0, 2, 4, 8, 10)])
        return Found(anchors, decoded(anchors, deltas), scores, coefficients, prototypes)


class YolactMinimal:
    """res50_coco of Yolact_minimal since April 2021: pads to squares, ReLU after every level."""

    side = 128

    def __init__(self) -> None:
        self.weights = Weights()

    def prepare(self, image: np.ndarray) -> Tensor:
        padded = np.empty((max(image.shape), max(image.shape), 3), np.float32)
        padded[:] = MEAN
        padded[: image.shape[0], : image.shape[1]] = image
        return resized(padded, self.side)

    def __call__(self, x: Tensor) -> Found:
        w = self.weights
        features = resnet50(w, x, [f"backbone.layers.{i}" for i in range(4)])
        merged = [w.conv(c, f"fpn.lat_layers.{i}", WIDTH) for i, c in enumerate(features)]
        for i in (2, 1):
            doubled = [2 * n for n in merged[i].shape[2:]]
            merged[i - 1] = merged[i - 1] + bilinear(merged[i], doubled)
        name = "fpn.pred_layers"
        levels = [w.conv(p, f"{name}.{i}.0", WIDTH, 3).relu() for i, p in enumerate(merged)]
        for i in (0, 1):
            levels.append(w.conv(levels[-1], f"fpn.downsample_layers.{i}.0", WIDTH, 3, 2).relu())
        w.conv(levels[0], "semantic_seg_conv", CLASSES)
        layers = ("upfeature.0", "conf_layer", "bbox_layer", "coef_layer.0")
        names = [f"prediction_layers.{name}" for name in layers]
        logits, deltas, coefficients = head(w, levels, names)
        ratios = [math.sqrt(ratio) for ratio in (1, 1 / 2, 2)]
        sizes = [[(s * r, s / r) for r in ratios] for s in (24, 48, 96, 192, 384)]
        anchors = laid_out(levels, sizes, self.side)
        scores = logits.softmax(1)[:, 1:]
        layers = ("proto1.0", "proto1.2", "proto1.4", "proto2.0", "proto2.2")
        prototypes = protonet(w, levels[0], [f"proto_net.{name}" for name in layers], True)
        return Found(anchors, decoded(anchors, deltas), scores, coefficients, prototypes)
