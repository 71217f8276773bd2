"""Hundreds of objects in an image of 3840 x 2160 pixels take megabytes, not gigabytes.

In a process of its own, whose peak of memory is not that of other tests.
"""

import subprocess
import sys
from pathlib import Path

import pytest

MEMORY = """
import resource, sys
import numpy as np, torch
from layers import native
from yolact.results.detections import Detections
from yolact.drawing.detections import draw_detections

kernel, count = sys.argv[1] == "kernel", int(sys.argv[2])
if not kernel:
    native.load_kernels = lambda: None
image = np.full((2160, 3840, 3), 9, np.uint8)
soft = torch.zeros(count, 138, 138)
soft[:, 60:70, 60:70] = 1
soft[:2] = 1  # the whole image
frames = torch.tensor([0.0, 0.0, 3840.0, 2160.0]).expand(count, 4)
scores = torch.ones(count)
found = Detections(frames, scores, scores.long(), soft, frames, scores, (2160, 3840))

def peak():  # in MiB; Linux counts in KiB, macOS in bytes
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit

before = peak()
draw_detections(image, found)
for i in range(count):
    found.crop(i)
    found.run_lengths(i)
print(peak() - before)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no resource module")
@pytest.mark.slow
@pytest.mark.parametrize(("path", "count"), [("kernel", 1000), ("torch", 10)])
def test_memory_of_large_images(path: str, count: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, path, str(count)],
        cwd=Path(__file__).parent.parent, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert float(done.stdout) < 300
