"""Measure how fast a dataset of COCO's size loads, and how much memory it takes in the workers.

The dataset is synthetic: image files without pixels, with annotations sampled from another dataset.
Workers then ask for all annotations of all images, in random order.

Example:
  python scripts/bench_index.py path/to/coco_small
"""

from __future__ import annotations

import json
import multiprocessing
import os
import pickle
import random
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from torch.utils.data import DataLoader
from torch.utils.data import Dataset as MapDataset

from data.annotations.coco import CocoInstances
from data.catalog import open_dataset
from data.sample import Annotation, Dataset, ImageInfo
from yolact.cli.common import add_flags, at_least, flag, make_parser, run_command

BATCH = 64
SCENES = 100  # of "shapes", to draw from


class AnnotationCounts(MapDataset[int]):
    """Number of annotations per image; to count them, each is made as it is for training."""

    def __init__(self, dataset: CocoInstances) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> int:
        return len(self.dataset.annotations(index))


def generate(source: Dataset, folder: Path, images: int, annotations: int) -> Path:
    """Write an annotation file, and image files without pixels.

    Every image has the size of a random one of the source, and every annotation is a random one of
    that image, in a random image.

    Args:
        source: what to draw from.
        folder: where the image files are put, and the annotation file.
        images: how many to write.
        annotations: how many to write.

    Raises:
        ValueError: the source has no annotated images.
    """
    rng = random.Random(0)
    parts = [[_without_ids(entry) for entry in source.annotations(i)] for i in range(len(source))]
    known = [index for index, texts in enumerate(parts) if texts]
    if not known:
        raise ValueError("the dataset has no annotated images to draw from")
    models = rng.choices(known, k=images)
    file = folder / "instances.json"
    with file.open("w") as out:
        out.write('{"images": [')
        for number, model in enumerate(models):
            image: ImageInfo = {
                **source.image_info(model),
                "id": number,
                "file_name": f"{number:012}.jpg",
            }
            head = f"P5 {image['width']} {image['height']} 255\n"
            (folder / image["file_name"]).write_text(head)
            out.write(", " * (number > 0) + json.dumps(image))
        out.write('], "annotations": [')
        for number in range(1, annotations + 1):
            row = rng.randrange(images)
            text = rng.choice(parts[models[row]])
            out.write(", " * (number > 1) + f'{text}, "id": {number}, "image_id": {row}}}')
        out.write(f'], "categories": {json.dumps(source.categories.to_coco_json())}}}')
    return file


def _without_ids(annotation: Annotation) -> str:
    """Write an annotation as JSON to be completed."""
    rest = {key: value for key, value in annotation.items() if key not in ("id", "image_id")}
    return json.dumps(rest).removesuffix("}")


def memory(process: int, file: str = "smaps_rollup") -> dict[str, float]:
    """Read what Linux tells of the memory of a process, in MB; elsewhere nothing."""
    try:
        lines = Path(f"/proc/{process}/{file}").read_text().splitlines()
    except OSError:
        return {}
    sizes = (line.split() for line in lines if line.endswith(" kB"))
    return {name.rstrip(":"): int(size) * 1024 / 1e6 for name, size, _ in sizes}


def workers_memory() -> str:
    """Describe the memory of all worker processes together."""
    found = [memory(worker.pid or 0) for worker in multiprocessing.active_children()]
    if not found or not all(found):
        return "not available"
    own = sum(sizes["Private_Clean"] + sizes["Private_Dirty"] for sizes in found)
    return f"{own:7.0f} MB private, {sum(sizes['Pss'] for sizes in found):7.0f} MB proportional"


def load(folder: Path, file: Path) -> CocoInstances:
    """Read the dataset, and print how long it took and what it left in memory."""
    before, start, busy = memory(os.getpid()), time.perf_counter(), time.process_time()
    dataset = CocoInstances(folder, file)
    seconds, busy = time.perf_counter() - start, time.process_time() - busy
    print(f"load                  {seconds:7.1f} s, {busy:.1f} s of processor time")
    after, peak = memory(os.getpid()), memory(os.getpid(), "status").get("VmHWM")
    if after and peak:
        grown = after["Rss"] - before["Rss"]
        print(f"resident, this process{after['Rss']:7.0f} MB, {grown:.0f} MB of it new")
        print(f"peak while loading    {peak:7.0f} MB")
    start = time.perf_counter()
    size = len(pickle.dumps(dataset)) / 1e6
    print(f"the index, pickled    {size:7.0f} MB in {time.perf_counter() - start:.1f} s")
    return dataset


def iterate(dataset: CocoInstances, workers: int, passes: int) -> None:
    """Visit all images with the workers of a loader, and print their memory again and again."""
    loader: DataLoader[int] = DataLoader(
        AnnotationCounts(dataset), BATCH, True, num_workers=workers, persistent_workers=True
    )
    print(f"{workers} workers")
    for number in range(1, passes + 1):
        counted, start = 0, time.perf_counter()
        for step, counts in enumerate(loader):
            counted += int(counts.sum())
            if number == 1 and step == 0:
                print(f"  started         {workers_memory()}")
        seconds = time.perf_counter() - start
        print(
            f"  after pass {number:<4} {workers_memory()}; {counted:,} objects in {seconds:.1f} s"
        )


def main(argv: Sequence[str] | None = None) -> None:
    """Generate, load, iterate."""
    parser = make_parser("bench_index.py", __doc__)
    parser.add_argument("dataset", help="source of the annotations; as in train.py")
    options = (
        flag("--images", "number of images", int, 118_000),
        flag("--annotations", "number of annotations", int, 860_000),
        flag("--workers", "loader processes", int, 4),
        flag("--passes", "passes over all images", int, 2),
    )
    add_flags(parser, "options", options)
    args = parser.parse_args(argv)
    at_least(args, images=1, annotations=1, workers=1, passes=1)
    source = open_dataset(args.dataset, "train", length=SCENES)
    with tempfile.TemporaryDirectory() as folder:
        file = generate(source, Path(folder), args.images, args.annotations)
        megabytes = file.stat().st_size / 1e6
        print(f"{args.images:,} images, {args.annotations:,} objects: {megabytes:.0f} MB of JSON")
        iterate(load(Path(folder), file), args.workers, args.passes)


if __name__ == "__main__":
    raise SystemExit(run_command(main))
