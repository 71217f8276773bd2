"""Export a model to OpenVINO (.xml) or ONNX (.onnx), for eval.py, Predictor and other programs.

The file runs batches of any size, and carries class names and input statistics. It is compared with
PyTorch before success is reported.

Examples:
  python scripts/export.py bundled.xml
  python scripts/export.py resnet50.onnx --trained_model=yolact_resnet50
  python scripts/export.py small.xml --trained_model=mine.pth --half
  python scripts/export.py int8.xml --trained_model=mine.pth --int8 --dataset=my_data
  python eval.py --trained_model=int8.xml --image=in.jpg:out.png
"""

from __future__ import annotations

import argparse
import itertools
import logging
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from data.catalog import Categories
from data.datasets import open_dataset
from data.transforms import to_tensor
from layers.structures import Predictions
from yolact import Config, Predictor, Yolact
from yolact.checkpoint import BUNDLED, resolve_weights
from yolact.cli import UsageError, add_flags, flag, make_parser, named_config, run
from yolact.engine import choose_engine
from yolact.evaluation import evaluate
from yolact.exported import (
    SUFFIXES,
    is_exported,
    metadata,
    read_trained,
    write_onnx,
    write_openvino,
)
from yolact.openvino_engine import convert, quantize

logger = logging.getLogger("export")

# Largest difference from PyTorch, relative to the largest value of each output.
TOLERANCE, HALF_TOLERANCE = 1e-3, 2e-2


def main(argv: Sequence[str] | None = None) -> None:
    """Export one model."""
    parser = make_parser("export.py", __doc__)
    parser.add_argument("output", type=Path, help=f"file to write; ends in {' or '.join(SUFFIXES)}")
    add_flags(
        parser,
        "options",
        (
            flag("--trained_model", "checkpoint, or released name", str, BUNDLED),
            flag("--config", "preset, where neither the file nor its name tells"),
            flag("--half", "store the weights as float16 (OpenVINO)", bool),
            flag("--int8", "quantise to 8 bits, and tell the AP it costs (OpenVINO)", bool),
            flag("--dataset", "with --int8: as in eval.py; default: the model's own"),
            flag("--calibration_images", "with --int8: training images to look at", int, 200),
            flag("--max_images", "with --int8: validation images to score; -1 for all", int, -1),
        ),
    )
    args = parser.parse_args(argv)
    if not is_exported(args.output):
        raise UsageError(f"{args.output}: expected a file that ends in {' or '.join(SUFFIXES)}")
    if args.output.suffix.lower() == ".onnx" and (args.half or args.int8):
        raise UsageError("--half and --int8 are for OpenVINO: name an .xml file")
    checkpoint = read_trained(resolve_weights(args.trained_model))
    config = named_config(args.config) if args.config else checkpoint.preset()
    reference = Predictor.from_parts(checkpoint, config, choose_engine("cpu", "plain"))
    export(args, reference.model, config)
    if args.int8:
        print(cost(args, reference, config))
    else:
        check(reference, args.output, HALF_TOLERANCE if args.half else TOLERANCE)
    print(args.output)


def export(args: argparse.Namespace, model: Yolact, config: Config) -> None:
    """Write the file."""
    text = metadata(model, config)
    if args.output.suffix.lower() == ".onnx":
        write_onnx(model, text, args.output)
        return
    network = convert(model.network, model.image_size)
    if args.int8:
        inputs = list(calibration_inputs(args, model, config))
        network = quantize(network, inputs)
    write_openvino(network, text, args.output, half=args.half)


def calibration_inputs(
    args: argparse.Namespace, model: Yolact, config: Config
) -> Iterator[NDArray[np.float32]]:
    """Yield (1, 3, S, S) network inputs made of training images."""
    dataset = open_dataset(
        args.dataset or config.dataset, "train", Categories.from_names(config.model.names)
    )
    for index in range(min(args.calibration_images, len(dataset))):
        yield model.preprocess([to_tensor(dataset.sample(index).image)]).numpy()


def check(reference: Predictor, path: Path, tolerance: float) -> None:
    """Compare the file, for one image and for two, with PyTorch in float32.

    Args:
        reference: runs the network in PyTorch.
        path: the file.
        tolerance: largest difference allowed, as a share of each output's range.

    Raises:
        ValueError: they differ by more.
    """
    exported = Predictor.from_checkpoint(path, precision="float32")
    side, worst = reference.model.image_size, 0.0
    for batch in (1, 2):
        x = torch.randn((batch, 3, side, side), generator=torch.Generator().manual_seed(batch))
        with torch.no_grad():
            pairs = zip(
                outputs(reference.run_network, x), outputs(exported.run_network, x), strict=True
            )
        worst = max(worst, *(difference(a, b) for a, b in pairs))
    logger.info("largest difference from PyTorch: %.2g of an output's range", worst)
    if not worst <= tolerance:
        path.unlink()
        raise ValueError(f"{path}: differs from PyTorch by {worst:.2g}, more than {tolerance:g}")


def outputs(network: Callable[[torch.Tensor], Predictions], x: torch.Tensor) -> list[torch.Tensor]:
    """Return the five outputs of a network."""
    return [output.clone() for output in itertools.islice(network(x), 5) if output is not None]


def difference(expected: torch.Tensor, found: torch.Tensor) -> float:
    """Return the largest difference as a share of the largest expected value."""
    return float((found - expected).abs().max() / expected.abs().max().clamp(min=1e-6))


def cost(args: argparse.Namespace, reference: Predictor, config: Config) -> str:
    """Evaluate both models on validation images, and say what quantisation costs."""
    dataset: Any = open_dataset(
        args.dataset or config.dataset, "val", Categories.from_names(config.model.names)
    )
    quantised = Predictor.from_checkpoint(args.output)
    lines = []
    for name, predictor in (("float32", reference), ("int8", quantised)):
        predict = partial(predictor, score_threshold=0.0, top_k=None)
        evaluator, _ = evaluate(predict, dataset, max_images=args.max_images)
        metrics = evaluator.summarize()
        lines.append(f"{name}: box AP {metrics.box['all']:.2f}, mask AP {metrics.mask['all']:.2f}")
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(run(main))
