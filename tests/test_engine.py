from contextlib import nullcontext

import pytest
import torch

from yolact.engine import Precision, autocast, pick_device

CPU = torch.device("cpu")


def machine(monkeypatch: pytest.MonkeyPatch, cuda: int = 0, mps: bool = False) -> None:
    """Pretend to have so many GPUs."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)


@pytest.mark.parametrize(
    ("cuda", "mps", "name", "expected"),
    [
        (0, False, "auto", "cpu"),
        (0, False, "cpu", "cpu"),
        (0, True, "auto", "mps"),
        (0, True, "mps", "mps"),
        (1, False, "auto", "cuda"),
        (2, True, "auto", "cuda"),
        (2, True, "cpu", "cpu"),
        (2, False, "cuda", "cuda"),
        (2, False, "cuda:0", "cuda:0"),
        (2, False, "cuda:1", "cuda:1"),
    ],
)
def test_pick_device(
    monkeypatch: pytest.MonkeyPatch, cuda: int, mps: bool, name: str, expected: str
) -> None:
    machine(monkeypatch, cuda, mps)
    assert pick_device(name) == torch.device(expected)


@pytest.mark.parametrize(
    ("cuda", "name", "choices"),
    [
        (0, "", "auto, cpu"),
        (0, "cuda", "auto, cpu"),
        (0, "cuda:0", "auto, cpu"),
        (0, "mps", "auto, cpu"),
        (0, "gpu", "auto, cpu"),
        (0, "CPU", "auto, cpu"),
        (0, "cpu:1", "auto, cpu"),
        (0, "cpu:", "auto, cpu"),
        (0, "meta", "auto, cpu"),
        (2, "cuda:", "auto, cuda, cpu"),
        (2, "cuda:2", "auto, cuda, cpu"),
        (2, "cuda:-1", "auto, cuda, cpu"),
        (2, "cuda:one", "auto, cuda, cpu"),
        (2, "cuda:\u00b2", "auto, cuda, cpu"),  # isdigit, but no number
        (2, "auto:0", "auto, cuda, cpu"),
    ],
)
def test_devices_that_are_not_there(
    monkeypatch: pytest.MonkeyPatch, cuda: int, name: str, choices: str
) -> None:
    machine(monkeypatch, cuda)
    with pytest.raises(
        ValueError, match=f"--device {name}: not on this machine; there is {choices}$"
    ):
        pick_device(name)


@pytest.mark.parametrize("precision", ["auto", "float32"])
def test_full_precision_is_no_context(precision: Precision) -> None:
    assert isinstance(autocast(CPU, precision), nullcontext)
    assert isinstance(autocast(torch.device("cuda"), precision), nullcontext)


@pytest.mark.parametrize(
    ("precision", "dtype"),
    [("auto", torch.float32), ("float32", torch.float32), ("bfloat16", torch.bfloat16)],
)
def test_autocast_on_the_cpu(precision: Precision, dtype: torch.dtype) -> None:
    with autocast(CPU, precision):
        assert torch.nn.functional.linear(torch.ones(1, 2), torch.ones(3, 2)).dtype == dtype


def test_half_precision_needs_a_gpu() -> None:
    with pytest.raises(
        ValueError, match="--precision float16: not on a CPU; use bfloat16 or float32"
    ):
        autocast(CPU, "float16")


@pytest.mark.parametrize("precision", ["", "half", "float64", "FLOAT32"])
def test_unknown_precision(precision: Precision) -> None:
    with pytest.raises(ValueError, match="expected auto, float32, bfloat16, float16"):
        autocast(CPU, precision)
