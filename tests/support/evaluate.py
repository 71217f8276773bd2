"""eval.py, run as a user would."""

from __future__ import annotations

from pathlib import Path

import eval as eval_script
from data.shapes.clip import export_clip, shape_clip
from yolact.cli.common import run_command

from .tiny import make_dataset, save_tiny

main = eval_script.main


def make_place(folder: Path) -> Path:
    make_dataset(folder / "scenes")
    save_tiny(folder / "tiny.pth")
    export_clip(folder / "clip.mp4", shape_clip(5, (48, 64)))
    return folder


def evaluate(*flags: str) -> int:
    """Return the exit code, in the folder `evaluation_place`."""
    shared = ["--trained_model=tiny.pth", "--dataset=scenes", "--device=cpu"]
    return run_command(main, [*shared, *flags])
