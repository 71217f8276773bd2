"""Golden files: seeded weights and inputs, and the numbers that the original made of them."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from layers.structures import Target

OUTPUTS = {
    "loc": "box_deltas",
    "conf": "class_logits",
    "mask": "coefficients",
    "proto": "prototypes",
    "segm": "semantic_logits",
}
"""A golden file's name of an output -> ours."""

LOSSES = {"box": "B", "confidence": "C", "mask": "M", "semantic": "S", "mask_iou": "I"}
"""Our name of a loss -> its letter there."""


class Golden:
    """One golden file; `golden["name"]` is an array of it."""

    def __init__(self, path: Path) -> None:
        self.arrays = np.load(path, allow_pickle=False)
        self.preset = path.stem

    def __getitem__(self, name: str) -> np.ndarray:
        return self.arrays[name]

    @property
    def size(self) -> int:
        return int(self["size"])

    def official_state_dict(self) -> dict[str, Tensor]:
        """Seeded weights under the official names."""
        shapes = {
            str(key): tuple(int(n) for n in str(shape).strip("()").split(",") if n.strip())
            for key, shape in zip(self["keys"], self["key_shapes"], strict=True)
        }
        return {key: _weight(key, shape) for key, shape in shapes.items()}

    def images(self) -> Tensor:
        """Two normalised images."""
        rng = np.random.Generator(np.random.PCG64(int(self["seed"])))
        return torch.from_numpy(
            rng.standard_normal((2, 3, self.size, self.size)).astype(np.float32)
        )

    def targets(self) -> list[Target]:
        """Elliptic objects; crowds come last."""
        return [
            _target(self[f"targets{i}"], int(crowds), self.size)
            for i, crowds in enumerate(self["crowds"])
        ]


def _target(rows: np.ndarray, crowds: int, side: int) -> Target:
    ys, xs = np.mgrid[0:side, 0:side] + 0.5
    masks = [
        ((xs - (x1 + x2) / 2) / ((x2 - x1) / 2)) ** 2
        + ((ys - (y1 + y2) / 2) / ((y2 - y1) / 2)) ** 2
        <= 1
        for x1, y1, x2, y2 in rows[:, :4].astype(np.float64) * side
    ]
    return Target(
        boxes=torch.from_numpy(rows[:, :4] * side),
        labels=torch.from_numpy(rows[:, 4].astype(np.int64)),
        masks=torch.from_numpy(np.array(masks).reshape(-1, side, side)),
        is_crowd=torch.arange(len(rows)) >= len(rows) - crowds,
    )


def _weight(key: str, shape: tuple[int, ...]) -> Tensor:
    if key.endswith("num_batches_tracked"):
        return torch.tensor(0)
    z = np.random.Generator(np.random.PCG64(zlib.crc32(key.encode()))).standard_normal(shape)
    if key.endswith("running_var"):
        z = 1.0 + 0.2 * np.abs(z)
    elif len(shape) == 1 and key.endswith(".weight"):  # batch norm gain, small where a branch ends
        z = (0.2 if "bn3" in key or key.endswith(".1.weight") else 1.0) * (1 + 0.1 * z)
    elif len(shape) == 4:
        gains = {"conv_offset_mask": 0.5, "conf_layer": 8.0, "bbox_layer": 0.7}
        gain = next((g for part, g in gains.items() if part in key), np.sqrt(2.0))
        z = gain / np.sqrt(np.prod(shape[1:])) * z
    else:
        z = 0.05 * z
    return torch.from_numpy(np.asarray(z, dtype=np.float32))
