"""Runs checks one after another, each as if it were the only one, and writes down each outcome.

A process of its own, started by `run.py`, which survives what happens here.
"""

from __future__ import annotations

import gc
import json
import random
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime, timezone
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from yolact.engines.choose import pick_device
from yolact.errors import OptionError
from yolact.timing import synchronize
from yolact.training.setup import avoid_faulty_kernels

from .report import NotHere, Outcome, Report

Check = Callable[[torch.device, Report], None]

HERE = Path(__file__).parent
WRONG_USAGE = 2
_FLAGS = (
    (torch.backends.cuda.matmul, "allow_tf32"),
    (torch.backends.cudnn, "allow_tf32"),
    (torch.backends.cudnn, "benchmark"),
    (torch.backends.cudnn, "deterministic"),
)


def main(arguments: Sequence[str]) -> None:
    """Run what the JSON text in the only argument asks for, see `run.py`."""
    asked = json.loads(arguments[0])
    try:
        device = pick_device(asked["device"])
    except OptionError as error:
        raise SystemExit(f"error: {error.on_command_line}") from None
    avoid_faulty_kernels()
    with Path(asked["file"]).open("a", encoding="utf-8") as file:

        def tell(what: str, value: object) -> None:
            file.write(json.dumps({what: value}) + "\n")
            file.flush()

        checks = find_checks(asked["package"], asked["modules"], asked["only"])
        known = [*checks, *(f"{module}.check_import" for module in asked["modules"])]
        for part in asked["only"]:
            if not any(part in name for name in known):
                print(f"error: --only={part}: no check has a name with it", file=sys.stderr)
                raise SystemExit(WRONG_USAGE)
        checks = {name: check for name, check in checks.items() if name not in asked["done"]}
        tell("machine", describe(device))
        tell("plan", list(checks))
        if device.type == "cpu" and not asked["done"]:
            print("no GPU:", "the CPU was asked for" if asked["device"] == "cpu" else "none found")
        for name, check in checks.items():
            tell("begun", name)
            outcome = run_check(name, check, device, asked["until"])
            print(outcome.line(), flush=True)
            tell("outcome", asdict(outcome))
            if outcome.status == "failed" and not is_usable(device):
                return  # the next process has a new context


def is_usable(device: torch.device) -> bool:
    """Tell whether a device still works: some errors of CUDA leave nothing usable behind."""
    try:
        synchronize(device)
    except RuntimeError:
        return False
    return True


def find_checks(package: str, modules: Iterable[str], only: Sequence[str] = ()) -> dict[str, Check]:
    """Find what there is to run: all checks, then all measurements, by name.

    Args:
        package: that holds the modules.
        modules: names; one that cannot be imported becomes a check that fails.
        only: parts of names; none for all.
    """
    found: dict[str, Check] = {}
    for module in modules:
        try:
            content = vars(import_module(f"{package}.{module}"))
        except Exception as error:
            found[f"{module}.check_import"] = partial(_raise, error)
            continue
        names = [name for name in content if name.startswith(("check_", "measure_"))]
        found |= {f"{module}.{name}": content[name] for name in names if callable(content[name])}
    names = sorted(found, key=is_measurement)  # a stable sort
    return {n: found[n] for n in names if not only or any(part in n for part in only)}


def is_measurement(name: str) -> bool:
    """Tell a measurement from a check by its name."""
    return ".measure_" in name


def run_check(name: str, check: Check, device: torch.device, until: float = np.inf) -> Outcome:
    """Run one check; nothing that it raises or leaves behind concerns the next.

    Args:
        name: of it.
        check: is run.
        device: where.
        until: measurements do not begin after this `time.time()`.
    """
    start = time.time()
    if is_measurement(name) and start > until:
        return Outcome(name, "skipped", message="no time left; --minutes gives more")
    report, failure = Report(), {}
    try:
        with clean_slate(device):
            check(device, report)
            synchronize(device)
    except NotHere as error:
        failure = {"status": "not here", "message": str(error)}
    except Exception as error:  # whatever it is, the others are still to come
        failure = {
            "status": "failed",
            "message": reason_of(error),
            "traceback": traceback.format_exc(),
        }
    outcome = {"status": "ok", **failure, "seconds": time.time() - start}
    return Outcome(
        name, **outcome, peak_mb=peak_mb(device), numbers=report.numbers, notes=report.notes
    )


def reason_of(error: Exception) -> str:
    """Say in one line what went wrong, and where a check said nothing."""
    lines = str(error).strip().splitlines()
    frame = traceback.extract_tb(error.__traceback__)[-1]
    where = f"{Path(frame.filename).name}:{frame.lineno}"
    if isinstance(error, AssertionError):
        return f"{lines[0]:.300}" if lines else f"{where}: {frame.line}"
    return f"{type(error).__name__}: {lines[0] if lines else ''} ({where})"


@contextmanager
def clean_slate(device: torch.device) -> Iterator[None]:
    """Begin with seeded random numbers and an empty card; put back what PyTorch keeps globally."""
    flags = [(owner, name, getattr(owner, name)) for owner, name in _FLAGS]
    before = (
        torch.get_default_dtype(),
        torch.get_num_threads(),
        torch.is_grad_enabled(),
        cv2.getNumThreads(),
        torch.are_deterministic_algorithms_enabled(),
    )
    for seed in (random.seed, np.random.seed, torch.manual_seed):  # noqa: NPY002
        seed(0)
    _clear(device)
    try:
        yield
    finally:
        for owner, name, value in flags:
            setattr(owner, name, value)
        torch.set_default_dtype(before[0])
        torch.set_num_threads(before[1])
        torch.set_grad_enabled(before[2])
        cv2.setNumThreads(before[3])
        torch.use_deterministic_algorithms(before[4])


def _clear(device: torch.device) -> None:
    if device.type == "cuda":
        gc.collect()
        torch.cuda.set_sync_debug_mode("default")
        torch.cuda.set_per_process_memory_fraction(1.0, device.index or 0)
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def peak_mb(device: torch.device) -> float:
    """Return the most memory that tensors took on a card."""
    if device.type != "cuda":
        return 0.0
    return torch.cuda.max_memory_allocated(device) / 2**20


def describe(device: torch.device) -> dict[str, Any]:
    """Say on what, with which versions, and when."""
    return {
        "device": str(device),
        **_card(device),
        "cpu_threads": torch.get_num_threads(),
        "python": sys.version.split()[0],
        "torch": torch.__version__,
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "commit": _commit(),
    }


def _card(device: torch.device) -> dict[str, Any]:
    if device.type != "cuda":
        return {}
    properties = torch.cuda.get_device_properties(device)
    return {
        "card": properties.name,
        "memory_gb": round(properties.total_memory / 2**30, 1),
        "capability": f"{properties.major}.{properties.minor}",
        "driver": _output("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"),
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
    }


def _commit() -> str | None:
    return _output("git", "-C", str(HERE), "rev-parse", "--short", "HEAD")


def _output(*command: str) -> str | None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip().splitlines()[0] if done.stdout.strip() else None


def _raise(error: Exception, device: torch.device, report: Report) -> None:
    raise error


if __name__ == "__main__":
    main(sys.argv[1:])
