"""The checks of this folder by pytest, where a GPU is asked for: `pytest -m gpu tests/gpu`."""

from __future__ import annotations

import pytest
import torch
from _pytest.mark.structures import ParameterSet

from yolact.engines.choose import pick_device
from yolact.timing import synchronize

from .report import NotHere, Report
from .run import MODULES
from .worker import Check, clean_slate, find_checks

pytestmark = pytest.mark.gpu


def everything() -> list[ParameterSet]:
    return [pytest.param(check, id=name) for name, check in find_checks("gpu", MODULES).items()]


@pytest.fixture(scope="session")
def device() -> torch.device:
    chosen = pick_device()
    if chosen.type == "cpu":
        pytest.skip("no GPU; scripts/test_gpu.py runs what the CPU can")
    return chosen


@pytest.mark.parametrize("check", everything())
def test_on_the_gpu(check: Check, device: torch.device) -> None:
    try:
        with clean_slate(device):
            check(device, Report())
            synchronize(device)
    except NotHere as absent:
        pytest.skip(str(absent))
