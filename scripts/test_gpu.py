"""Check and measure everything on this machine's GPU, or what its CPU can run.

Needs a checkout and torch, torchvision, numpy, OpenCV, pillow, tqdm and matplotlib; checks that
need more are skipped and reported. The checks are in tests/gpu; gpu.json and gpu.txt hold the
findings.

Examples:
  python scripts/test_gpu.py                          the first GPU
  python scripts/test_gpu.py --device=mps --minutes=3
  python scripts/test_gpu.py --only=goldens,faults
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path


def main(argv: Sequence[str] | None = None) -> int:
    """Run the checks; return 0 if none failed, else 1."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
    return int(import_module("gpu.run").main(__doc__, argv))


if __name__ == "__main__":
    raise SystemExit(main())
