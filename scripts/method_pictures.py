"""Draw the pictures of docs/how_it_works.md: what prototypes are, and how they become masks.

The bundled model segments the portrait of Grace Hopper (US Navy, public domain) that comes with
matplotlib.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import matplotlib
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from data.images import Image, read_image, to_tensor
from yolact import Detections, Predictor, Yolact
from yolact.cli.common import make_parser, run_command
from yolact.drawing.detections import palette_color
from yolact.drawing.lincomb import diverging
from yolact.results.thresholds import Thresholds

ROOT = Path(__file__).resolve().parent.parent
PORTRAIT = Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg"
SURE = 6.0
"""Sums that get the full colour: their sigmoid is 0.998."""


class Parts(NamedTuple):
    """What the masks of an image are made of.

    Attributes:
        prototypes: (K, h, w).
        coefficients: (N, K).
        detections: N objects.
    """

    prototypes: Tensor
    coefficients: Tensor
    detections: Detections


def main(argv: Sequence[str] | None = None) -> None:
    """Write both pictures and print their paths."""
    parser = make_parser("method_pictures.py", __doc__)
    parser.add_argument("--folder", type=Path, default=ROOT / "docs", help="folder to write to")
    folder = parser.parse_args(argv).folder
    folder.mkdir(parents=True, exist_ok=True)
    image = read_image(PORTRAIT)
    parts = look(image)
    for name, figure in (
        ("prototypes.jpg", draw_prototypes(image, parts)),
        ("combination.jpg", draw_combination(image, parts)),
    ):
        figure.savefig(folder / name, dpi=100, pil_kwargs={"quality": 75})
        print(folder / name)


@torch.no_grad()
def look(image: Image) -> Parts:
    """Run the bundled model, in float32, so that the pictures are the same everywhere."""
    predictor = Predictor.from_checkpoint(
        "yolact_lite2_person", device="cpu", precision="float32", engine="eager"
    )
    model = predictor.model
    assert isinstance(model, Yolact)
    outputs = predictor.run_network(model.preprocess([to_tensor(image)]))
    thresholds = Thresholds(0.5)
    (candidates,) = model.find(outputs, thresholds)
    prototypes, image_hw = outputs.prototypes[0], (image.shape[0], image.shape[1])
    detections = model.assemble(candidates, prototypes, image_hw, thresholds)
    return Parts(prototypes, candidates.coefficients, detections)


def draw_prototypes(image: Image, parts: Parts) -> Figure:
    """Draw the image with its objects, and the prototypes that weigh most in them."""
    figure = Figure(figsize=(10, 5), layout="constrained")
    first, *others = figure.subplots(2, 5).flat
    _show(first, parts.detections.plot(image), "a person is found")
    weight = parts.coefficients.abs().amax(dim=0) * parts.prototypes.mean(dim=(1, 2))  # (K,)
    for axes, k in zip(others, weight.argsort(descending=True).tolist(), strict=False):
        _show(axes, parts.prototypes[k].numpy(), f"prototype {k}", image)
    return figure


def draw_combination(image: Image, parts: Parts) -> Figure:
    """Draw, in a row for each object, its coefficients, the sum, and the mask."""
    count = len(parts.detections)
    figure = Figure(figsize=(10, 2.6 * count), layout="constrained")
    rows = figure.subplots(count, 4, squeeze=False, width_ratios=(1.3, 1, 1, 1))
    sums = torch.einsum("nk,khw->nhw", parts.coefficients, parts.prototypes).numpy()
    for i, (bars, total, soft, mask) in enumerate(rows):
        coefficients = parts.coefficients[i].numpy()
        bars.bar(range(len(coefficients)), coefficients, color=_colors(coefficients))
        bars.set(ylim=(-1, 1))
        bars.set_title(f"32 coefficients of person {i + 1}", fontsize=9)
        bars.spines[["top", "right"]].set_visible(False)
        bars.tick_params(labelsize=8)
        _show(total, diverging(sums[i], SURE), "weighted sum", image)
        _show(soft, parts.detections.soft_masks[i].numpy(), "sigmoid, cropped by the box", image)
        alone = parts.detections[i : i + 1].plot(image, text=False, colors=[palette_color(i)])
        _show(mask, alone, "above 0.5, in the image")
    return figure


def _show(
    axes: Axes, picture: NDArray[np.generic], title: str, stretched_to: Image | None = None
) -> None:
    """Show a picture; what the network sees as a square, in the proportions of its image."""
    height, width = picture.shape[:2] if stretched_to is None else stretched_to.shape[:2]
    axes.imshow(picture, cmap="gray", extent=(0, width, height, 0))
    axes.set_title(title, fontsize=9)
    axes.axis("off")


def _colors(values: NDArray[np.float32]) -> list[NDArray[np.float64]]:
    return list(diverging(np.sign(values)[None].astype(np.float32), 1.0)[0] / 255)


if __name__ == "__main__":
    raise SystemExit(run_command(main))
