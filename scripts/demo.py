"""Segment a photograph and a video with the bundled models, score one, measure the speed.

The photograph is the portrait of Grace Hopper (US Navy, public domain) that comes with matplotlib;
the video is a camera's flight over it.
"""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import cv2
import matplotlib
import numpy as np

from data.images import read_image
from data.video.writer import VideoWriter
from yolact.cli.common import make_parser, run_command

ROOT = Path(__file__).resolve().parent.parent
FOLDER = Path("results/demo")
PORTRAIT = Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg"

STEPS = (
    ("segment a photograph", f"eval.py --image={FOLDER}/photo.jpg:{FOLDER}/image.png"),
    ("segment a video", f"eval.py --video={FOLDER}/clip.mp4:{FOLDER}/video.mp4"),
    (
        "score a model on 100 generated scenes that it has never seen",
        "eval.py --trained_model=yolact_resnet18_shapes --max_images=100",
    ),
    (
        "measure the speed of each stage",
        f"eval.py --benchmark --video={FOLDER}/clip.mp4 --max_images=50",
    ),
)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the steps as command lines."""
    make_parser("demo.py", __doc__).parse_args(argv)
    FOLDER.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(PORTRAIT, FOLDER / "photo.jpg")
    fly_over(FOLDER / "photo.jpg", FOLDER / "clip.mp4")
    for title, command in STEPS:
        print(f"\n# {title}\n$ python {command}", flush=True)
        script, *flags = shlex.split(command)
        run = [sys.executable, str(ROOT / script), *flags]
        if code := subprocess.run(run, check=False).returncode:
            raise ValueError(f"this step failed with exit code {code}")
    print(f"\nThe pictures are in {FOLDER}: image.png and video.mp4")


def fly_over(photo: Path, clip: Path, frames: int = 120) -> None:
    """Write a video of a camera that zooms in on a photograph and tilts left and right."""
    image = read_image(photo)
    height, width = image.shape[:2]
    with VideoWriter(clip, fps=30, image_hw=(height, width)) as writer:
        for time in np.linspace(0, 1, frames):
            center = (width / 2, height * (0.5 - 0.15 * time))
            angle = 4 * np.sin(2 * np.pi * time)
            turned = cv2.getRotationMatrix2D(center, angle, scale=1 + 0.6 * time)
            turned[:, 2] += np.subtract((width / 2, height / 2), center)
            frame = cv2.warpAffine(image, turned, (width, height), borderMode=cv2.BORDER_REFLECT)
            writer.write(frame.astype(np.uint8, copy=False))


if __name__ == "__main__":
    raise SystemExit(run_command(main))
