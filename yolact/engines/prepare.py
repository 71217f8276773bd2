"""A network made ready to run as decided: for single images, or for many at a time."""

from __future__ import annotations

from torch import nn

from .choose import has_openvino
from .names import Engine, RunNetwork
from .pytorch import in_precision, optimise


def prepare(network: nn.Module, engine: Engine, image_size: int) -> RunNetwork:
    """Return a function that runs a network as decided.

    The weights are taken as they are now: later changes of the network do not count (but for
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
        return in_precision(network, engine) if engine.device.type == "cuda" else network
    return optimise(network, engine, image_size)


def warm_up(run: RunNetwork) -> None:
    """Do now what a network from `prepare` leaves to its first call."""
    if has_openvino():
        from .openvino import OpenVinoNetwork

        if isinstance(run, OpenVinoNetwork):
            run.compile()


def for_many(run: RunNetwork) -> tuple[RunNetwork, int]:
    """Prepare a network for many images, when the time of a single one does not matter.

    Processor cores that each work on an image of their own need not wait for one another at every
    layer.

    Args:
        run: from `prepare`, or an exported file's.

    Returns:
        A function that predicts the same, and how many threads should call it at a time.
    """
    if has_openvino():
        from .openvino import OpenVinoNetwork

        if isinstance(run, OpenVinoNetwork):
            return run.streamed, run.streamed.workers
    return run, 1
