"""The network with OpenVINO: converted once, cached, run from any thread."""

from __future__ import annotations

import hashlib
import inspect
import locale
import logging
import os
import shutil
import sys
import threading
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout, suppress
from functools import cache, cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from data.files import open_file
from layers.structures import Predictions
from yolact.files import cache_folder

from .names import Port, Precision
from .pytorch import merge_branches
from .telemetry import no_telemetry

with no_telemetry():
    import openvino as ov
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder


OUTPUTS = ("class_logits", "box_deltas", "coefficients", "prototypes", "anchors")

# Number of converted networks in the cache; the most recently used are kept.
_KEPT = 8
Goal = Literal["LATENCY", "THROUGHPUT"]
_HINTS: Mapping[Precision, str] = {"float32": "f32", "bfloat16": "bf16"}


class InferenceGraph(nn.Module):
    """A network for export: a tensor in, a tuple of tensors out.

    Args:
        network: in evaluation mode.
        image_size: S, for a graph whose input may have any height and width: the anchors keep the
            sides in pixels that they have at S. None for inputs of S x S only.
    """

    def __init__(self, network: nn.Module, image_size: int | None = None) -> None:
        super().__init__()
        self.network, self.image_size = network, image_size

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return the tensors that `OUTPUTS` names, for a (B, 3, H, W) normalised RGB batch."""
        *outputs, anchors = tuple(self.network(x))[: len(OUTPUTS)]
        if self.image_size is not None:
            centres, widths, heights = anchors.split((2, 1, 1), dim=1)
            widths = widths * (self.image_size / x.shape[-1])
            heights = heights * (self.image_size / x.shape[-2])
            anchors = torch.cat((centres, widths, heights), dim=1)
        return (*outputs, anchors)


class OpenVinoNetwork:
    """A converted network, called like the PyTorch one; compiled for this CPU at its first use.

    Each thread has its own buffers; a call overwrites the results of the thread's previous call.
    When unpickled, it is compiled again at its first use.

    Args:
        model: from `convert` or a file.
        precision: "float32" or "bfloat16", for the layers that are not quantised.
        goal: compile for one call at a time, or for `workers` calls at a time.
    """

    def __init__(self, model: ov.Model, precision: Precision, goal: Goal = "LATENCY") -> None:
        self._model, self._precision, self._goal = model, precision, goal
        self._compiling = threading.Lock()
        self._compiled: ov.CompiledModel | None = None
        self._threads = threading.local()

    @property
    def workers(self) -> int:
        """Number of threads that should call at a time."""
        return int(self.compile().get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS"))

    @cached_property
    def streamed(self) -> OpenVinoNetwork:
        """Return the network compiled for many calls at a time: each is slower, together faster."""
        return OpenVinoNetwork(self._model, self._precision, "THROUGHPUT")

    def __call__(self, x: Tensor) -> Predictions:
        """Predict for a (B, 3, S, S) normalised RGB batch on the CPU."""
        if not hasattr(self._threads, "request"):
            self._threads.request = self.compile().create_infer_request()
        images = x.contiguous().numpy()
        results = self._threads.request.infer([images], share_inputs=True, share_outputs=True)
        return Predictions(*(torch.from_numpy(results[i]) for i in range(len(OUTPUTS))))

    def __reduce__(self) -> tuple[Callable[..., OpenVinoNetwork], tuple[object, ...]]:
        with TemporaryDirectory() as folder:
            file = Path(folder) / "network.xml"
            write_network(self._model, file)
            parts = file.read_bytes(), file.with_suffix(".bin").read_bytes()
        return _of_parts, (*parts, self._precision, self._goal)

    def compile(self) -> ov.CompiledModel:
        """Compile now instead of at the first call."""
        with self._compiling:
            if self._compiled is None:
                settings = {
                    "PERFORMANCE_HINT": self._goal,
                    "INFERENCE_PRECISION_HINT": _HINTS[self._precision],
                    "INFERENCE_NUM_THREADS": torch.get_num_threads(),
                }
                self._compiled = _core().compile_model(self._model, "CPU", settings)
        return self._compiled


def _of_parts(xml: bytes, weights: bytes, precision: Precision, goal: Goal) -> OpenVinoNetwork:
    return OpenVinoNetwork(_core().read_model(xml, weights), precision, goal)


def convert(network: nn.Module, image_size: int, dynamic: bool = False) -> ov.Model:
    """Convert a network, for batches of any size.

    The public function `openvino.convert_model` reports its use to a server; the frontend below it,
    used here, does not.

    Args:
        network: in evaluation mode, on the CPU.
        image_size: S; the result accepts no other size, unless `dynamic`.
        dynamic: accept images of any height and width.
    """
    example = torch.zeros((1, 3, image_size, image_size))
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tracing fixes some sizes, none of an image
        decoder = TorchScriptPythonDecoder(
            InferenceGraph(merge_branches(network), image_size if dynamic else None).eval(),
            example_input=example,
            trace_kwargs={"check_trace": False},  # checking would run the network three times
        )
        frontend = FrontEndManager().load_by_framework("pytorch")
        model = frontend.convert(frontend.load(decoder))
    side = -1 if dynamic else image_size
    model.reshape({model.inputs[0]: ov.PartialShape([-1, 3, side, side])})
    model.inputs[0].set_names({"images"})
    for output, name in zip(model.outputs, OUTPUTS, strict=True):
        output.set_names({name})
    return model


def convert_cached(network: nn.Module, image_size: int) -> ov.Model:
    """Convert a network, or read its earlier conversion from the cache."""
    entry = cache_folder() / "openvino" / _fingerprint(network, image_size)
    try:
        model = read_network(entry / "network.xml")
    except RuntimeError:  # not there, or damaged
        model = convert(network, image_size)
        _keep(model, entry)
    with suppress(OSError):  # another user's cache can be read but not marked as used
        os.utime(entry)
    return model


def quantize(
    model: ov.Model, indices: Sequence[int], load: Callable[[int], NDArray[np.float32]]
) -> ov.Model:
    """Quantise a trained network to 8 bits with NNCF.

    Args:
        model: from `convert`.
        indices: indices of real images, which determine the ranges to cover.
        load: returns the (1, 3, S, S) network input for an index.

    Raises:
        ValueError: NNCF is not installed, or there are no images.
    """
    if not indices:
        raise ValueError("quantisation needs images to calibrate with")
    try:
        with no_telemetry():
            import nncf
    except ImportError:
        raise ValueError("8 bits need NNCF: pip install nncf") from None
    logging.getLogger("nncf").setLevel(logging.ERROR)
    with redirect_stdout(sys.stderr):  # its progress
        return nncf.quantize(
            model,
            nncf.Dataset(indices, load),
            preset=nncf.QuantizationPreset.MIXED,
            subset_size=len(indices),
        )


def read_network(path: Path) -> ov.Model:
    """Read an .xml or .onnx file.

    Raises:
        RuntimeError: the file is broken, or has an operator that OpenVINO does not know.
        OSError: the weights beside an .xml are not a plain file, or too large.
    """
    weights = path.with_suffix(".bin")
    if path.suffix.lower() == ".xml" and os.path.lexists(weights):
        with open_file(weights):  # refuses a pipe, for which OpenVINO would wait
            pass
    return _core().read_model(path)


def ports_of(model: ov.Model) -> list[Port]:
    """Return the inputs, then the outputs."""
    ports = []
    for port in (*model.inputs, *model.outputs):
        shape = port.partial_shape if port.partial_shape.rank.is_static else ()
        sizes = [size.get_length() if size.is_static else None for size in shape]
        ports.append((sizes, port.element_type.to_string() == "f32"))
    return ports


def write_network(model: ov.Model, path: Path, half: bool = False) -> None:
    """Write an .xml file, and its weights beside it, with `half` in float16.

    OpenVINO writes numbers in the program's locale, but reads 0,001 as 0. A program with a GUI
    often sets the user's locale.

    Raises:
        RuntimeError: the file cannot be written.
    """
    before = locale.setlocale(locale.LC_NUMERIC)
    locale.setlocale(locale.LC_NUMERIC, "C")
    try:
        ov.save_model(model, path, compress_to_fp16=half)
    finally:
        locale.setlocale(locale.LC_NUMERIC, before)


def _keep(model: ov.Model, entry: Path) -> None:
    """Put a model into the cache; ignore a cache that cannot be written."""
    with suppress(OSError, RuntimeError):
        entry.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=entry.parent, prefix=".", ignore_cleanup_errors=True) as folder:
            partial = Path(folder) / "entry"
            write_network(model, partial / "network.xml")
            shutil.rmtree(entry, ignore_errors=True)
            partial.replace(entry)
        entries = (path for path in entry.parent.iterdir() if not path.name.startswith("."))
        for old in sorted(entries, key=lambda path: path.stat().st_mtime)[:-_KEPT]:
            shutil.rmtree(old, ignore_errors=True)


def _fingerprint(network: nn.Module, image_size: int) -> str:
    """Hash everything that the conversion depends on."""
    digest = hashlib.sha256(f"{ov.__version__} {torch.__version__} {image_size}".encode())
    digest.update(str(network).encode())
    for source in sorted({inspect.getfile(type(module)) for module in network.modules()}):
        digest.update(Path(source).read_bytes())
    anchors: Any = getattr(network, "anchors", None)
    digest.update(str([size.tolist() for size in getattr(anchors, "sizes", [])]).encode())
    for name, tensor in network.state_dict().items():
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(tensor.cpu().numpy()).tobytes())
    return digest.hexdigest()[:32]


@cache
def _core() -> ov.Core:
    # The bindings make a table of types at its first use, and deadlock if two threads do so at the
    # same time. So it is made here, before any thread can run a network.
    ov.Type.f32.to_dtype()
    return ov.Core()
