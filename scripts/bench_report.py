"""Measure how long a report takes to write, and to open in Chromium (pip install playwright).

Its detections are synthetic: the objects of generated scenes, shifted, renamed, dropped, repeated.

Example:
  python scripts/bench_report.py results/bench_report --images=500 --browser=/usr/bin/chromium
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from data.annotations.run_lengths import encode, measure
from data.shapes.scenes import ShapeScenes
from yolact.cli.common import add_flags, flag, make_parser, run_command
from yolact.evaluation.coco import CocoEvaluator
from yolact.evaluation.result_files import CocoResults, Result
from yolact.presets import get_config
from yolact.report.write import write_report

PAINTED = """async () => {
  const isSeen = (image) => image.getBoundingClientRect().top < innerHeight;
  const seen = [...document.images].filter(isSeen);
  await Promise.all(seen.map((image) => image.decode()));
  await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
  return [performance.timing.loadEventEnd - performance.timing.navigationStart, performance.now()];
}"""
SLIDE = """async (value) => {
  const slider = document.querySelector("#score");
  slider.value = value;
  const start = performance.now();
  slider.dispatchEvent(new Event("input"));
  await new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
  return performance.now() - start;
}"""


def main(argv: Sequence[str] | None = None) -> None:
    """Print seconds, milliseconds and megabytes."""
    parser = make_parser("bench_report.py", __doc__)
    parser.add_argument("folder", help="folder for the report", type=Path)
    flags = (
        flag("--images", "scenes to evaluate", int, 500),
        flag("--image_size", "side of the scenes in pixels", int, 640),
        flag("--detections", "detections in each scene", int, 30),
        flag("--shown", "images that the report shows", int, 500),
        flag("--browser", "path of Chromium; by default Playwright's own"),
        flag("--rounds", "number of times to open the page; the median counts", int, 5),
    )
    add_flags(parser, "options", flags)
    args = parser.parse_args(argv)
    scenes = ShapeScenes(args.images, args.image_size)
    results = scatter(scenes, args.detections)
    config = get_config("yolact_resnet18").with_classes(scenes.categories.names)
    evaluator = CocoEvaluator(scenes.coco, scenes.categories.category_ids, results)
    evaluator.summarize()
    start, start_of_work = time.perf_counter(), time.process_time()
    page = write_report(args.folder, evaluator, scenes, config, {}, max_images=args.shown)
    seconds, work = time.perf_counter() - start, time.process_time() - start_of_work
    print(f"{seconds:.1f} s to write, {work:.1f} s of processor time")
    for name in ("data.js", "small", "large"):
        files = list(page.parent.glob(f"viewer/{name}")) + list(
            page.parent.glob(f"viewer/{name}/*")
        )
        print(f"{sum(file.stat().st_size for file in files) / 1e6:.1f} MB in {name}")
    loaded, painted, moved = open_page(page, args.browser, args.rounds)
    print(f"{loaded:.0f} ms to the load event, {painted:.0f} ms to the images in sight")
    print(f"{moved:.0f} ms for a step of a slider")


def scatter(scenes: ShapeScenes, count: int, seed: int = 0) -> CocoResults:
    """Make up detections: so many of each scene, some right, some wrong in every way."""
    rng = np.random.default_rng(seed)
    ids = scenes.categories.category_ids
    results = CocoResults()
    for index, image_id in enumerate(scenes.image_ids):
        sample = scenes.sample(index)
        masks = [np.asarray(mask, np.bool_) for mask in sample.segmentations]
        results.images[image_id] = sample.image.shape[:2]
        for chosen in rng.integers(len(masks), size=count) if masks else ():
            is_close = rng.random() < 0.4
            shift = rng.integers(-scenes.image_size, scenes.image_size, 2) // (
                99 if is_close else 9
            )
            mask = encode(np.roll(masks[chosen], shift, (0, 1)))
            x, y, width, height = measure(mask)[0]
            label = sample.labels[chosen] if rng.random() < 0.8 else rng.integers(len(ids))
            score = rng.uniform(0.5, 1) if is_close else rng.uniform(0.05, 0.7)
            found = (ids[label], (x, y, width, height), score, score, mask["counts"])
            results.detections.append(Result(image_id, *found))
    return results


def open_page(page: Path, browser: str | None, rounds: int) -> tuple[float, float, float]:
    """Return the median milliseconds until it is loaded, until it is seen, and of a slider."""
    from playwright.sync_api import sync_playwright

    times, steps = [], []
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        for _ in range(rounds):
            tab = chromium.new_page(viewport={"width": 1440, "height": 900})
            tab.goto(page.resolve().as_uri())
            times.append(tab.evaluate(PAINTED))
            steps += [tab.evaluate(SLIDE, value) for value in range(40, 60)]
            tab.close()
        chromium.close()
    loaded, painted = (statistics.median(column) for column in zip(*times, strict=True))
    return loaded, painted, statistics.median(steps)


if __name__ == "__main__":
    raise SystemExit(run_command(main))
