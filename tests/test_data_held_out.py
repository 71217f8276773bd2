"""The validation images that are held out of the training images."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from data import catalog
from data.annotations.coco import CocoInstances
from data.catalog import has_one_split, open_dataset, resolve_dataset
from data.classes import Categories
from data.conversion import convert_dataset
from data.duplicates import grey_thumbnails
from data.formats.builder import ConversionResult
from data.formats.recognise import read_split
from data.formats.splits import SplitPaths
from data.held_out import choose_groups
from data.image_groups import difference, group_images
from data.options import DataOptions

ROOT = Path(__file__).parents[1]
SQUARE = [[2, 2, 9, 2, 9, 9, 2, 9]]


def scene(seed: int, shift: int = 0, noise: int = 0) -> NDArray[np.uint8]:
    """Draw a picture of its own for each seed, perhaps seen by a camera that has moved."""
    rng = np.random.default_rng(seed)
    blurred = cv2.resize(rng.integers(0, 256, (6, 8, 3), np.uint8), (128, 96))[:72, shift:96]
    grains = np.random.default_rng(noise).integers(-noise, noise + 1, blurred.shape)
    return np.clip(blurred.astype(int) + grains, 0, 255).astype(np.uint8)


def write(
    folder: Path,
    pictures: dict[str, NDArray[np.uint8]],
    classes: Callable[[int], Sequence[int]] = lambda _: (1,),
    order: Sequence[int] | None = None,
    named: str = "cba",
) -> Path:
    """Write a dataset; the classes of each image are 1, 2 and 3, one object of each."""
    images, objects = [], []
    for number, (name, pixels) in enumerate(pictures.items()):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / name), pixels)
        height, width = pixels.shape[:2]
        images.append({"id": number + 1, "file_name": name, "height": height, "width": width})
        for category in classes(number):
            entry = {"image_id": number + 1, "category_id": category, "segmentation": SQUARE}
            objects.append({"id": len(objects) + 1, **entry})
    content = {
        "images": [images[i] for i in order or range(len(images))],
        "annotations": objects,
        "categories": [{"id": i, "name": name} for i, name in enumerate(named, start=1)],
    }
    (folder / "annotations.json").write_text(json.dumps(content))
    return folder


def names(dataset: Any) -> list[str]:
    return [dataset.image_info(index)["file_name"] for index in range(len(dataset))]


def split(folder: Path, share: str = "0.2", **more: Any) -> tuple[CocoInstances, CocoInstances]:
    options = DataOptions(val=share)
    train, val = (open_dataset(str(folder), s, options=options, **more) for s in ("train", "val"))
    assert isinstance(train, CocoInstances)
    assert isinstance(val, CocoInstances)
    return train, val


def stills(count: int) -> dict[str, NDArray[np.uint8]]:
    return {f"IMG_{number:04}.png": scene(number) for number in range(count)}


@pytest.mark.parametrize(("images", "held_out"), [(0, 0), (1, 0), (2, 1), (3, 1), (50, 10)])
def test_how_many_are_held_out(tmp_path: Path, images: int, held_out: int) -> None:
    train, val = split(write(tmp_path, stills(images)))
    assert (len(train), len(val)) == (images - held_out, held_out)
    assert sorted(names(train) + names(val)) == sorted(stills(images))


@pytest.mark.parametrize("share", ["0.1", "0.2", "0.5", "0.8"])
def test_every_class_is_in_both(tmp_path: Path, share: str) -> None:
    def classes(number: int) -> Sequence[int]:
        return () if number % 5 == 0 else (1, 2, 3) if number % 10 == 1 else (1 + number // 40,)

    train, val = split(write(tmp_path, stills(80), classes), share)
    total, chosen = (sum(part.has_class().sum(axis=0) for part in p) for p in ((train, val), [val]))
    assert np.abs(chosen - float(share) * total).max() <= 2
    empty = [int((~part.has_class().any(axis=1)).sum()) for part in (train, val)]
    assert abs(empty[1] - float(share) * sum(empty)) <= 1
    assert abs(len(val) - float(share) * 80) <= 2


def test_rare_classes_stay_to_be_learned(tmp_path: Path) -> None:
    rare = {3: (2,), 7: (3,), 8: (3,), 9: (3,)}
    train, val = split(write(tmp_path, stills(30), lambda number: rare.get(number, (1,))))
    assert train.has_class().sum(axis=0).tolist() == [21, 1, 2]
    assert val.has_class().sum(axis=0).tolist() == [5, 0, 1]


def test_the_same_on_every_run_and_in_every_order(tmp_path: Path) -> None:
    pictures = stills(40)
    write(tmp_path / "a", pictures, lambda number: (1 + number % 3,))
    before = names(split(tmp_path / "a")[1])
    order = np.random.default_rng(0).permutation(40).tolist()
    write(tmp_path / "b" / "c", pictures, lambda number: (1 + number % 3,), order)
    assert sorted(names(split(tmp_path / "b" / "c")[1])) == sorted(before)
    model = Categories.from_names(("a", "b", "c"))  # in another order, as of a trained model
    assert names(split(tmp_path / "a", categories=model)[1]) == before
    code = (
        "import sys; sys.path[:0] = sys.argv[2:]\n"
        "from data.catalog import open_dataset\nfrom data.options import DataOptions\n"
        "data = open_dataset(sys.argv[1], 'val', options=DataOptions(val='0.2'))\n"
        "print(*[data.image_info(index)['file_name'] for index in range(len(data))])"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "a"), str(ROOT)]
    again = subprocess.run(command, capture_output=True, text=True, check=True)
    assert again.stdout.split() == before


def test_the_same_however_classes_are_numbered_and_known(tmp_path: Path) -> None:
    held_out = []
    rng = np.random.default_rng(5)
    chosen = np.column_stack([rng.permutation(60) < 24 for _ in range(3)])  # none is rarer
    for named in ("cba", "abc", "bca"):

        def classes(number: int, named: str = named) -> Sequence[int]:
            return [1 + named.index("abc"[i]) for i in np.flatnonzero(chosen[number])]

        write(tmp_path / named, stills(60), classes, named=named)
        held_out.append(names(split(tmp_path / named)[1]))
        known = Categories.from_names(("b",))
        held_out.append(names(split(tmp_path / named, categories=known)[1]))
    assert len({tuple(each) for each in held_out}) == 1


def test_no_training_image_validates_where_images_with_boxes_alone_are_skipped(
    tmp_path: Path,
) -> None:
    folder = write(tmp_path, stills(20), lambda number: (1, 2) if number < 8 else (1,))
    content = json.loads((folder / "annotations.json").read_text())
    for entry in content["annotations"]:
        if entry["category_id"] == 2:  # "b", without an outline
            entry["bbox"] = [2, 2, 7, 7]
            del entry["segmentation"]
    (folder / "annotations.json").write_text(json.dumps(content))
    options, known = DataOptions(val="0.3", boxes_only="skip"), Categories.from_names(("c",))
    trained = names(open_dataset(str(folder), "train", options=options))
    held_out = names(open_dataset(str(folder), "val", known, options=options))
    assert len(held_out) == 4  # a third of the twelve that are left
    assert not set(held_out) & set(trained)


def clips(pattern: str, moving: bool, counts: Sequence[int] = (8, 6, 10, 7, 9)) -> dict[str, Any]:
    """Frames of several clips, each slightly moved, or else unlike the one before."""
    return {
        pattern.format(clip + 65 * ("{:c}" in pattern), frame): scene(clip, frame)
        if moving
        else scene(100 * clip + frame)
        for clip, count in enumerate(counts)
        for frame in range(count)
    }


@pytest.mark.parametrize("share", ["0.2", "0.4"])
@pytest.mark.parametrize(
    ("pattern", "moving"),
    [
        ("clip{}_{:03}.png", False),
        ("video{}/{}.png", False),
        ("seq-{}/frame_{:06}.PNG", False),
        ("Cam{}_{}_day.png", False),
        ("frames/{}x{:04}.png", False),
        ("vid{:c}_{}.png", False),
        ("VIDEO{:c}-{}.png", False),
        ("DSC_{}1{:02}.png", True),
        ("{}_f{}_augmented1.png", True),
        ("{}-{}.png", True),
    ],
)
def test_frames_of_a_video_stay_together(
    tmp_path: Path, pattern: str, moving: bool, share: str
) -> None:
    pictures = clips(pattern, moving)
    clip_of = dict(zip(pictures, np.repeat(range(5), (8, 6, 10, 7, 9)), strict=True))
    train, val = split(write(tmp_path, pictures), share)
    assert {clip_of[name] for name in names(train)}.isdisjoint(clip_of[n] for n in names(val))
    assert abs(len(val) - float(share) * 40) <= 4


def test_a_video_with_a_flash_and_changing_exposure(tmp_path: Path) -> None:
    """Neighbours need not be alike to the pixel, nor every one of them."""
    pictures: dict[str, Any] = {}
    for clip, frame in product(range(4), range(9)):
        pixels = np.clip(scene(clip, frame).astype(int) * (20 + frame) // 24, 0, 255)
        flash = np.full_like(pixels, 255)
        pictures[f"{'abcd'[clip]}{frame}.png"] = (flash if frame == 4 else pixels).astype(np.uint8)
    train, val = split(write(tmp_path, pictures), "0.25")
    seen = [{name[0] for name in names(part) if name[1] != "4"} for part in (train, val)]
    assert seen[0].isdisjoint(seen[1])
    assert len(seen[1]) == 1


def test_copies_stay_together(tmp_path: Path) -> None:
    """Copies of other names, sizes, compressions and exposures, and Roboflow's augmentations."""
    pictures: dict[str, Any] = {}
    for number in range(20):
        pictures[f"{chr(97 + number)}.png"] = scene(number)
        pictures[f"copies/{chr(120 - number)}x.jpg"] = scene(number, noise=4)
        small = cv2.resize(scene(number), (61, 43), interpolation=cv2.INTER_AREA)
        pictures[f"{1000 - 7 * number}.png"] = small.astype(np.uint8)
        bright = cv2.convertScaleAbs(scene(number), alpha=0.8, beta=40)
        pictures[f"bright/{number}.png"] = bright.astype(np.uint8)
        name = f"p{chr(97 + number)}_jpg.rf.{{}}.jpg"
        pictures[name.format("0a1b")] = scene(50 + number)
        pictures[name.format("9f8e")] = scene(80 + number)
    train, val = split(write(tmp_path, pictures))
    group_of = dict(zip(pictures, np.repeat(range(40), [4, 2] * 20), strict=True))
    assert {group_of[name] for name in names(train)}.isdisjoint(group_of[n] for n in names(val))
    assert 20 <= len(val) <= 28


def test_classes_are_no_videos(tmp_path: Path) -> None:
    pictures = {f"{c}_{n}.png": scene(50 * i + n) for i, c in enumerate("cb") for n in range(10)}
    val = split(write(tmp_path, pictures, lambda number: (1 + number // 10,)))[1]
    assert val.has_class().sum(axis=0).tolist() == [2, 2, 0]


def test_one_video_is_cut(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pictures = {f"frame_{number}.png": scene(0, number // 2) for number in range(60)}
    train, val = split(write(tmp_path, pictures))
    numbers = sorted(int(Path(name).stem.split("_")[1]) for name in names(val))
    assert len(numbers) == 12
    assert numbers == [*range(numbers[0], numbers[0] + 12)]  # neighbours, by number
    assert len(train) == 48
    assert "frames of one video" in caplog.text


def test_of_two_videos_one_is_held_out(tmp_path: Path) -> None:
    train, val = split(write(tmp_path, clips("video_{}_{}.png", True, (7, 5))))
    assert {Path(name).stem[:7] for name in names(train)} == {"video_0"}
    assert {Path(name).stem[:7] for name in names(val)} == {"video_1"}


def test_blank_and_broken_images_are_no_copies(tmp_path: Path) -> None:
    blank = {f"{number}.png": np.full((20, 30, 3), 7, np.uint8) for number in range(20)}
    write(tmp_path, blank)
    (tmp_path / "5.png").write_bytes(b"no image")
    assert len(split(tmp_path)[1]) == 4


def test_no_images_are_alike() -> None:
    assert grey_thumbnails(()).shape == (0, 32, 32)
    assert group_images([], []).tolist() == []
    assert choose_groups(np.zeros((0, 1), np.int64), [], 0.5) == []


def test_what_looks_alike_is_measured(tmp_path: Path) -> None:
    files = [tmp_path / f"{number}.png" for number in range(4)]
    for file, picture in zip(files, (scene(1), scene(1, 0, 6), scene(1, 4), scene(2)), strict=True):
        cv2.imwrite(str(file), picture)
    greys = grey_thumbnails(tuple(files))
    copy, moved, other = (difference(greys[:1], greys[i : i + 1]).item() for i in (1, 2, 3))
    assert copy < 0.05
    assert 0.1 < moved < 0.7
    assert other > 1


def test_paths_of_a_share(tmp_path: Path) -> None:
    folder = str(write(tmp_path, stills(4)))
    assert has_one_split(folder)
    options = DataOptions(val="0.5")
    assert not has_one_split(folder, options=options)
    paths = resolve_dataset(folder, options=options)
    assert (paths.val, paths.val_share) == (paths.train, 0.5)
    with pytest.raises(ValueError, match="'shapes' has a val split of its own"):
        open_dataset("shapes", "val", options=options)


@pytest.mark.parametrize("named", ["other", "other/annotations.json", "parts", "splits"])
def test_another_dataset_validates(tmp_path: Path, named: str) -> None:
    """A folder, a file, one with a val split, one with a train split alone."""
    write(tmp_path / "mine", stills(3))
    write(tmp_path / "other", {"x.png": scene(9)})
    write(tmp_path / "parts" / "valid", {"x.png": scene(9)})
    write(tmp_path / "parts" / "train", stills(2))
    write(tmp_path / "splits" / "train", {"x.png": scene(9)})
    options = DataOptions(val=str(tmp_path / named))
    mine = str(tmp_path / "mine")
    train = open_dataset(mine, "train", options=options)
    assert names(open_dataset(mine, "val", train.categories, options=options)) == ["x.png"]
    assert len(train) == 3
    assert not has_one_split(mine, options=options)
    with pytest.raises(ValueError, match="no dataset 'nowhere'"):
        open_dataset(mine, "val", options=DataOptions(val="nowhere"))


def test_labels_are_read_once_for_each_split(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "in", stills(8))
    convert_dataset(str(tmp_path / "in"), tmp_path / "data", "labelme")
    read: list[object] = []

    def counted(paths: SplitPaths) -> ConversionResult:
        read.append(paths)
        return read_split(paths)

    monkeypatch.setattr(catalog, "read_split", counted)
    train, _ = split(tmp_path / "data", "0.25")
    assert len(read) == 2
    split(tmp_path / "data", "0.25", categories=train.categories)
    assert len(read) == 4
