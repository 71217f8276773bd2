"""Measure what tiles find in large images, against one look at the whole, and what they take.

The images are generated: shapes of all sizes, small ones most, scattered over clutter, with exact
masks. Then one far larger is made, in a file, to see how much memory tiles take beside it.

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
from dataclasses import replace
from itertools import chain, pairwise, product
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data.annotations.as_coco import coco_index
from data.annotations.run_lengths import encode, measure
from data.classes import SHAPE_CLASSES
from data.images import Image
from data.sample import Annotation
from data.shapes.drawing import expose, paint_background, paint_shape, random_colors, random_light
from data.shapes.objects import Shape, Stamp, rasterize
from data.shapes.scenes import MIN_VISIBLE_PIXELS, MIN_VISIBLE_SHARE, random_shape
from yolact.cli.common import add_flags, flag, make_parser, run_command
from yolact.evaluation.coco import CocoEvaluator
from yolact.evaluation.metrics import Scores
from yolact.evaluation.speed import describe_machine
from yolact.predictor import Predictor
from yolact.results.detections import Detections
from yolact.results.thresholds import Thresholds
from yolact.tiles.segment import Tiling, segment_tiled

MODEL = "yolact_resnet18_shapes"
CLUTTER = 512  # side of a piece of background
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
            flag("--images", "generated images to score", int, 4),
            flag("--side", "of these, in pixels", int, 2048),
            flag("--tile", "side of a tile", int, 512),
            flag("--huge", "side of the image in a file; 0 for none", int, 20000),
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
        scenes = [scattered(args.side, (args.tile // 12, largest), i) for i in range(args.images)]
        print(f"\n{title}, {args.images} images of {args.side} px\n")
        print_scores(scenes, ways)
    if args.huge:
        print_memory(predictor, args.huge)


def scattered(side: int, sizes: tuple[float, float], seed: int) -> tuple[Image, list[Annotation]]:
    """Generate an image with an object for each 300 x 300 pixels, and its annotations.

    Args:
        side: of the image in pixels.
        sizes: least and most diameter of an object, whose logarithm is evenly spread.
        seed: another gives another image; also its id.
    """
    rng, image_hw = np.random.default_rng(seed), (side, side)
    palette, light = random_colors(rng, 6, (0.35, 0.95), (0.5, 1.0)), random_light(rng, image_hw)
    canvas = np.empty((side, side, 3), np.float32)
    for y, x in product(range(0, side, CLUTTER), repeat=2):
        part = canvas[y : y + CLUTTER, x : x + CLUTTER]
        part[:] = paint_background(rng, (part.shape[0], part.shape[1]), palette)
    owner = np.full(image_hw, -1, np.int32)
    placed: list[tuple[Shape, Stamp]] = []
    for _ in range((side // 300) ** 2):
        name = str(rng.choice(SHAPE_CLASSES.names))
        radius = math.exp(rng.uniform(*np.log(sizes))) / 2
        shape = replace(random_shape(rng, name, image_hw, palette), radius=radius)
        stamp = rasterize(shape)
        outer, inner = stamp.overlap(image_hw)
        visible = stamp.solid[inner] & (owner[outer] < 0)
        least = max(MIN_VISIBLE_PIXELS, MIN_VISIBLE_SHARE * np.count_nonzero(stamp.solid))
        if np.count_nonzero(visible) >= least:
            owner[outer][visible] = len(placed)
            placed.append((shape, stamp))
    for shape, stamp in reversed(placed):  # the first lies on top
        paint_shape(canvas, shape, stamp, light)
    return expose(rng, canvas, light), entries_of(placed, owner, seed)


def entries_of(
    placed: Sequence[tuple[Shape, Stamp]], owner: NDArray[np.int32], image_id: int
) -> list[Annotation]:
    """Return COCO's entries of the visible parts; `owner` (H, W) is the object of each pixel."""
    entries: list[Annotation] = []
    image_hw = owner.shape[0], owner.shape[1]
    for number, (shape, stamp) in enumerate(placed):
        rows, columns = stamp.overlap(image_hw)[0]
        corner = (columns.start, rows.start)
        run_lengths = encode(owner[rows, columns] == number, image_hw, corner)
        box, area = measure(run_lengths)
        label = SHAPE_CLASSES.names.index(shape.outline)
        entry = Annotation(
            id=0,  # numbered by whoever scores
            image_id=image_id,
            category_id=SHAPE_CLASSES.category_ids[label],
            segmentation=run_lengths,
            bbox=box,
            area=area,
            iscrowd=0,
        )
        entries.append(entry)
    return entries


def print_scores(scenes: Sequence[tuple[Image, list[Annotation]]], ways: dict[str, Look]) -> None:
    """Print recall by size and AP50 of masks, and the time, of each way to look at the images."""
    spans = [f"< {high}" if high < LARGEST else f">= {low}" for low, high in pairwise(SPANS)]
    print("| | " + " | ".join((*spans, "AP50", "AP", "s per image", "found")) + " |")
    print("| --- " * (len(spans) + 5) + "|")
    for name, look in ways.items():
        seconds, found = [], []
        for image, _ in scenes:
            start = time.perf_counter()
            found.append(look(image))
            seconds.append(time.perf_counter() - start)
        scores = score(scenes, found)
        cells = [f"{recall(scores, low, high):.1f}" for low, high in pairwise(SPANS)]
        cells += [f"{scores.overlaps['50']:.1f}", f"{scores.overlaps['all']:.1f}"]
        cells += [f"{statistics.median(seconds):.1f}", str(sum(map(len, found)))]
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
    """Write an image that looks like `scattered`, piece by piece, and map the file."""
    image = np.memmap(path, np.uint8, "w+", shape=(side, side, 3))
    step = 2000
    for number, (y, x) in enumerate(product(range(0, side, step), repeat=2)):
        part = image[y : y + step, x : x + step]
        part[:] = scattered(step, (60, 500), number)[0][: part.shape[0], : part.shape[1]]
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
    status = Path("/proc/self/status").read_text()
    kilobytes = next(line.split()[1] for line in status.splitlines() if line.startswith("RssAnon"))
    return int(kilobytes) / 1024


if __name__ == "__main__":
    raise SystemExit(run_command(main))
