"""The flags of eval.py that write results as files, for images, folders and videos alike."""

from __future__ import annotations

import csv
import json
import logging
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from pycocotools import mask as mask_utils
from pycocotools.coco import COCO
from support.tiny import make_dataset, save_tiny

import eval as eval_script
from data.shapes.clip import export_clip, shape_clip
from yolact import Predictor
from yolact.cli.common import run_command

ALL = ("json", "csv", "coco", "txt", "labelme", "masks", "crops", "cutouts")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with "in/0.jpg", "in/deep/0.jpg", "clip.mp4" and a checkpoint that finds much."""
    folder = tmp_path_factory.mktemp("place")
    make_dataset(folder / "scenes", 1, 2)
    first, second = sorted((folder / "scenes" / "val").glob("*.jpg"))
    (folder / "in" / "deep").mkdir(parents=True)
    first.rename(folder / "in" / "0.jpg")
    second.rename(folder / "in" / "deep" / "0.jpg")
    save_tiny(folder / "tiny.pth")
    export_clip(folder / "clip.mp4", shape_clip(5, (48, 64)))
    return folder


@pytest.fixture(autouse=True)
def in_place(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("in", "clip.mp4", "tiny.pth"):
        (tmp_path / name).symlink_to(place / name)
    monkeypatch.chdir(tmp_path)
    level = logging.getLogger().level
    yield
    logging.getLogger().setLevel(level)


def predict(*flags: str) -> int:
    shared = ["--trained_model=tiny.pth", "--device=cpu", "--score_threshold=0", "--top_k=3"]
    return run_command(eval_script.main, [*shared, *flags])


def files_below(folder: str) -> list[str]:
    files = (p for p in Path(folder).rglob("*") if p.is_file() and p.name[0] != ".")
    return sorted(p.relative_to(folder).as_posix() for p in files)


def test_a_folder_in_every_form() -> None:
    others = [f"--save_{kind}" for kind in ALL if kind != "labelme"]
    assert predict("--images=in:out", *others) == 0
    assert predict("--images=in:out", "--save_labelme", "--no_picture") == 0
    names = ("0", "deep/0")
    written = files_below("out")
    for name in names:
        for expected in (f"{name}.png", f"{name}.json", f"json/{name}.json", f"labels/{name}.txt"):
            assert expected in written
        found = json.loads(Path(f"out/json/{name}.json").read_text())
        assert (found["source"], len(found["objects"])) == (f"in/{name}.jpg", 3)
        for number, entry in enumerate(found["objects"]):
            stem = f"{name}_{number:03}_{entry['name']}.png"
            mask = cv2.imread(f"out/masks/{stem}", cv2.IMREAD_UNCHANGED)
            assert np.array_equal(mask > 0, mask_utils.decode(entry["segmentation"]))
            assert {f"crops/{stem}", f"cutouts/{stem}"} <= set(written)
    coco = COCO("out/detections_coco.json")
    assert [image["file_name"] for image in coco.imgs.values()] == ["0.jpg", "deep/0.jpg"]
    table = Path("out/detections.csv").read_text().splitlines()
    assert len(list(csv.DictReader(table))) == 6
    assert json.loads(Path("out/deep/0.json").read_text())["imagePath"].endswith("in/deep/0.jpg")


def test_files_without_pictures_may_lie_among_the_images(place: Path) -> None:
    assert predict("--images=in:in", "--save_json") == 1  # pictures would lie among the images
    assert predict("--images=in:in", "--save_labelme", "--no_picture") == 0
    assert files_below("in") == ["0.jpg", "0.json", "deep/0.jpg", "deep/0.json"]
    assert json.loads(Path("in/0.json").read_text())["imagePath"] == "0.jpg"
    Path("in/0.json").write_text("corrected")
    assert predict("--images=in:in", "--save_labelme", "--no_picture") == 0
    assert Path("in/0.json").read_text() == "corrected"
    for file in (place / "in").rglob("*.json"):
        file.unlink()


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--images=in:out", "--save_labelme"], "--save_labelme needs --no_picture"),
        (["--image=in/0.jpg:a.png", "--save_labelme"], "--save_labelme needs --no_picture"),
        (["--video=clip.mp4:a.mp4", "--save_labelme", "--no_picture"], "--save_labelme labels"),
        (["--images=in:out", "--no_picture"], "--no_picture leaves nothing"),
        (["--video=clip.mp4:a.mp4", "--no_picture"], "--no_picture leaves nothing"),
    ],
)
def test_what_would_be_of_no_use_is_refused(
    flags: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert predict(*flags) == 2
    assert told in capsys.readouterr().err
    assert not Path("out").exists()


@pytest.mark.parametrize("source", ["--image=in/0.jpg", "--images=in", "--video=clip.mp4"])
def test_lines_of_json_alone_write_no_file_that_nobody_named(
    source: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = files_below(".")
    assert predict(source, "--json", "--quiet") == 0
    assert files_below(".") == before
    assert not Path("results").exists()
    assert json.loads(capsys.readouterr().out.splitlines()[0])["objects"]
    if source != "--video=clip.mp4":
        assert predict(source, "--json", "--quiet", "--save_labelme") == 0
    output = {"--image=in/0.jpg": "new.png", "--images=in": "new", "--video=clip.mp4": "new.mp4"}
    assert predict(f"{source}:{output[source]}", "--json") == 0
    assert files_below(".") != before


def test_boxes_of_annotations_are_those_of_their_outlines() -> None:
    assert predict("--images=in:out", "--save_coco", "--no_picture") == 0
    coco = COCO("out/detections_coco.json")
    assert coco.anns
    for entry in coco.anns.values():
        area = mask_utils.toBbox(coco.annToRLE(entry))
        assert entry["bbox"] == area.tolist() or not area.any()


def test_one_image_beside_its_picture(capsys: pytest.CaptureFixture[str]) -> None:
    assert predict("--image=in/0.jpg:new/a.png", "--save_json", "--save_csv") == 0
    assert files_below("new") == ["a.csv", "a.png", "json/a.json"]
    assert capsys.readouterr().out.splitlines()[-3:] == ["new/a.png", "new/json", "new/a.csv"]
    assert predict("--image=in/0.jpg", "--save_txt", "--no_picture") == 0
    assert files_below("results") == ["labels/0.txt", "labels/classes.txt"]


def test_a_video_in_lines_of_json() -> None:
    flags = ["--save_json", "--save_csv", "--save_crops", "--no_picture"]
    assert predict("--video=clip.mp4:new/b.mp4", *flags) == 0
    lines = [json.loads(line) for line in Path("new/b.jsonl").read_text().splitlines()]
    assert [line["source"] for line in lines] == [f"clip.mp4#{n}" for n in range(5)]
    crops = [name for name in files_below("new") if name.startswith("crops/b_000004_")]
    assert len(crops) == len(lines[4]["objects"]) == 3
    assert not Path("new/b.mp4").exists()


def test_lines_of_json_tell_the_time_and_tracks() -> None:
    for name, flags in (("plain", []), ("tracks", ["--track"])):
        saved = ["--save_json", "--save_csv", "--no_picture", *flags]
        assert predict(f"--video=clip.mp4:{name}/a.mp4", *saved) == 0
    plain, tracks = (
        [json.loads(line) for line in Path(name, "a.jsonl").read_text().splitlines()]
        for name in ("plain", "tracks")
    )
    times = [line["seconds"] for line in tracks]
    assert (
        times == [line["seconds"] for line in plain] == pytest.approx([0, 0.04, 0.08, 0.12, 0.16])
    )
    assert not any("track_id" in each for line in plain for each in line["objects"])
    ids = [[each["track_id"] for each in line["objects"]] for line in tracks]
    assert all(len(set(each)) == len(each) >= 3 for each in ids)
    rows = list(csv.DictReader(Path("tracks", "a.csv").read_text().splitlines()))
    assert [int(row["track_id"]) for row in rows] == [number for each in ids for number in each]


@pytest.mark.parametrize(
    ("source", "count"), [("--image=in/0.jpg", 1), ("--images=in", 2), ("--video=clip.mp4", 5)]
)
def test_json_to_standard_output(
    source: str, count: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert predict(source, "--json", "--no_picture") == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == count
    assert all(len(json.loads(line)["objects"]) == 3 for line in lines)
    assert files_below("results") == []


def test_quiet_says_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    assert predict("--images=in:out", "--quiet") == 0
    assert capfd.readouterr() == ("", "")
    assert files_below("out") == ["0.png", "deep/0.png"]
    assert predict("--images=nothing", "--quiet") == 1
    assert capfd.readouterr().err.startswith("error: no such file or folder: nothing")


def test_some_of_them(capsys: pytest.CaptureFixture[str]) -> None:
    everything = Predictor.from_checkpoint("tiny.pth", device="cpu")("in/0.jpg", 0.0)
    name = everything.names()[0]
    area = int(everything.areas.float().mean())
    flags = [f"--classes={name},heart", f"--min_area={area}", "--top_k=100", "--json"]
    assert predict("--image=in/0.jpg", "--no_picture", *flags) == 0
    found = json.loads(capsys.readouterr().out)["objects"]
    expected = everything.filter(classes=[name, "heart"], min_area=area)
    assert 0 < len(expected) < len(everything)
    assert [entry["score"] for entry in found] == expected.scores.tolist()
    assert {entry["name"] for entry in found} <= {name, "heart"}


def test_one_object_at_a_place_whatever_its_class(capsys: pytest.CaptureFixture[str]) -> None:
    found = []
    for flag in ("--cross_class_nms=True", "--agnostic_nms"):
        assert predict("--image=in/0.jpg", "--no_picture", "--json", flag) == 0
        found.append(capsys.readouterr().out)
    assert found[0] == found[1]


def test_one_colour_for_a_class() -> None:
    for color in ("class", "instance"):
        assert predict(f"--image=in/0.jpg:{color}.png", f"--color={color}", "--top_k=20") == 0
    assert Path("class.png").read_bytes() != Path("instance.png").read_bytes()


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--save_json"], "--save_json does nothing with the evaluation of a dataset: it is for"),
        (["--benchmark", "--save_masks"], "--save_masks does nothing with --benchmark"),
        (["--image=a.jpg", "--output_coco_json"], "--output_coco_json does nothing with --image"),
        (["--images=a", "--display_lincomb=True"], "--display_lincomb does nothing with --images"),
        (["--image=a.jpg", "--video_multiframe=2"], "it is for --video or --benchmark"),
        (["--image=a.jpg", "--keyframes=2"], "it is for --video or --benchmark"),
        (["--video=a.mp4", "--max_images=3"], "the evaluation of a dataset or --benchmark"),
        (["--image=a.jpg", "--batch_sizes=2"], "--batch_sizes does nothing with --image"),
        (["--image=a.jpg", "--images=b"], "--image and --images are two inputs"),
        (["--image=a.jpg", "--json=a.json"], "--json does nothing with --image"),
        (["--json"], "--json needs the name of a file here"),
        (["--image=a.jpg", "--min_area=-1"], "--min_area=-1: expected at least 0"),
        (["--image=a.jpg", "--color=rainbow"], "invalid choice: 'rainbow'"),
        (["--video=a.mp4", "--tile=9"], "for --image, --images or the evaluation of a dataset"),
        (["--classes=heart"], "--classes does nothing with the evaluation"),
        (["--seed=3"], "--seed does nothing without --shuffle"),
        (["--bbox_det_file=b.json"], "--bbox_det_file does nothing without --output_coco_json"),
        (["--web_det_path=web"], "--web_det_path does nothing without --output_web_json"),
        (["--shuffle", "--no_sort"], "--shuffle and --no_sort are two orders"),
        (["--image=a.jpg", "--detect", "--min_area=9"], "--min_area does nothing with --detect"),
        (["--image=a.jpg", "--detect", "--no_crop"], "--no_crop does nothing with --detect"),
        (["--ap_data_file=in"], "--ap_data_file=in: expected a file, this is a folder"),
    ],
)
def test_what_cannot_act_is_refused(
    flags: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        code = predict(*flags)
    except SystemExit as end:
        code = end.code
    assert code == 2
    assert said in capsys.readouterr().err
