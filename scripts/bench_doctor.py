"""Spoil labels of a dataset, and count how many of them `yolact check --with` suggests first.

Some persons, the class that the bundled model knows, get another class, some move by 40 % of their
width or height, some are deleted; some images are copied, half of them re-encoded.

Example:
  python scripts/bench_doctor.py coco_small --seeds=0,1,2
"""

from __future__ import annotations

import random
import shutil
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from data.annotations.as_coco import CocoContent, coco_content
from data.annotations.coco import CocoInstances
from data.annotations.run_lengths import decode, encode, measure
from data.catalog import Split, open_dataset
from data.checks.duplicates import Box, box_iou
from data.images import read_image
from data.sample import Annotation, Dataset, ImageInfo
from yolact import Predictor
from yolact.cli.common import add_flags, at_least, flag, make_parser, run_command
from yolact.doctor.findings import examine, with_suspects
from yolact.errors import UsageError
from yolact.files import write_json

SPLITS: tuple[Split, ...] = ("train", "val")
COUNTS = {"swapped": 8, "shifted": 7, "deleted": 7, "copied": 8}


class Spoilt(NamedTuple):
    """A spoilt label.

    Attributes:
        kind: a key of `COUNTS`.
        split: which part of the dataset.
        file_name: of the image; of a copy, its own.
        annotation_id: of the label.
        box: x1, y1, x2, y2 of the object that it should be around.
    """

    kind: str
    split: str
    file_name: str
    annotation_id: int
    box: Box


def main(argv: Sequence[str] | None = None) -> None:
    """Print how many spoilt labels are found, for each seed and kind."""
    parser = make_parser("bench_doctor.py", __doc__)
    parser.add_argument("dataset", help="a folder with train and val")
    add_flags(
        parser,
        "options",
        (
            flag("--with", "model that checks", str, "yolact_lite2_person", dest="model"),
            flag("--class", "class of the objects to spoil", str, "person", dest="name"),
            flag("--side", "minimum width and height of these objects, in pixels", int, 96),
            flag("--first", "number of first suggestions that count", int, 60),
            flag("--seeds", "seeds, separated by commas", str, "0,1,2"),
        ),
    )
    args = parser.parse_args(argv)
    at_least(args, side=0, first=1)
    predictor = Predictor.from_checkpoint(args.model)
    for seed in map(int, args.seeds.split(",")):
        with tempfile.TemporaryDirectory() as folder:
            spoilt = spoil(args.dataset, Path(folder), args.name, args.side, random.Random(seed))
            suggested = suggestions(folder, predictor)[: args.first]
        found = Counter(each.kind for each in spoilt if any(hits(s, each) for s in suggested))
        kinds = ", ".join(f"{kind} {found[kind]} of {n}" for kind, n in COUNTS.items())
        print(f"seed {seed}: {found.total()} of {len(spoilt)} in the first {args.first}: {kinds}")


def suggestions(folder: str, predictor: Predictor) -> list[dict[str, Any]]:
    """Return what the doctor suggests to look at, in its order."""
    splits: dict[str, Dataset] = {split: open_dataset(folder, split) for split in SPLITS}
    findings = with_suspects(examine(folder, splits, {}, 550), predictor)
    return list(findings.suggestions())


def hits(suggestion: dict[str, Any], spoilt: Spoilt) -> bool:
    """Tell whether a suggestion is about a spoilt label: names it, or sees its object."""
    if spoilt.kind == "copied":
        return spoilt.file_name in (suggestion["file_name"], suggestion.get("of"))
    if (suggestion["split"], suggestion["file_name"]) != (spoilt.split, spoilt.file_name):
        return False
    seen = suggestion.get("seen")
    if seen and box_iou(corners(seen["box"]), spoilt.box) >= 0.5:
        return True
    return spoilt.kind != "deleted" and suggestion["annotation_id"] == spoilt.annotation_id


def spoil(source: str, folder: Path, name: str, side: int, rng: random.Random) -> list[Spoilt]:
    """Write a dataset with spoilt labels, at most one in each image; return them."""
    contents: dict[str, CocoContent] = {}
    large: list[tuple[str, ImageInfo, Annotation]] = []
    for split in SPLITS:
        dataset = open_dataset(source, split)
        if not isinstance(dataset, CocoInstances):
            raise ValueError(f"{source}: expected a dataset of files")
        if name not in dataset.categories.names:
            known = ", ".join(dataset.categories.names[:10])
            raise UsageError(f"--class={name}: not in {source}, whose classes are {known}")
        contents[split] = coco_content(dataset)
        number = dataset.categories.category_ids[dataset.categories.names.index(name)]
        (folder / split).mkdir()
        for index in range(len(dataset)):
            info = dataset.image_info(index)
            (folder / split / info["file_name"]).symlink_to(dataset.image_path(index).resolve())
            large += [
                (split, info, part)
                for part in dataset.annotations(index)
                if part["category_id"] == number and not part["iscrowd"]
                if min(part["bbox"][2:]) >= side
            ]
    rng.shuffle(large)
    one_each = {(split, info["id"]): (split, info, part) for split, info, part in large}
    kinds = [kind for kind, count in COUNTS.items() for _ in range(count)]
    spoilt = [
        spoil_one(kind, contents[split], folder / split, info, part, rng)
        for kind, (split, info, part) in zip(kinds, one_each.values(), strict=False)
    ]
    for name, content in contents.items():
        write_json(folder / "annotations" / f"instances_{name}.json", dict(content))
    return spoilt


def spoil_one(
    kind: str,
    content: CocoContent,
    images: Path,
    info: ImageInfo,
    part: Annotation,
    rng: random.Random,
) -> Spoilt:
    """Spoil one label of a split, or copy its image with all of its labels."""
    objects, name, box = content["annotations"], info["file_name"], corners(part["bbox"])
    place = next(i for i, each in enumerate(objects) if each["id"] == part["id"])
    if kind == "swapped":
        numbers = [each["id"] for each in content["categories"]]
        other = rng.choice([number for number in numbers if number != part["category_id"]])
        objects[place] = part | {"category_id": other}
    elif kind == "shifted":
        objects[place] = shifted(part, info, rng)
    elif kind == "deleted":
        del objects[place]
    else:
        name = copy_image(content, images, info, encode_anew=rng.random() < 0.5)
    return Spoilt(kind, images.name, name, part["id"], box)


def shifted(part: Annotation, info: ImageInfo, rng: random.Random) -> Annotation:
    """Move an object by 40 % of its width or height, or of both, to where there is more room."""
    height, width = info["height"], info["width"]
    x, y, w, h = part["bbox"]
    across, down = rng.choice(((1, 0), (0, 1), (1, 1)))
    right = round(0.4 * w * across) * (1 if x + w / 2 < width / 2 else -1)
    below = round(0.4 * h * down) * (1 if y + h / 2 < height / 2 else -1)
    bitmap = np.pad(decode(part["segmentation"], (height, width)), ((height,), (width,)))
    moved = bitmap[height - below : 2 * height - below, width - right : 2 * width - right]
    outline = encode(np.ascontiguousarray(moved))
    return part | {"segmentation": outline, "bbox": measure(outline)[0]}


def copy_image(content: CocoContent, images: Path, info: ImageInfo, encode_anew: bool) -> str:
    """Add an image again, with its labels: byte for byte, or as a JPEG of lower quality."""
    source = images / info["file_name"]
    target = source.with_name(f"copy_of_{source.stem}.jpg")
    if encode_anew:
        bgr = cv2.cvtColor(read_image(source), cv2.COLOR_RGB2BGR)
        cv2.imwrite(str(target), bgr, (cv2.IMWRITE_JPEG_QUALITY, 60))
    else:
        shutil.copyfile(source, target)
    image_id = 1 + max(image["id"] for image in content["images"])
    number = 1 + max(part["id"] for part in content["annotations"])
    own = [part for part in content["annotations"] if part["image_id"] == info["id"]]
    content["images"].append(info | {"id": image_id, "file_name": target.name})
    for place, part in enumerate(own):
        content["annotations"].append(part | {"id": number + place, "image_id": image_id})
    return target.name


def corners(box: Sequence[float]) -> Box:
    """Return x1, y1, x2, y2 of x, y, width, height."""
    x, y, width, height = box
    return x, y, x + width, y + height


if __name__ == "__main__":
    raise SystemExit(run_command(main))
