"""The index keeps no objects, and stays flat in the workers of a loader."""

from __future__ import annotations

import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from yolact.cli.common import run_command

SCRIPT = Path(__file__).parents[1] / "scripts" / "bench_index.py"


@pytest.mark.slow
def test_workers_stay_flat() -> None:
    flags = ["--images=2000", "--annotations=40000", "--workers=2", "--passes=2"]
    done = subprocess.run(
        [sys.executable, SCRIPT, "shapes", *flags], capture_output=True, text=True, check=True
    )
    assert done.stdout.count("40,000 objects") == 3
    private = [int(text) for text in re.findall(r"(\d+) MB private", done.stdout)]
    if sys.platform == "linux":
        assert len(private) == 3
        assert private[2] - private[0] < 10  # lists and dicts would have been copied: 36


def test_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    main = runpy.run_path(str(SCRIPT))["main"]
    assert run_command(main, ["shapes", "--passes=0"]) == 2
    assert "--passes=0: expected at least 1" in capsys.readouterr().err
