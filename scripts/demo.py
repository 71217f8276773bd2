"""Score the bundled model, segment a generated image and a generated video, measure the speed."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

FOLDER = Path("results/demo")
SHOWN = "--score_threshold=0.3 --top_k=15"

STEPS = (
    (
        "generate scenes and a clip",
        f"scripts/make_shapes.py {FOLDER} --train=0 --val=4 --image_size=512 --video",
    ),
    ("score the bundled model on 500 scenes that it has never seen", "eval.py --no_bar"),
    ("segment an image", f"eval.py {SHOWN} --image={FOLDER}/val/000001.jpg:{FOLDER}/image.png"),
    ("segment a video", f"eval.py {SHOWN} --video={FOLDER}/clip.mp4:{FOLDER}/video.mp4"),
    ("measure the speed of each stage", "eval.py --benchmark --max_images=50"),
)


def main() -> int:
    """Run the steps, each as a user would type it."""
    for title, command in STEPS:
        print(f"\n# {title}\n$ python {command}", flush=True)
        code = subprocess.run([sys.executable, *shlex.split(command)], check=False).returncode
        if code:
            print(f"error: this step failed with exit code {code}", file=sys.stderr)
            return code
    print(f"\nThe pictures are in {FOLDER}: image.png and video.mp4")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
