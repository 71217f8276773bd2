"""Export a model to OpenVINO (.xml) or ONNX (.onnx), for eval.py, Predictor and other programs.

The file runs batches of any size, and contains class names and input statistics. Before success is
reported, its results are compared with PyTorch's. Use in other programs: docs/export.md.

Examples:
  python scripts/export.py bundled.xml
  python scripts/export.py resnet50.onnx --trained_model=yolact_resnet50
  python scripts/export.py old.onnx --opset=17 --image_size=320
  python scripts/export.py small.xml --trained_model=mine.pth --half --dynamic
  python scripts/export.py int8.xml --trained_model=mine.pth --int8 --dataset=my_data
  python eval.py --trained_model=int8.xml --image=in.jpg:out.png
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from numpy.typing import NDArray

from data.catalog import Split, open_dataset
from data.classes import Categories
from data.files import replace_file
from data.images import to_tensor
from data.sample import Dataset
from yolact import Config, Predictor
from yolact.build import model_class
from yolact.checkpoint import (
    BUNDLED,
    EXPORTED_SUFFIXES,
    is_exported,
    read_checkpoint,
    trained_model,
)
from yolact.cli.common import (
    add_flags,
    at_least,
    checkpoint_config,
    chosen_weights,
    flag,
    make_parser,
    options_for,
    run_command,
    writable_file,
)
from yolact.config import ModelConfig
from yolact.engines.choose import choose_engine
from yolact.engines.exported import metadata, write_openvino
from yolact.engines.onnx_file import known_opsets, write_onnx
from yolact.errors import UsageError
from yolact.evaluation.coco import eval_order, evaluate
from yolact.models.segmenter import AnySegmenter

logger = logging.getLogger("export")

_SUFFIXES = " or ".join(EXPORTED_SUFFIXES)

# Largest difference from PyTorch, relative to the largest value of each output.
TOLERANCE, HALF_TOLERANCE = 1e-3, 2e-2


def main(argv: Sequence[str] | None = None) -> None:
    """Export one model."""
    parser = make_parser("export.py", __doc__)
    parser.add_argument("output", type=Path, help=f"file to write; ends in {_SUFFIXES}")
    add_flags(
        parser,
        "options",
        (
            flag(
                "--trained_model",
                "checkpoint, released name, hf:owner/name, or 'latest'",
                str,
                BUNDLED,
            ),
            flag("--config", "preset, if neither the file nor its name determines it"),
            flag("--image_size", "side of the input in pixels; default: the model's", int),
            flag("--dynamic", "take inputs of any height and width", bool),
            flag("--opset", "operator set (ONNX); default: PyTorch's", int),
            flag("--half", "store the weights as float16 (OpenVINO)", bool),
            flag("--int8", "quantise to 8 bits, and report the loss of AP (OpenVINO)", bool),
            flag("--dataset", "with --int8: as in eval.py; default: the model's own"),
            flag("--calibration_images", "with --int8: training images to calibrate on", int, 200),
            flag("--max_images", "with --int8: validation images to score; -1 for all", int, -1),
        ),
    )
    args = parser.parse_args(argv)
    for name in ("dataset", "calibration_images", "max_images"):
        if getattr(args, name) != parser.get_default(name) and not args.int8:
            raise UsageError(f"--{name} is for --int8: add it")
    refuse_what_cannot_be(args)
    engine = choose_engine("cpu", "openvino", "float32")
    checkpoint = read_checkpoint(chosen_weights("--trained_model", args.trained_model))
    config = checkpoint_config(checkpoint, args.config)
    if args.image_size is not None:
        config = with_image_size(config, args.image_size)
    refuse_model(config.model, checkpoint.path, args.output, args.dynamic)
    model = trained_model(checkpoint, config)
    args.output.parent.mkdir(parents=True, exist_ok=True)
    # Windows deletes no file that a model still reads.
    with TemporaryDirectory(dir=args.output.parent, ignore_cleanup_errors=True) as folder:
        made = Path(folder) / args.output.name
        export(args, model, config, made)
        if args.int8:
            print(cost(args, Predictor.from_parts(checkpoint, config, engine), config, made))
        else:
            check(model, made, args.dynamic, HALF_TOLERANCE if args.half else TOLERANCE)
        for file in Path(folder).iterdir():
            replace_file(file, args.output.with_suffix(file.suffix))
    print(args.output)


def refuse_what_cannot_be(args: argparse.Namespace) -> None:
    """Refuse flags that do not fit the kind of file.

    Raises:
        UsageError: in one line.
    """
    if not is_exported(args.output):
        raise UsageError(f"{args.output}: expected a file that ends in {_SUFFIXES}")
    writable_file("output", args.output)
    is_onnx = args.output.suffix.lower() == ".onnx"
    if is_onnx and (args.half or args.int8):
        raise UsageError("--half and --int8 are for OpenVINO: name an .xml file")
    if not is_onnx and args.opset is not None:
        raise UsageError("--opset is for ONNX: name an .onnx file")
    at_least(args, calibration_images=1, max_images=-1)
    if args.max_images == 0:
        raise UsageError("--max_images=0: expected at least 1, or -1 for all")
    opsets = known_opsets() if is_onnx else range(0)
    if args.opset is not None and args.opset not in opsets:
        raise UsageError(f"--opset={args.opset}: expected {opsets[0]} to {opsets[-1]}")


def refuse_model(model: ModelConfig, checkpoint: Path, output: Path, dynamic: bool = False) -> None:
    """Refuse models that have no form of this kind.

    Raises:
        ValueError: in one line.
    """
    if not model_class(model).fixed_shapes:
        raise ValueError(f"{checkpoint}: only YOLACT can be exported, not Mask R-CNN")
    if model.deformable_interval and output.suffix.lower() == ".onnx":
        raise ValueError(
            f"{output}: OpenVINO, which runs and checks the file, reads no deformable "
            "convolutions of YOLACT++ from ONNX; name an .xml file"
        )
    pads_like_tensorflow = model.backbone.startswith("timm/tf_")
    if dynamic and pads_like_tensorflow and output.suffix.lower() == ".onnx":
        raise ValueError(
            f"{output}: --dynamic: PyTorch's exporter does not finish with {model.backbone}; name "
            "an .xml file, or leave --dynamic out"
        )


def with_image_size(config: Config, image_size: int) -> Config:
    """Return the configuration for another input size.

    Raises:
        UsageError: the size is too small.
    """
    try:
        return config.override(f"model.image_size={image_size}")
    except ValueError as error:
        raise UsageError(f"--image_size: {error.args[0]}") from None


def export(args: argparse.Namespace, model: AnySegmenter, config: Config, path: Path) -> None:
    """Write the file."""
    from yolact.engines.openvino import convert, quantize

    text = metadata(model, config)
    if path.suffix.lower() == ".onnx":
        write_onnx(model, text, path, args.opset, args.dynamic)
        return
    network = convert(model.network, model.image_size, args.dynamic)
    if args.int8:
        dataset = open_split(args, config, "train")

        def load(index: int) -> NDArray[np.float32]:
            image = to_tensor(dataset.sample(index).image)
            x: NDArray[np.float32] = model.preprocess([image]).numpy()
            return x

        indices = eval_order(dataset.image_ids)[: args.calibration_images]
        network = quantize(network, indices, load)
    write_openvino(network, text, path, half=args.half)


def open_split(args: argparse.Namespace, config: Config, split: Split) -> Dataset:
    """Open a part of the dataset with the labels of the model."""
    categories = Categories.from_names(config.model.names)
    options = options_for(args.dataset, config)
    return open_dataset(args.dataset or config.dataset, split, categories, options=options)


def check(model: AnySegmenter, path: Path, dynamic: bool, tolerance: float) -> None:
    """Compare the file, for one image and for two, with PyTorch in float32.

    Args:
        model: the original.
        path: the file.
        dynamic: compare at a second input size as well.
        tolerance: largest difference allowed, as a share of each output's range.

    Raises:
        ValueError: they differ by more.
    """
    from yolact.engines.openvino import OUTPUTS, InferenceGraph

    exported = Predictor.from_checkpoint(path, precision="float32")
    side = model.image_size
    graph = InferenceGraph(model.network, side if dynamic else None)
    shapes = [(1, 3, side, side), (2, 3, side, side)]
    if dynamic:
        shapes.append((1, 3, side + 33, side + 64))
    differences = []
    for seed, shape in enumerate(shapes):
        x = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
        with torch.no_grad():
            pairs = zip(graph(x), exported.run_network(x)[: len(OUTPUTS)], strict=True)
        differences += [difference(a, b) for a, b in pairs]
    worst = np.max(differences)  # NaN, if there is one
    logger.info("largest difference from PyTorch: %.2g of an output's range", worst)
    if not worst <= tolerance:
        raise ValueError(
            f"{path.name} is not written: it differs from PyTorch by {worst:.2g} of an output's "
            f"range, more than {tolerance:g}"
        )


def difference(expected: torch.Tensor, found: torch.Tensor) -> float:
    """Return the largest difference as a share of the largest expected value."""
    return float((found - expected).abs().max() / expected.abs().max().clamp(min=1e-6))


def cost(args: argparse.Namespace, reference: Predictor, config: Config, path: Path) -> str:
    """Evaluate both models on validation images, and say what quantisation costs."""
    dataset, quantised = open_split(args, config, "val"), Predictor.from_checkpoint(path)
    order = eval_order(dataset.image_ids)[: args.max_images if args.max_images >= 0 else None]
    lines = []
    for name, predictor in (("float32", reference), ("int8", quantised)):
        evaluator = evaluate(predictor.find_all, dataset, order=order)
        metrics = evaluator.summarize()
        box, mask = metrics.box.overlaps["all"], metrics.mask.overlaps["all"]
        lines.append(f"{name}: box AP {box:.2f}, mask AP {mask:.2f}")
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(run_command(main))
