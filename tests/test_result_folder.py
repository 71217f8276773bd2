"""Files of many results."""

import csv
import errno
import io
import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from pycocotools.coco import COCO
from support.odd_masks import NAMES, iou, odd_bitmaps, odd_detections, photo

from data.catalog import open_dataset
from yolact import CocoFile, ResultFolder
from yolact.cli.predict import is_fatal
from yolact.errors import UsageError
from yolact.results.folder import KINDS, Kind


@pytest.mark.parametrize("kind", KINDS)
def test_no_image_and_an_image_without_objects(tmp_path: Path, kind: str) -> None:
    with ResultFolder(tmp_path / "none", [kind]):
        pass
    path, image = photo(tmp_path)
    with ResultFolder(tmp_path / "empty", [kind]) as folder:
        folder.add(odd_detections(image, str(path))[:0], "photo")
    written = sorted(file.relative_to(tmp_path).as_posix() for file in tmp_path.rglob("*.*"))
    expected = {
        "json": ["empty/json/photo.json"],
        "jsonl": ["empty/detections.jsonl", "none/detections.jsonl"],
        "csv": ["empty/detections.csv", "none/detections.csv"],
        "coco": ["empty/detections_coco.json", "none/detections_coco.json"],
        "txt": ["empty/labels/classes.txt", "empty/labels/photo.txt"],
        "labelme": ["empty/photo.json"],
    }
    assert written == [*expected.get(kind, []), "photo.png"]


def test_every_kind(tmp_path: Path) -> None:
    path, image = photo(tmp_path)
    found = odd_detections(image, str(path))
    with ResultFolder(tmp_path / "out", KINDS, tmp_path) as folder:
        folder.add(found, "a")
        folder.add(found[:1], "sub/b")
    out = tmp_path / "out"
    assert json.loads((out / "json" / "sub" / "b.json").read_text()) == found[:1].to_dict()
    lines = (out / "detections.jsonl").read_text().splitlines()
    assert list(map(json.loads, lines)) == [found.to_dict(), found[:1].to_dict()]
    rows = list(csv.DictReader((out / "detections.csv").open(newline="")))
    assert [row["name"] for row in rows] == [*NAMES, "ring"]
    assert (out / "labels" / "a.txt").read_text() == found.to_yolo()
    assert (out / "labels" / "classes.txt").read_text().splitlines() == list(NAMES)
    assert json.loads((out / "sub" / "b.json").read_text())["imagePath"] == "../../photo.png"
    pictures = sorted(p.relative_to(out).as_posix() for p in out.rglob("*.png"))
    endings = ["a_000_ring", "a_001_pair", "a_002_blob_with_a_comma", "a_003_dot", "sub/b_000_ring"]
    kinds = ("crops", "cutouts", "masks")
    assert pictures == [f"{kind}/{ending}.png" for kind in kinds for ending in endings]
    for ending, mask in zip(endings, odd_bitmaps(), strict=False):
        picture = cv2.imread(str(out / "masks" / f"{ending}.png"), cv2.IMREAD_UNCHANGED)
        assert np.array_equal(picture, mask * np.uint8(255))
    cutout = cv2.imread(str(out / "cutouts" / "a_001_pair.png"), cv2.IMREAD_UNCHANGED)
    assert np.array_equal(cutout, found.cutouts()[1][..., [2, 1, 0, 3]])
    with pytest.raises(ValueError, match=r"kinds=\['xml'\]: expected some of json, jsonl"):
        ResultFolder(out, ["xml"])


@pytest.mark.parametrize("called", ["classes", "Classes"])  # the same file on macOS and Windows
def test_the_names_of_classes_are_those_of_the_labels(tmp_path: Path, called: str) -> None:
    """Also after another model, and beside an image that is called as their file."""
    path, image = photo(tmp_path)
    found = odd_detections(image, str(path))
    other = replace(found, class_names=tuple(reversed(NAMES)))
    for each in (found, other):
        with ResultFolder(tmp_path / "out", ["txt"], tmp_path) as folder:
            folder.add(each, "a")
            folder.add(each, called)
        classes = (tmp_path / "out" / "labels" / "classes.txt").read_text()
        assert classes.splitlines() == list(each.class_names)
        assert (tmp_path / "out" / "labels" / "classes_1.txt").read_text() == each.to_yolo()


@pytest.mark.parametrize(("tolerance", "least"), [(None, 1.0), (0.0, 1.0), (1.0, 0.97)])
def test_coco_file_is_a_dataset(tmp_path: Path, tolerance: float | None, least: float) -> None:
    (tmp_path / "images").mkdir()
    path, image = photo(tmp_path / "images")
    path.with_name("else.png").write_bytes(path.read_bytes())
    with CocoFile(tmp_path / "labels.json", tmp_path / "images", tolerance) as file:
        file.add(odd_detections(image, str(path)))
        file.add(odd_detections(image)[:0], "somewhere/else.png")
    coco = COCO(tmp_path / "labels.json")
    assert [each["file_name"] for each in coco.imgs.values()] == ["photo.png", "else.png"]
    assert sorted(coco.anns) == [1, 2, 3, 4]
    for annotation, mask in zip(coco.anns.values(), odd_bitmaps(), strict=True):
        assert iou(coco.annToMask(annotation), mask) >= least
    dataset = open_dataset(str(tmp_path / "labels.json"), "train")  # by our own reader
    assert dataset.categories.names == NAMES
    assert len(dataset.annotations(0)) == 4


@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_each_line_is_in_the_file_at_once(tmp_path: Path, kind: str) -> None:
    """Whatever ends a run, even its process, what came before is there."""
    with ResultFolder(tmp_path, [kind]) as folder:
        for number in range(1, 3):
            folder.add(odd_detections(), "frame")
            lines = (tmp_path / f"detections.{kind}").read_text().splitlines()
            assert len(lines) == (number if kind == "jsonl" else 1 + 4 * number)


def test_labels_that_somebody_corrected_are_kept(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path, image = photo(tmp_path)
    path.with_suffix(".json").write_text("mine")
    with ResultFolder(tmp_path, ["labelme"]) as folder:
        folder.add(odd_detections(image, str(path)), "photo")
    assert path.with_suffix(".json").read_text() == "mine"
    assert "photo.json is there already" in caplog.text


def test_two_images_of_one_name_keep_their_files(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = {"model": "m"}
    sources = [str(tmp_path / day / "1.png") for day in ("monday", "Tuesday")]
    path, image = photo(tmp_path)
    for source in map(Path, sources):
        source.parent.mkdir()
        source.write_bytes(path.read_bytes())
    kinds: list[Kind] = ["json", "cutouts"]
    with ResultFolder(tmp_path / "out", kinds, settings=settings) as folder:
        folder.add(odd_detections(image, sources[0])[:2], "1")
    for _ in range(2):
        with ResultFolder(tmp_path / "out", kinds, settings=settings, resume=True) as folder:
            for source in folder.missing(sources):
                folder.add(odd_detections(image, source)[2:3], Path(source).stem)
    written = sorted(file.name for file in (tmp_path / "out").rglob("1*"))
    label = [name.partition("_")[2] for name in written if name.startswith("1_0")]
    assert len(label) == 2
    assert [name for name in written if name.endswith(".json")] == ["1.json", "1_2.json"]
    assert len([name for name in written if name.startswith("1_2_000")]) == 1
    assert caplog.messages == [
        f"{sources[1]}: {sources[0]} has the files called 1; its own are 1_2"
    ]


@pytest.mark.parametrize("settings", [None, {"score_threshold": 0.5}])
def test_an_image_done_again_keeps_no_pictures_of_before(
    tmp_path: Path, settings: dict[str, float] | None
) -> None:
    path, image = photo(tmp_path)
    found = odd_detections(image, str(path))
    for chosen in (found[:3], found[1:2], found[:0]):
        with ResultFolder(tmp_path / "out", ["masks", "cutouts"], settings=settings) as folder:
            folder.add(chosen, "photo")
            folder.add(found[:1], "photo_000")
        (tmp_path / "out" / "masks" / "photo_001_mine.png").write_bytes(b"mine")
        names = [file.name for file in sorted((tmp_path / "out").rglob("photo_0*.png"))]
        of_image = [n for n in names if not n.startswith("photo_000_000")]
        assert len(of_image) == 2 * len(chosen) + 1
        assert len(names) == len(of_image) + 2


def test_names_that_were_numbered_are_done(tmp_path: Path) -> None:
    path, image = photo(tmp_path)
    other = path.with_name("other.png")
    other.write_bytes(path.read_bytes())
    wanted = {str(path): "x", str(other): "x"}
    done = []
    for _ in range(3):
        with ResultFolder(tmp_path / "out", ["json"], settings={"a": 1}, resume=True) as folder:
            missing = folder.missing(wanted)
            for source in missing:
                folder.add(odd_detections(image, source), wanted[source])
        done.append(len(missing))
    assert done == [2, 0, 0]


def test_images_from_memory_are_images_of_their_own(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with ResultFolder(tmp_path, ["json", "jsonl", "csv", "coco"]) as folder:
        for _ in range(3):
            folder.add(odd_detections()[:1], "frame")
    written = sorted(file.name for file in (tmp_path / "json").iterdir())
    names = ["frame", "frame_2", "frame_3"]
    assert written == [f"{name}.json" for name in names]
    rows = list(csv.DictReader((tmp_path / "detections.csv").open(newline="")))
    assert [row["source"] for row in rows] == names
    lines = (tmp_path / "detections.jsonl").read_text().splitlines()
    assert [json.loads(line)["source"] for line in lines] == names
    coco = json.loads((tmp_path / "detections_coco.json").read_text())
    assert [image["file_name"] for image in coco["images"]] == names
    assert caplog.messages[0] == (
        "image 2 from memory: image 1 from memory has the files called frame; its own are frame_2"
    )


@pytest.mark.parametrize("name", ["", ".", "..", "../a", "sub/../../a", "/a", "/"])
def test_names_that_are_none_or_leave_the_folder_are_refused(tmp_path: Path, name: str) -> None:
    found = odd_detections()
    with ResultFolder(tmp_path / "out" / "in", ["json"]) as folder:
        for write in (folder.add, folder.write):
            with pytest.raises(ValueError, match="expected the name of an image's files"):
                write(found, name)
    assert list(tmp_path.rglob("*.json")) == []


def test_a_folder_that_is_not_open_is_told(tmp_path: Path) -> None:
    folder = ResultFolder(tmp_path, ["csv"])
    for _ in range(2):
        with pytest.raises(ValueError, match="is not open: use it in a `with` statement"):
            folder.add(odd_detections(), "a")
        with folder:
            folder.add(odd_detections(), "a")
    assert len((tmp_path / "detections.csv").read_text().splitlines()) == 5


@pytest.mark.skipif(sys.platform == "win32", reason="no such locks")
def test_a_folder_is_open_once_also_in_one_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        with ResultFolder(tmp_path / "out", ["csv"]), ResultFolder("out", ["csv"], table="other"):
            for folder in ("out", tmp_path / "out"):
                with pytest.raises(UsageError, match="another run writes detections there"):
                    ResultFolder(folder, ["csv", "coco"]).__enter__()


def test_a_table_has_track_ids_or_none(tmp_path: Path) -> None:
    found = odd_detections()
    tracked = replace(found, track_ids=torch.arange(len(found)))
    for first, second in ((found, tracked), (tracked, found)):
        with ResultFolder(tmp_path, ["csv"]) as folder:
            folder.add(first, "a")
            folder.add(second[:0], "b")
            with pytest.raises(ValueError, match="csv has the columns .*, and these results "):
                folder.add(second, "c")
        rows = list(csv.DictReader((tmp_path / "detections.csv").open(newline="")))
        assert [row["name"] for row in rows] == list(NAMES)


def test_coco_file_can_be_written_anew(tmp_path: Path) -> None:
    file = CocoFile(tmp_path / "labels.json")
    for _ in range(2):
        with file:
            file.add(odd_detections(), "a.png")
        content = json.loads(file.path.read_text())
        assert [len(content[key]) for key in ("images", "annotations")] == [1, 4]


def test_coco_file_tells_images_of_one_name_apart(tmp_path: Path) -> None:
    for camera in ("1", "2"):
        (tmp_path / camera).mkdir()
        photo(tmp_path / camera)
    with CocoFile(tmp_path / "out" / "labels.json") as file:
        for camera in ("1", "2"):
            file.add(odd_detections(), str(tmp_path / camera / "photo.png"))
        with pytest.raises(ValueError, match="without a source: name it by source="):
            file.add(odd_detections())
        for name in ("left/0001", "right/0001", "clip.mp4#0", "/not/there/c.png"):
            file.add(odd_detections(), name)
    images = json.loads(file.path.read_text())["images"]
    names = ["../1/photo.png", "../2/photo.png", "left/0001", "right/0001", "clip.mp4#0", "c.png"]
    assert [image["file_name"] for image in images] == names


def test_coco_file_keeps_what_there_is_after_an_error(tmp_path: Path) -> None:
    found, path = odd_detections(), tmp_path / "new" / "labels.json"
    with pytest.raises(KeyboardInterrupt), CocoFile(path) as file:
        file.add(found, "a.png")
        raise KeyboardInterrupt
    assert [file.name for file in path.parent.iterdir()] == ["labels.json"]
    assert len(json.loads(path.read_text())["annotations"]) == 4
    with pytest.raises(ValueError, match="is not open: use it in a `with` statement"):
        file.add(found, "b.png")
    with CocoFile(path) as file, pytest.raises(ValueError, match="holds other classes than"):
        file.add(found, "a.png")
        file.add(replace(found, class_names=("x", *NAMES[1:])), "b.png")


def test_coco_file_of_many_images_takes_no_memory(tmp_path: Path) -> None:
    """Annotations go to the file at once; of an image only its name and size are kept."""
    with CocoFile(tmp_path / "labels.json", tolerance=None) as file:
        for number in range(300):
            file.add(odd_detections(), f"{number}.png")
        size = next(tmp_path.glob(".labels.json*")).stat().st_size
        assert size > 300 * 4 * 150 - 2**16  # all but a buffer
    assert len(json.loads((tmp_path / "labels.json").read_text())["images"]) == 300


class FullTable(io.StringIO):
    def write(self, text: str) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_a_full_disk_under_a_table_is_told(
    kind: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    said = rf"^cannot write out/detections.{kind}: disk full$"
    with ResultFolder("out", [kind]) as folder:
        monkeypatch.setattr(folder._combined, "_tables", {kind: FullTable()})
        with pytest.raises(OSError, match=said) as told:
            folder.add(odd_detections(), "a")
    assert is_fatal(told.value)
