"""Write ONNX files with PyTorch's exporter, for a given operator set and input sizes."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch

from data.problems import first_line
from yolact.errors import OptionError
from yolact.models.segmenter import AnySegmenter

from .exported import KEY
from .pytorch import merge_branches

_LOWEST_OPSET = 16  # PyTorch writes 18, and onnx converts no further down
# The exporter takes a size of one as fixed; here the smallest level has two rows, three columns.
_EXAMPLE_HW = (256, 320)


def known_opsets() -> range:
    """Return the operator sets that can be tried with the packages installed.

    Raises:
        ValueError: the packages for ONNX are not installed.
    """
    try:
        import onnx
        import onnxscript  # noqa: F401  (PyTorch's exporter needs it)
    except ImportError as error:
        raise ValueError(f"ONNX needs {error.name}: pip install onnx onnxscript") from None
    return range(_LOWEST_OPSET, onnx.defs.onnx_opset_version() + 1)


def write_onnx(
    model: AnySegmenter, text: str, path: Path, opset: int | None = None, dynamic: bool = False
) -> None:
    """Write the network as one ONNX file.

    Args:
        model: in evaluation mode, on the CPU.
        text: from `metadata`.
        path: ends in .onnx.
        opset: one of `known_opsets`; None is PyTorch's choice.
        dynamic: accept images of any height and width, not only S x S.

    Raises:
        ValueError: the packages are not installed, or the network does not fit the operator set.
    """
    known_opsets()
    import onnx

    from .openvino import OUTPUTS, InferenceGraph

    for talkative in ("onnxscript", "onnx_ir", "torch.onnx"):
        logging.getLogger(talkative).setLevel(logging.ERROR)
    side = model.image_size
    # Two images: the exporter would take a batch of one as a fixed size.
    example = torch.zeros((2, 3, *(_EXAMPLE_HW if dynamic else (side, side))))
    dim = torch.export.Dim
    sizes = {2: dim("height", min=32), 3: dim("width", min=32)} if dynamic else {}
    program = torch.onnx.export(
        InferenceGraph(merge_branches(model.network), side if dynamic else None).eval(),
        (example,),
        dynamo=True,
        verbose=False,
        input_names=["images"],
        output_names=list(OUTPUTS),
        opset_version=opset,
        dynamic_shapes=({0: dim("batch"), **sizes},),
    )
    if program is None:
        raise ValueError(f"cannot write {path}: PyTorch's exporter returned nothing")
    proto = program.model_proto
    onnx.helper.set_model_props(proto, {KEY: text})
    check_opset(proto, opset)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(proto, path)


def check_opset(proto: Any, opset: int | None) -> None:
    """Refuse a file that the converter left in another operator set than the requested one."""
    import onnx

    written = next(each.version for each in proto.opset_import if not each.domain)
    if opset not in (None, written):
        reason = f"this network could only be written in {written}"
        raise OptionError("opset", opset, reason)
    try:
        onnx.checker.check_model(proto)
    except onnx.checker.ValidationError as error:
        reason = f"does not fit this network ({first_line(error)})"
        raise OptionError("opset", written, reason) from None
