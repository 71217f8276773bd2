"""The network with PyTorch: batch norm folded, weights cast, optionally compiled."""

from __future__ import annotations

import copy
import logging
import threading
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache, partial
from typing import Any, get_args

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from data.problems import first_line
from layers.anchors import AnchorGenerator
from layers.blocks import DeformableConv2d
from yolact.errors import OptionError

from .graphs import FixedAnchors, GraphedNetwork, recorder_for
from .names import Engine, Precision, RunNetwork

logger = logging.getLogger(__name__)

# Exact types, as subclasses may do more; timm's by name, as timm is slow to load.
_CONVOLUTIONS = (nn.Conv2d, DeformableConv2d, "timm.layers.conv2d_same.Conv2dSame")
_NORMS = (nn.BatchNorm2d, "timm.layers.norm_act.BatchNormAct2d")  # the latter with an activation
_MERGING = ("fuse", "reparameterize", "switch_to_deploy")  # methods of timm's blocks with branches
_PROBE_SIDE = 64
_FOLD_TOLERANCE = 1e-3  # of the largest value; folding rounds differently


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager[object]:
    """Return the context in which PyTorch computes in a precision, including backward passes.

    Args:
        device: where it computes.
        precision: "auto" is PyTorch's default: float32, with TF32 convolutions on NVIDIA GPUs;
            "float32" is without TF32, inside the context. Losses and boxes are always float32.

    Raises:
        OptionError: unknown precision, or one that the device does not support.
    """
    if precision not in get_args(Precision):
        raise OptionError("precision", precision, f"expected {', '.join(get_args(Precision))}")
    if precision == "float32" and device.type == "cuda":
        return _tf32().off()
    if precision in ("auto", "float32"):
        return nullcontext()
    if precision == "float16" and device.type == "cpu":
        raise OptionError("precision", precision, "not on a CPU; use bfloat16 or float32")
    return torch.autocast(device.type, dtype=getattr(torch, precision))


class _Tf32:
    """cuDNN's switch for TF32, which is global to the process and shared by its threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._before = True

    @contextmanager
    def off(self) -> Iterator[None]:
        """Switch TF32 off; the last thread to leave restores the original value."""
        with self._lock:
            if not self._users:
                self._before = torch.backends.cudnn.allow_tf32
            self._users += 1
            torch.backends.cudnn.allow_tf32 = False
        try:
            yield
        finally:
            with self._lock:
                self._users -= 1
                if not self._users:
                    torch.backends.cudnn.allow_tf32 = self._before


@cache
def _tf32() -> _Tf32:
    return _Tf32()


def memory_format_of(device: torch.device) -> torch.memory_format:
    """Return the layout in which convolutions are fast; on Apple's GPUs, the one that is right.

    Channels last gives wrong gradients there, or ends the process (pytorch#175189, #175190).
    """
    return torch.contiguous_format if device.type == "mps" else torch.channels_last


def run_in_precision(network: nn.Module, engine: Engine, x: object) -> object:
    """Run a network unmodified, in the engine's precision."""
    with autocast(engine.device, engine.precision):
        return network(x)


def optimise(network: nn.Module, engine: Engine, image_size: int) -> RunNetwork:
    """Return a function that runs an optimised copy of a network, unaffected by later changes.

    Args:
        network: of a model in evaluation mode, on the engine's device.
        engine: "eager" or "compile".
        image_size: S.

    Raises:
        OptionError: it cannot be compiled here.
    """
    frozen = inference_copy(network, engine.precision)
    if engine.name == "compile":
        _fix_anchors(frozen, engine, image_size)
        return CompiledNetwork(frozen, engine, image_size)
    run = partial(_run_frozen, frozen, engine)
    if recorder_for(engine.device, engine.precision) and _fix_anchors(frozen, engine, image_size):
        return _recorded(run, run, engine, image_size)
    return run


class CompiledNetwork:
    """A network compiled by `torch.compile`; when unpickled, it is compiled again.

    Args:
        frozen: from `inference_copy`.
        engine: where it runs.
        image_size: S.

    Raises:
        OptionError: it cannot be compiled here.
    """

    def __init__(self, frozen: nn.Module, engine: Engine, image_size: int) -> None:
        self._made_of = (frozen, engine, image_size)
        run = partial(_run_frozen, _compiled(frozen, engine.device), engine)
        try:
            run(_blank(engine, image_size))
        except Exception as error:  # compilers fail in many ways
            reason = f"{first_line(error)}; it needs a C++ compiler, or Triton on a GPU"
            raise OptionError("engine", engine.name, reason) from None
        self.run = _recorded(run, partial(_run_frozen, frozen, engine), engine, image_size)

    def __call__(self, x: object) -> object:
        """Predict."""
        return self.run(x)

    def __reduce__(self) -> tuple[type[CompiledNetwork], tuple[nn.Module, Engine, int]]:
        return CompiledNetwork, self._made_of


def warm_up_graphs(run: RunNetwork) -> None:
    """Record single images now, if the network from `optimise` is recorded at all."""
    run = run.run if isinstance(run, CompiledNetwork) else run
    if isinstance(run, GraphedNetwork):
        run.warm_up()


def _recorded(
    run: RunNetwork, unrecorded: RunNetwork, engine: Engine, image_size: int
) -> RunNetwork:
    """Return a network that records itself if its device can; else the network."""
    recorder = recorder_for(engine.device, engine.precision)
    if recorder is None:
        return run
    return GraphedNetwork(run, unrecorded, recorder, _blank(engine, image_size))


def _fix_anchors(frozen: nn.Module, engine: Engine, image_size: int) -> bool:
    """Fix the anchors of S x S images; return whether the network is one-stage and has them."""
    anchors = getattr(frozen, "anchors", None)
    if not isinstance(anchors, AnchorGenerator):
        return False
    frozen.anchors = FixedAnchors(anchors)
    _run_frozen(frozen, engine, _blank(engine, image_size))
    return True


def _blank(engine: Engine, image_size: int) -> Tensor:
    return torch.zeros((1, 3, image_size, image_size), device=engine.device)


def _run_frozen(frozen: RunNetwork, engine: Engine, x: object) -> object:
    if isinstance(x, Tensor):
        x = x.contiguous(memory_format=memory_format_of(engine.device))
    with torch.no_grad(), autocast(engine.device, engine.precision):
        return frozen(x)


def inference_copy(network: nn.Module, precision: Precision) -> nn.Module:
    """Copy a network for inference: batch norm folded, convolutions in their final type."""
    frozen = copy.deepcopy(merge_branches(network)).eval().requires_grad_(False)
    for name, backbone in frozen.named_children():
        if name == "backbone":  # nothing else has batch norm
            frozen.backbone = fold_batch_norm(backbone)
    if precision != "float32":  # saves autocast from converting the weights at every call
        for module in frozen.modules():
            if type(module) is nn.Conv2d:
                module.to(getattr(torch, precision))
    return frozen.to(memory_format=memory_format_of(next(frozen.parameters()).device))


def merge_branches(network: nn.Module) -> nn.Module:
    """Merge parallel branches that are summed, as in RepVGG, into one convolution each.

    Args:
        network: in evaluation mode; not changed, and returned itself if it has no such branches.
    """
    if not any(hasattr(module, way) for module in network.modules() for way in _MERGING):
        return network
    from timm.utils.model import reparameterize_model  # it was loaded for the backbone, slowly

    return reparameterize_model(network)


def fold_batch_norm(backbone: nn.Module) -> nn.Module:
    """Fold plain batch norms into the plain convolutions right before them.

    Children do not show what a module does between them, so the outputs for random images are
    compared; if they differ, or cannot be computed, the original backbone is returned.

    Args:
        backbone: (B, 3, h, w) -> tensors, in evaluation mode; not changed.
    """
    folded = copy.deepcopy(backbone)
    for parent in list(folded.modules()):
        children: list[tuple[str, Any]] = list(parent.named_children())
        for (name, conv), (norm_name, norm) in zip(children, children[1:], strict=False):
            if _is_one_of(_NORMS, norm) and _is_one_of(_CONVOLUTIONS, conv):
                setattr(parent, name, fuse_conv_bn_eval(conv, norm))
                setattr(parent, norm_name, getattr(norm, "act", nn.Identity()))
    try:
        if _same_outputs(backbone, folded):
            return folded
        reason = "this backbone does not apply it where it stands"
    except Exception as error:  # a backbone for one input size, for example
        reason = f"the comparison failed: {error}"
    logger.warning("batch norm is not folded: %s", reason)
    return backbone


def _is_one_of(kinds: tuple[type[nn.Module] | str, ...], module: Any) -> bool:
    kind = type(module)
    return kind in kinds or f"{kind.__module__}.{kind.__qualname__}" in kinds


@torch.no_grad()
def _same_outputs(module: nn.Module, other: nn.Module) -> bool:
    parameter = next(module.parameters(), torch.empty(0))
    generator = torch.Generator().manual_seed(0)
    x = torch.randn((1, 3, _PROBE_SIDE, _PROBE_SIDE), generator=generator).to(parameter)
    with autocast(parameter.device, "float32"):
        pairs = list(zip(_tensors(module(x)), _tensors(other(x)), strict=True))
    if not all(a.isfinite().all() for a, _ in pairs):  # sync: once, before any image
        raise FloatingPointError("the outputs for random images are not finite")
    return all(
        (a - b).abs().max() <= _FOLD_TOLERANCE * a.abs().max().clamp(min=1e-6) for a, b in pairs
    )


def _tensors(outputs: object) -> list[Tensor]:
    """Return the tensors of a tensor, a sequence of them, or a dict."""
    if isinstance(outputs, Tensor):
        return [outputs]
    values = outputs.values() if isinstance(outputs, Mapping) else outputs
    return [tensor for value in values for tensor in _tensors(value)]  # type: ignore[attr-defined]


def _compiled(network: RunNetwork, device: torch.device) -> RunNetwork:
    if device.type == "cuda":  # recorded by us, as Inductor's own graphs belong to one thread
        return torch.compile(network, dynamic=False, options={"triton.cudagraphs": False})
    return torch.compile(network, options={"freezing": True})
