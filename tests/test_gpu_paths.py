"""What runs on a GPU after and around the network, on the CPU and on the meta device.

Nothing on the meta device has a value: what asks for one fails, as a GPU would be waited for.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from gpu import pixels
from gpu.report import Report

META, CPU = torch.device("meta"), torch.device("cpu")
PARTS = ("boxes", "scores", "labels", "coefficients")
CHECKS = [value for name, value in vars(pixels).items() if name.startswith("check_")]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_the_checks_of_a_gpu(check: Callable[[torch.device, Report], None]) -> None:
    try:
        check(CPU, Report())
    except pixels.NotHere:
        pytest.skip("for CUDA")
