"""The network of a training step, recorded as CUDA graphs: forward and backward pass.

A step of eight images keeps a GPU busy for a tenth of the time that Python takes to launch its
kernels one by one. Losses, optimiser and weight average are not recorded.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import compress
from typing import TYPE_CHECKING, Any, TypeGuard

import torch
from torch import Tensor, nn

from data.problems import first_line
from layers.structures import Predictions, Target

from .graphs import WARM_UPS, capture, recording
from .names import RunNetwork

if TYPE_CHECKING:
    from yolact.models.segmenter import AnySegmenter
    from yolact.models.yolact import Yolact

logger = logging.getLogger(__name__)

Record = Callable[[nn.Module, Tensor], RunNetwork]


class RecordedLosses:
    """The losses of a model whose network is recorded for the shape of the first batch.

    Batches of another shape run unrecorded, and so does a network that cannot be recorded, which is
    reported.

    Args:
        model: in training mode, with a network of fixed shapes.
        record: takes the network and a (B, 3, S, S) example, returns a function for batches of this
            shape.
    """

    def __init__(self, model: Yolact, record: Record | None = None) -> None:
        self._model, self._record = model, record or record_forward_backward
        self._shape: torch.Size | None = None
        self._run: RunNetwork = model.network

    def __call__(self, images: Sequence[Tensor], targets: Sequence[Target]) -> dict[str, Tensor]:
        """Return the weighted losses by name; arguments as for `Segmenter.losses`."""
        x = self._model.preprocess(images)
        if self._shape is None:
            self._shape, self._run = x.shape, self._recorded(x)
        run = self._run if x.shape == self._shape else self._model.network
        losses: dict[str, Tensor] = self._model.criterion(run(x), targets)
        return losses

    def _recorded(self, x: Tensor) -> RunNetwork:
        network: nn.Module = self._model.network
        before = [(buffer, buffer.clone()) for buffer in network.buffers()]
        try:
            return self._record(network, x)
        except Exception as error:  # drivers, libraries and a lack of memory prevent it
            logger.warning("the network is trained without CUDA graphs: %s", first_line(error))
            return network
        finally:  # undo batch norm's updates: recording ran the first batch several times
            for buffer, value in before:
                buffer.copy_(value)


@dataclass(frozen=True)
class ForwardBackwardGraph:
    """A network's forward and backward recordings, which autograd sees as one operation.

    The outputs and gradients of a call are valid until the next call.

    Attributes:
        x: (B, 3, S, S), buffer for the input.
        outputs: outputs of the network, without autograd history.
        learned: which outputs have a gradient: all except the anchors.
        forward: recomputes `outputs` from `x`.
        output_gradients: buffers for the gradients of the learned outputs.
        parameters: trainable parameters of the network.
        gradients: gradients of `parameters`; None for a parameter that the network does not use.
        backward: recomputes `gradients` from `output_gradients`.
    """

    x: Tensor
    outputs: Predictions
    learned: Sequence[bool]
    forward: Callable[[], object]
    output_gradients: Sequence[Tensor]
    parameters: Sequence[nn.Parameter]
    gradients: Sequence[Tensor | None]
    backward: Callable[[], object]

    def __call__(self, x: Tensor) -> Predictions:
        """Compute the outputs; their gradients reach the parameters."""
        replayed = iter(_Replay.apply(self, x, *self.parameters))
        return Predictions._make(
            next(replayed) if is_learned else each
            for each, is_learned in zip(self.outputs, self.learned, strict=True)
        )


class _Replay(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, recorded: ForwardBackwardGraph, x: Tensor, *_: nn.Parameter
    ) -> tuple[Tensor, ...]:
        ctx.recorded = recorded
        recorded.x.copy_(x)
        recorded.forward()
        learned: Iterable[Any] = compress(recorded.outputs, recorded.learned)
        return tuple(each.detach() for each in learned)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        recorded: ForwardBackwardGraph = ctx.recorded
        for place, gradient in zip(recorded.output_gradients, gradients, strict=True):
            place.copy_(gradient)
        recorded.backward()
        found = (None if each is None else each.detach() for each in recorded.gradients)
        return (None, None, *found)


def can_record(model: AnySegmenter) -> TypeGuard[Yolact]:
    """Tell whether a model is on a device that can record, and has fixed shapes."""
    return model.device.type == "cuda" and model.fixed_shapes


def record_forward_backward(network: nn.Module, x: Tensor) -> ForwardBackwardGraph:
    """Record a network on an NVIDIA GPU, in the precision of the context.

    Args:
        network: in training mode.
        x: (B, 3, S, S), an example input.
    """
    x = x.clone()
    parameters = [each for each in network.parameters() if each.requires_grad]
    forward, backward = torch.cuda.CUDAGraph(), torch.cuda.CUDAGraph()

    def gradients(seeds: Sequence[Tensor]) -> tuple[Tensor | None, ...]:
        learned = [each for each in outputs if each is not None and each.requires_grad]
        return torch.autograd.grad(learned, parameters, seeds, allow_unused=True)

    with recording(x.device, try_algorithms=False), _uncached():  # trials would take a minute
        for _ in range(WARM_UPS):
            outputs = network(x)
            learned = [each is not None and each.requires_grad for each in outputs]
            seeds = [torch.zeros_like(each) for each in compress(outputs, learned)]
            gradients(seeds)
        with capture(forward):
            outputs = network(x)
        with capture(backward, beside=forward):
            found = gradients(seeds)
    torch.cuda.empty_cache()  # of the warm-up
    # With their history, the outputs would keep autograd nodes that belong to the other stream.
    outputs = Predictions._make(None if each is None else each.detach() for each in outputs)
    return ForwardBackwardGraph(
        x, outputs, learned, forward.replay, seeds, parameters, found, backward.replay
    )


def _uncached() -> AbstractContextManager[object]:
    """Disable autocast's weight cache, so that each recording converts the weights itself."""
    return torch.autocast(
        "cuda",
        dtype=torch.get_autocast_dtype("cuda"),
        enabled=torch.is_autocast_enabled("cuda"),
        cache_enabled=False,
    )
