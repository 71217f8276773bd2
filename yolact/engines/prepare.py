"""Prepare a network to run on the chosen engine: for single images, or for many at a time."""

from __future__ import annotations

import os
from functools import cache, partial
from typing import TYPE_CHECKING

import torch
from torch import nn

from .choose import has_openvino
from .names import Engine, RunNetwork
from .pytorch import optimise, run_in_precision, warm_up_graphs

if TYPE_CHECKING:
    from .openvino import OpenVinoNetwork


def prepare(network: nn.Module, engine: Engine, image_size: int) -> RunNetwork:
    """Return a function that runs a network on the chosen engine, and can be pickled.

    The current weights are copied: later changes of the network have no effect (except with
    "plain", which runs the network itself).

    Args:
        network: of a model in evaluation mode, on the engine's device.
        engine: from `choose_engine`.
        image_size: S.

    Raises:
        OptionError: it cannot be compiled here.
    """
    if engine.name == "openvino":
        from .openvino import OpenVinoNetwork, convert_cached

        return OpenVinoNetwork(convert_cached(network, image_size), engine.precision)
    if engine.name == "plain":
        on_cuda = engine.device.type == "cuda"
        return partial(run_in_precision, network, engine) if on_cuda else network
    return optimise(network, engine, image_size)


def warm_up(run: RunNetwork) -> None:
    """Do now what a network from `prepare` does at its first call."""
    if network := _of_openvino(run):
        network.compile()
    warm_up_graphs(run)


def for_many(run: RunNetwork) -> tuple[RunNetwork, int]:
    """Prepare a network for throughput, if the latency of a single image does not matter.

    Processor cores that each work on their own image need not wait for one another at every layer.

    Args:
        run: from `prepare`, or an exported file's.

    Returns:
        A function that predicts the same, and how many threads should call it at a time.
    """
    if network := _of_openvino(run):
        return network.streamed, network.streamed.workers
    return run, 1


def run_here(run: RunNetwork | None = None, made_in: int | None = None) -> None:
    """Refuse a network that would wait for ever for threads that only the parent process has.

    After a fork, an OpenVINO network does so if it was made in the parent, and any network if
    PyTorch has more than one thread.

    Args:
        run: the network.
        made_in: the process that made it; None for this one.

    Raises:
        RuntimeError: the process was forked from one where this was called.
    """
    is_forked = _process_with_threads() != os.getpid()
    is_inherited = made_in not in (None, os.getpid())
    if is_forked and (torch.get_num_threads() > 1 or (is_inherited and _of_openvino(run))):
        raise RuntimeError(
            "this process was forked after a predictor was made, and lacks its threads; "
            "start it by multiprocessing.get_context('spawn')"
        )


@cache
def _process_with_threads() -> int:
    """Return the id of the first process that calls this; processes forked later inherit it."""
    return os.getpid()


def _of_openvino(run: RunNetwork | None) -> OpenVinoNetwork | None:
    if run is None or not has_openvino():
        return None
    from .openvino import OpenVinoNetwork

    return run if isinstance(run, OpenVinoNetwork) else None
