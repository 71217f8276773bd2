"""Several processes as one, as `torchrun` starts them; in a single process, nothing has effect."""

from __future__ import annotations

import os
import tempfile
import time
from contextlib import AbstractContextManager, ExitStack, nullcontext
from pathlib import Path
from typing import TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from layers.sync_batch_norm import mean_of_processes, synchronise_batch_norm

from .errors import UsageError

_PATIENCE = 5.0  # seconds to wait for a file of another machine

T = TypeVar("T")


def init_process(device: torch.device) -> torch.device:
    """Join the process group, if `torchrun` started this process, even if alone.

    Args:
        device: the user's device.

    Returns:
        The device of this process: with CUDA, its own GPU.

    Raises:
        ValueError: not enough GPUs for the processes of this machine.
    """
    started = dist.is_available() and "RANK" in os.environ and dist.is_torchelastic_launched()
    if is_joined() or (int(os.environ.get("WORLD_SIZE", 1)) == 1 and not started):
        return device
    from torch.distributed.distributed_c10d import PrefixStore
    from torch.distributed.rendezvous import rendezvous

    if device.type == "cuda":
        device = local_gpu(int(os.environ["LOCAL_RANK"]), torch.cuda.device_count())
        torch.cuda.set_device(device)
    store, number, size = next(rendezvous("env://"))
    # After a restart, the store still has the addresses of the killed processes.
    store = PrefixStore(f"restart {restarts()}", store)
    dist.init_process_group(backend_for(device), store=store, rank=number, world_size=size)
    return device


def is_joined() -> bool:
    """Tell whether this process has joined others, which not every build of PyTorch can."""
    return dist.is_available() and dist.is_initialized()


def local_gpu(local: int, gpus: int) -> torch.device:
    """Return the GPU of a process of this machine, by its number among them.

    Raises:
        ValueError: not enough GPUs.
    """
    if local >= gpus:
        raise ValueError(
            f"process {local + 1} on this machine has no GPU of its own: "
            f"start at most --nproc-per-node={gpus}"
        )
    return torch.device("cuda", local)


def backend_for(device: torch.device) -> str:
    """Return what carries tensors of a device from process to process; Windows has no NCCL."""
    return "nccl" if device.type == "cuda" and dist.is_nccl_available() else "gloo"


def shut_down() -> None:
    """Part from the other processes."""
    if is_joined():
        dist.destroy_process_group()


def rank() -> int:
    """Return the number of this process, from 0."""
    return dist.get_rank() if is_joined() else 0


def world_size() -> int:
    """Count the processes."""
    return dist.get_world_size() if is_joined() else 1


def is_secondary() -> bool:
    """Tell, even before joining, whether another process is the one that logs and writes files."""
    return int(os.environ.get("RANK", 0)) > 0


def run_name() -> str:
    """Return `torchrun`'s name of the run, which is the same in all processes and after a restart.

    It is empty for a single process, or on several machines without --rdzv-id.
    """
    name = os.environ.get("TORCHELASTIC_RUN_ID", "none")
    return "" if name == "none" else name


def restarts() -> int:
    """Return how often `torchrun` has restarted all processes after one of them died."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0))


def wrap_parallel(model: nn.Module, *, unused_parameters: bool = False) -> nn.Module:
    """Share gradients and batch statistics with the other processes' copies of a model.

    Args:
        model: on its device, equal in all processes.
        unused_parameters: whether some parameters may not contribute to a batch's losses.

    Returns:
        A module to call for the losses; the model itself if there are no other processes.
    """
    if not is_joined():
        return model
    synchronise_batch_norm(model)
    return DistributedDataParallel(model, find_unused_parameters=unused_parameters)


def gradient_sync(model: object, now: bool) -> AbstractContextManager[object]:
    """Return the context of a backward pass that shares gradients `now`, or leaves it for later."""
    if isinstance(model, DistributedDataParallel) and not now:
        return model.no_sync()
    return nullcontext()


def all_reduce_mean(values: Tensor) -> Tensor:
    """Average a tensor over the processes."""
    return mean_of_processes(values) if is_joined() else values


def any_process(flag: bool) -> bool:
    """Tell whether any of the processes says yes."""
    if not is_joined():
        return flag
    device = "cuda" if dist.get_backend() == "nccl" else "cpu"
    return bool(all_reduce_mean(torch.tensor(float(flag), device=device)) > 0)


def check_shared_folder(folder: Path) -> None:
    """Check that all processes see the same folder, by a file that the first one writes there.

    Args:
        folder: where the first process saves, and all look for checkpoints; created if absent.

    Raises:
        UsageError: the machines do not share the folder; raised in all processes.
        OSError: the folder cannot be written to; raised in the first process.
    """
    if world_size() == 1:
        return
    with ExitStack() as stack:
        name = ""
        if rank() == 0:
            folder.mkdir(parents=True, exist_ok=True)
            file = stack.enter_context(tempfile.NamedTemporaryFile(prefix=".shared.", dir=folder))
            name = Path(file.name).name
        name = all_gather(name)[0]
        blind = [
            number for number, sees in enumerate(all_gather(_appears(folder / name))) if not sees
        ]
    if blind:
        raise UsageError(
            f"--save_folder={folder}: of {world_size()} processes, {len(blind)} do not see there "
            "what the first one saves; give a folder that all machines share"
        )


def _appears(path: Path) -> bool:
    """Wait for a file, which another machine may see a little later."""
    until = time.monotonic() + _PATIENCE
    while not path.exists():
        if time.monotonic() > until:
            return False
        time.sleep(0.1)
    return True


def all_gather(value: T) -> list[T]:
    """Collect a value of every process, by rank, in all of them."""
    if not is_joined():
        return [value]
    values: list[T | None] = [None] * world_size()
    dist.all_gather_object(values, value)
    return cast("list[T]", values)
