"""Generate a small COCO-style dataset of simple objects, and a video of them in motion.

Example:
  python scripts/make_shapes.py /tmp/shapes --train=200 --val=50 --video
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from data.shapes.clip import export_clip, shape_clip
from data.shapes.scenes import export_coco, shapes_split
from yolact.cli.common import add_flags, at_least, flag, make_parser, run_command

CLIP_FRAMES, CLIP_FPS, CLIP_HW = 150, 25.0, (480, 480)


def main(argv: Sequence[str] | None = None) -> None:
    """Write both splits, and the video if wanted; print the path of each result."""
    parser = make_parser("make_shapes.py", __doc__)
    parser.add_argument("out", type=Path, help="folder to write; created if absent")
    add_flags(
        parser,
        "options",
        (
            flag("--train", "number of training scenes", int, 200),
            flag("--val", "number of validation scenes", int, 50),
            flag("--image_size", "side of the images in pixels", int, 256),
            flag("--video", "write clip.mp4 as well", bool),
            flag("--seed", "seed of the scenes", int, 0),
        ),
    )
    args = parser.parse_args(argv)
    at_least(args, train=0, val=0, image_size=16, seed=0)
    splits = {
        "train": shapes_split("train", args.train, args.image_size, args.seed),
        "val": shapes_split("val", args.val, args.image_size, args.seed),
    }
    for split, dataset in splits.items():
        print(f"{split}: {len(dataset)} scenes ...", file=sys.stderr)
        annotations = export_coco(dataset, args.out, split)
        print(f"{split} images: {args.out / split}")
        print(f"{split} annotations: {annotations}")
    if args.video:
        print(f"video: {CLIP_FRAMES} frames ...", file=sys.stderr)
        clip = args.out / "clip.mp4"
        export_clip(clip, shape_clip(CLIP_FRAMES, CLIP_HW, args.seed), CLIP_FPS)
        print(f"video: {clip}")


if __name__ == "__main__":
    raise SystemExit(run_command(main))
