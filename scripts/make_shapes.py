"""Generate a small COCO-style dataset of simple objects, and a video of them in motion.

python scripts/make_shapes.py /tmp/shapes --train 200 --val 50 --video
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from data.shapes.clip import export_clip, shape_clip
from data.shapes.scenes import export_coco, shapes_split

CLIP_FRAMES = 150
CLIP_FPS = 25.0


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line; wrong usage exits with 2."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("out", type=Path, help="folder to write; made if absent")
    parser.add_argument("--train", type=int, default=200, help="training scenes (%(default)s)")
    parser.add_argument("--val", type=int, default=50, help="validation scenes (%(default)s)")
    parser.add_argument("--image_size", type=int, default=256, help="side in pixels (%(default)s)")
    parser.add_argument("--video", action="store_true", help="write clip.mp4 as well")
    parser.add_argument("--seed", type=int, default=0, help="another seed, other scenes")
    args = parser.parse_args(argv)
    for name, least in (("train", 0), ("val", 0), ("image_size", 16), ("seed", 0)):
        if getattr(args, name) < least:
            parser.error(f"--{name} is {getattr(args, name)}; it must be at least {least}")
    return args


def make_shapes(args: argparse.Namespace) -> None:
    """Write what the command line asks for; name each result on standard output."""
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
        export_clip(clip, shape_clip(CLIP_FRAMES, (480, 480), args.seed), CLIP_FPS)
        print(f"video: {clip}")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    args = parse_args(argv)
    try:
        make_shapes(args)
    except OSError as error:
        print(f"make_shapes: error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
