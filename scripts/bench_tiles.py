"""Measure the accuracy and cost of tiles in large images, against one pass over the whole image.

The images are generated: shapes of all sizes, mostly small, scattered over clutter, with exact
masks. A far larger one is then written to a file, to see how much memory tiles take beside it.

Example:
  python scripts/bench_tiles.py --images=4 --huge=20000
"""

from __future__ import annotations

import math
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain, pairwise, product
from pathlib import Path

import numpy as np
from torch import Tensor

from data.annotations.as_coco import coco_index
from data.classes import SHAPE_CLASSES
from data.images import Image
from data.sample import Annotation
from data.shapes.large_scenes import large_scene
from layers.paste import bitmap
from yolact.cli.common import add_flags, flag, make_parser, run_command
from yolact.evaluation.coco import CocoEvaluator
from yolact.evaluation.metrics import Scores
from yolact.evaluation.speed import describe_machine
from yolact.predictor import Predictor
from yolact.results.detections import Detections
from yolact.results.thresholds import Thresholds
from yolact.tiles.matching import group_pieces
from yolact.tiles.merging import best_pieces, merge_masks
from yolact.tiles.pieces import Piece, pieces_of
from yolact.tiles.segment import Tiling, segment_tiled
from yolact.tiles.views import read_view

MODEL = "yolact_resnet18_shapes"
LARGEST = 10**6
SPANS = (0, 50, 100, 200, 400, LARGEST)  # borders of sizes, by the root of an object's area
EVERY = Thresholds(0.05)

Look = Callable[[Image], Detections]


def main(argv: Sequence[str] | None = None) -> None:
    """Print both tables."""
    parser = make_parser("bench_tiles.py", __doc__)
    add_flags(
        parser,
        "options",
        (
            flag("--images", "number of generated images to score", int, 4),
            flag("--side", "side of these images in pixels", int, 2048),
            flag("--tile", "side of a tile in pixels", int, 512),
            flag("--huge", "side of the far larger image in pixels; 0 for none", int, 20000),
        ),
    )
    args = parser.parse_args(argv)
    predictor = Predictor.from_checkpoint(MODEL)
    print(describe_machine(predictor.device))
    tiles, alone = Tiling(args.tile), Tiling(args.tile, overview=False)
    ways: dict[str, Look] = {
        "the whole at once": lambda image: predictor.segment([image], EVERY)[0],
        f"tiles of {args.tile}": lambda image: segment_tiled(predictor, image, alone, EVERY),
        "tiles and overview": lambda image: segment_tiled(predictor, image, tiles, EVERY),
    }
    kinds = {"small objects": args.tile // 4, "all sizes": args.side // 2} if args.images else {}
    for title, largest in kinds.items():
        sizes = (args.tile // 12, largest)
        scenes = [large_scene(args.side, sizes, seed) for seed in range(args.images)]
        print(f"\n{title}, {args.images} images of {args.side} px\n")
        print_scores(scenes, ways)
        print_loss(predictor, [image for image, _ in scenes], tiles)
    if args.huge:
        print_memory(predictor, args.huge)


def print_scores(scenes: Sequence[tuple[Image, list[Annotation]]], ways: dict[str, Look]) -> None:
    """Print recall by size, AP50 and AP of masks, and the time, of each way to look at images."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    found: dict[str, list[Detections]] = {name: [] for name in ways}
    for (image, _), (name, look) in product(scenes, ways.items()):  # in turn, for fair times
        start = time.perf_counter()
        found[name].append(look(image))
        seconds[name].append(time.perf_counter() - start)
    spans = [f"< {high}" if high < LARGEST else f">= {low}" for low, high in pairwise(SPANS)]
    print("| | " + " | ".join((*spans, "AP50", "AP", "objects", "s per image")) + " |")
    print("| --- " * (len(spans) + 5) + "|")
    for name in ways:
        scores = score(scenes, found[name])
        cells = [f"{recall(scores, low, high):.1f}" for low, high in pairwise(SPANS)]
        cells += [f"{scores.overlaps['50']:.1f}", f"{scores.overlaps['all']:.1f}"]
        cells += [str(sum(map(len, found[name]))), f"{statistics.median(seconds[name]):.1f}"]
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)


def score(scenes: Sequence[tuple[Image, list[Annotation]]], found: Sequence[Detections]) -> Scores:
    """Score masks, all of them, however many there are."""
    images = [
        {"id": number, "height": image.shape[0], "width": image.shape[1]}
        for number, (image, _) in enumerate(scenes)
    ]
    entries = chain.from_iterable(entries for _, entries in scenes)
    numbered = [{**entry, "id": number} for number, entry in enumerate(entries, start=1)]
    categories = SHAPE_CLASSES.to_coco_json()
    truth = coco_index({"images": images, "annotations": numbered, "categories": categories})
    evaluator = CocoEvaluator(truth, SHAPE_CLASSES.category_ids, limit=10_000)
    for number, detections in enumerate(found):
        evaluator.add(number, detections)
    return evaluator.summarize().mask


def recall(scores: Scores, low: float, high: float) -> float:
    """Return the share of objects of a size that are found at an overlap of .5, in percent."""
    objects = scores.matches.objects
    chosen = objects[(objects["area"] >= low**2) & (objects["area"] < high**2)]
    return 100 * float(np.mean(chosen["found_by"] > 0)) if len(chosen) else math.nan


def print_loss(predictor: Predictor, images: Sequence[Image], tiling: Tiling) -> None:
    """Print how much of the pixels of objects their common grid keeps."""
    print("\n| masks | of | least overlap with their pixels | mean |\n" + "| --- " * 4 + "|")
    of_images = [objects_in(predictor, image, tiling) for image in images]
    for side in (1000, 40, 28):
        kept: dict[bool, list[float]] = {False: [], True: []}
        for objects in of_images:
            masks = merge_masks(objects, len(objects) * side**2)
            for pieces, *mask in zip(objects, *masks, strict=True):
                kept[len(pieces) > 1].append(overlap(pieces, *mask))
        for is_joined, some in kept.items():
            some = some or [math.nan]
            title = f"{'joined' if is_joined else 'single'}, at most {side} cells a side"
            print(f"| {title} | {len(some)} | {min(some):.3f} | {statistics.mean(some):.3f} |")


def objects_in(predictor: Predictor, image: Image, tiling: Tiling) -> list[list[Piece]]:
    """Return the pieces that the mask of each object is made of."""
    image_hw = image.shape[0], image.shape[1]
    pieces = [
        piece
        for view in tiling.views(image_hw)
        for found in predictor.segment([read_view(image, view, tiling.side(image_hw))], EVERY)
        for piece in pieces_of(found, view, image_hw)
    ]
    return [best_pieces(group) for group in group_pieces(pieces)]


def overlap(pieces: Sequence[Piece], soft_mask: Tensor, frame: Tensor) -> float:
    """Return intersection over union of a mask and the pixels of its pieces."""
    corners = np.array([piece.window for piece in pieces])
    left, top = (int(side) for side in corners[:, :2].min(axis=0))
    right, bottom = (int(side) for side in corners[:, 2:].max(axis=0))
    pixels = np.zeros((bottom - top, right - left), np.bool_)
    for piece in pieces:
        x1, y1, x2, y2 = piece.window
        pixels[y1 - top : y2 - top, x1 - left : x2 - left] |= piece.pixels(piece.window)
    mask = bitmap(soft_mask, frame, (left, top, right, bottom)).numpy()
    return float((pixels & mask).sum() / (pixels | mask).sum())


def print_memory(predictor: Predictor, side: int) -> None:
    """Print time and memory of tiles in an image that lies in a file."""
    with tempfile.TemporaryDirectory() as folder:
        image = huge_image(Path(folder) / "image.raw", side)
        predictor.tiled(image[:3000, :3000], score_threshold=0.3)  # compiles, fills caches
        start = time.perf_counter()
        with own_memory() as megabytes:
            found = predictor.tiled(image, score_threshold=0.3)
        seconds = time.perf_counter() - start
        masks = found.soft_masks.numel() * 4 / 2**20
        print(
            f"{side} x {side} pixels, {image.nbytes / 2**20:.0f} MB: {len(found)} objects in "
            f"{seconds:.0f} s, {max(megabytes) - megabytes[0]:.0f} MB of memory at most, of which "
            f"{masks:.0f} MB are masks of {found.soft_masks.shape[2]} x {found.soft_masks.shape[1]}"
        )


def huge_image(path: Path, side: int) -> Image:
    """Write an image that looks like `large_scene`, piece by piece, and map the file."""
    image = np.memmap(path, np.uint8, "w+", shape=(side, side, 3))
    step = min(side, 2000)
    for number, (y, x) in enumerate(product(range(0, side, step), repeat=2)):
        part = image[y : y + step, x : x + step]
        part[:] = large_scene(step, (60, 500), number)[0][: part.shape[0], : part.shape[1]]
    image.flush()
    return np.memmap(path, np.uint8, "r", shape=(side, side, 3))


@contextmanager
def own_memory() -> Iterator[list[float]]:
    """Collect how many MB of memory are this process's own, not of mapped files (Linux)."""
    seen, done = [own_megabytes()], threading.Event()

    def watch() -> None:
        while not done.wait(0.02):
            seen.append(own_megabytes())

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield seen
    finally:
        done.set()
        thread.join()


def own_megabytes() -> float:
    """Return the anonymous memory that this process holds, as Linux tells it."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    kilobytes = next(line.split()[1] for line in status.splitlines() if line.startswith("RssAnon"))
    return int(kilobytes) / 1024


if __name__ == "__main__":
    raise SystemExit(run_command(main))
