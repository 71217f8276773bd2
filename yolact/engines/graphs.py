"""A network recorded as CUDA graphs, so that a GPU need not wait for Python between its kernels.

A graph is for one input shape, and reads and writes the same memory at every replay.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import cache, cached_property
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from data.problems import first_line
from layers.anchors import AnchorGenerator

from .names import Precision, RunNetwork

logger = logging.getLogger(__name__)

WARM_UPS = 3  # runs before recording, as libraries allocate and tune at first use
_MOST = 2  # recorded shapes: single images, and one size of batches


class Recorder(Protocol):
    """Records kernels."""

    def record(self, function: Callable[[], Any]) -> tuple[Any, Callable[[], object]]:
        """Return a function's outputs, and a function that recomputes them in the same memory."""

    def turn(self) -> AbstractContextManager[None]:
        """Make the device wait for the previous turn; only one thread at a time has a turn."""


class GraphedNetwork:
    """A network that is recorded for input shapes that recur; other inputs run unrecorded.

    Threads can share it: each call gets its own outputs. When unpickled, it is recorded again. If
    recording fails, the network runs without, and this is reported once.

    Args:
        run: from a (1, 3, S, S) tensor to `Predictions`, without a wait for the device.
        unrecorded: the same for all other inputs, recorded or not; a compiled network would be
            recompiled for each of their shapes.
        recorder: recorder of the network's device.
        example: a (1, 3, S, S) input on that device, for warming up.
    """

    def __init__(
        self, run: RunNetwork, unrecorded: RunNetwork, recorder: Recorder, example: Tensor
    ) -> None:
        self._made_of = (run, unrecorded, recorder, example)
        self._run, self.unrecorded = run, unrecorded
        self._recorder, self.example = recorder, example
        self._lock, self._most = threading.Lock(), _MOST
        self._seen: set[object] = set()
        self._too_large: set[object] = set()
        self._graphs: dict[object, _Graph] = {}

    def __call__(self, x: Any) -> Any:
        """Predict; the outputs are not overwritten later."""
        if isinstance(x, Tensor):
            with self._lock:
                graph = self._graph_for(x)
                if graph is not None:
                    with self._recorder.turn():
                        return graph(x)
        return self.unrecorded(x)

    def __reduce__(self) -> tuple[type[GraphedNetwork], tuple[object, ...]]:
        return GraphedNetwork, self._made_of

    @property
    def recorded(self) -> int:
        """Number of recorded shapes."""
        return len(self._graphs)

    def warm_up(self) -> None:
        """Record single images now, instead of at their second call."""
        for _ in range(2):
            self(self.example)

    def _graph_for(self, x: Tensor) -> _Graph | None:
        """Return the graph of a shape, from its second use on."""
        key = (x.shape, x.dtype)
        is_due = key in self._seen and not {key} & (self._graphs.keys() | self._too_large)
        if is_due and len(self._graphs) < self._most:
            try:
                run = self._run if x.shape == self.example.shape else self.unrecorded
                self._graphs[key] = _Graph(run, self._recorder, x)
            except Exception as error:  # drivers, libraries and other threads prevent it
                if isinstance(error, torch.OutOfMemoryError):  # a smaller batch may fit
                    self._too_large.add(key)
                else:
                    self._most = len(self._graphs)
                logger.warning("the network runs without CUDA graphs: %s", first_line(error))
        self._seen.add(key)
        return self._graphs.get(key)


class _Graph:
    """One recording: its input, its outputs, and the graph that computes the outputs."""

    @torch.inference_mode(False)  # a buffer made inside could not be written outside
    @torch.no_grad()
    def __init__(self, run: RunNetwork, recorder: Recorder, x: Tensor) -> None:
        self._x = torch.empty_like(x, memory_format=torch.channels_last).copy_(x)
        self._outputs, self._replay = recorder.record(lambda: run(self._x))

    def __call__(self, x: Tensor) -> Any:
        self._x.copy_(x)
        self._replay()
        copies = (part if part is None else part.clone() for part in self._outputs)
        return type(self._outputs)._make(copies)


class CudaRecorder:
    """Records on an NVIDIA GPU.

    Args:
        device: the GPU.
        try_algorithms: let cuDNN time its algorithms, which differ in rounding.
    """

    def __init__(self, device: torch.device, try_algorithms: bool) -> None:
        self._made_of = (device, try_algorithms)
        self._device, self._try_algorithms = device, try_algorithms

    def __reduce__(self) -> tuple[type[CudaRecorder], tuple[torch.device, bool]]:
        return CudaRecorder, self._made_of

    def record(self, function: Callable[[], Any]) -> tuple[Any, Callable[[], object]]:
        """See `Recorder`."""
        with recording(self._device, self._try_algorithms):
            # Keep a reference: PyTorch still refers to a graph whose capture failed.
            self._latest = graph = torch.cuda.CUDAGraph()
            for _ in range(WARM_UPS):
                function()
            with capture(graph):
                outputs = function()
        return outputs, graph.replay

    @contextmanager
    def turn(self) -> Iterator[None]:
        """See `Recorder`; callers may be on different streams."""
        with torch.cuda.device(self._device):
            stream = torch.cuda.current_stream()
            stream.wait_event(self._done)
            yield
            self._done.record(stream)

    @cached_property
    def _done(self) -> torch.cuda.Event:
        return torch.cuda.Event()  # type: ignore[no-untyped-call]


def recorder_for(device: torch.device, precision: Precision) -> Recorder | None:
    """Return the recorder for a device; None if there is none."""
    if device.type != "cuda":
        return None
    return CudaRecorder(device, try_algorithms=precision != "float32")


@contextmanager
def recording(device: torch.device, try_algorithms: bool) -> Iterator[None]:
    """Launch kernels on a stream that can be recorded; other threads may use the device.

    Args:
        device: an NVIDIA GPU.
        try_algorithms: let cuDNN time its algorithms, which differ in rounding.
    """
    with _one_at_a_time(), torch.cuda.device(device), _benchmark(try_algorithms):
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):  # restored after a failure, too
            yield
        torch.cuda.current_stream().wait_stream(stream)


def capture(
    graph: torch.cuda.CUDAGraph, beside: torch.cuda.CUDAGraph | None = None
) -> AbstractContextManager[None]:
    """Record the work on the stream of `recording` into a graph.

    Args:
        graph: an empty graph.
        beside: a graph that is always replayed before it, and whose memory pool it shares.
    """
    pool = None if beside is None else beside.pool()
    stream = torch.cuda.current_stream()
    # By default, an allocation in another thread would be an error, there and here.
    return torch.cuda.graph(graph, pool=pool, stream=stream, capture_error_mode="thread_local")


@cache
def _one_at_a_time() -> threading.Lock:
    """Return the lock for recordings: PyTorch allows one at a time in a process."""
    return threading.Lock()


@contextmanager
def _benchmark(chosen: bool) -> Iterator[None]:
    """Switch cuDNN's benchmark of algorithms on in a block, if chosen."""
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = before or chosen
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


class FixedAnchors(nn.Module):
    """Keeps the anchors of the first input size; for other sizes it calls the generator.

    A graph reads them at the same address at every replay, and a compiler treats them as a
    constant: the generator's cache may drop them, and making them copies from the CPU.
    """

    def __init__(self, generator: AnchorGenerator) -> None:
        super().__init__()
        self.generator = generator
        self.grids: list[tuple[int, int]] = []
        self.register_buffer("anchors", None, persistent=False)
        self.anchors: Tensor | None

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """See `AnchorGenerator.forward`."""
        grids = [(feature.shape[-2], feature.shape[-1]) for feature in features]
        if self.anchors is None:
            self.grids, self.anchors = grids, self.generator(features)
        if grids == self.grids:
            return self.anchors.clone()
        made: Tensor = self.generator(features)
        return made
