"""The scripts that kill runs at random moments, and watch the memory of long ones."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def run(script: str, *flags: str) -> list[list[str]]:
    """Run a script, and return the rows of its tables."""
    command = [sys.executable, str(ROOT / "scripts" / script), *flags]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return [re.findall(r"[^|]+", row) for row in re.findall(r"^\| \w.*\|$", done.stdout, re.M)]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="forks, and reads /proc")
@pytest.mark.parametrize("kind", ["training", "evaluation", "folder", "video"])
def test_kills_lose_nothing(kind: str) -> None:
    (row,) = run("bench_kills.py", "--kills=2", f"--only={kind}")[1:]
    name, kills, _, _, corrupt, lost, ended, equal = (cell.strip() for cell in row)
    assert (name, corrupt, lost) == (kind, "0", "0")
    assert int(kills) >= 2
    assert ended == equal != "0"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="forks, and reads /proc")
@pytest.mark.parametrize("flags", [("--images=20", "--minutes=0"), ("--images=0", "--minutes=1")])
def test_samples_of_a_process(flags: tuple[str, str]) -> None:
    rows = run("bench_memory.py", *flags, "--samples=2", "--side=48")[1:]
    numbers = [[float(cell) for cell in row] for row in rows]
    assert len(numbers) >= 2
    done = [row[0] for row in numbers]
    assert done == sorted(done)
    assert all(row[2] >= 1 and row[3] >= 3 and row[4] > 100 for row in numbers)
