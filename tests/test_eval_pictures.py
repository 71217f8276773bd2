"""eval.py on images, folders and videos: what is drawn, and where it lies."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from support.evaluate import evaluate

import eval as eval_script
from data.video.reader import open_video
from yolact.cli import from_flags
from yolact.drawing.window import has_display

pytestmark = pytest.mark.usefixtures("in_evaluation_place")


def test_plain_engine_segments_a_video(capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate("--engine=plain", "--video=clip.mp4:plain.mp4") == 0
    with open_video("plain.mp4") as video:
        assert len(list(video)) == 5


def test_plain_engine_draws_and_writes_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    for engine in ("plain", "eager"):
        flags = [f"--engine={engine}", "--precision=float32", "--top_k=3"]
        assert evaluate(f"--image=scenes/val/000001.jpg:out/{engine}.png", *flags) == 0
    plain, eager = (cv2.imread(f"out/{name}.png").astype(int) for name in ("plain", "eager"))
    assert np.abs(plain - eager).max() <= 3


def test_one_image(capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--display_lincomb=True", "--mask_proto_debug", "--top_k=2"]
    assert evaluate("--image=scenes/val/000001.jpg:out/picture.png", *flags) == 0
    *files, _, _, last = capsys.readouterr().out.split()[-5:]
    assert last == "out/picture_lincomb2.png"
    assert cv2.imread("out/picture.png").shape == (96, 96, 3)
    assert np.load("results/proto.npy").shape == (32, 16, 16)
    assert np.load("results/masks.npy").shape[1:] == (16, 16)


@pytest.mark.parametrize("flags", [[], ["--no_picture", "--save_json"]])
def test_explanations_of_an_earlier_run_are_removed(flags: list[str]) -> None:
    for top_k, left in ((3, ["1", "2", "3"]), (1, ["1"])):
        given = ["--display_lincomb=True", f"--top_k={top_k}", *flags]
        assert evaluate("--image=scenes/val/000001.jpg:out/more.png", *given) == 0
        found = sorted(Path("out").glob("more_lincomb*.png"))
        assert [path.stem.removeprefix("more_lincomb") for path in found] == left


def test_drawing_switches_change_the_picture() -> None:
    seen = set()
    for part in ("none", "masks", "bboxes", "text", "scores"):
        out = f"out/{part}.png"
        switch = "--no_bar" if part == "none" else f"--display_{part}=False"
        image = f"--image=scenes/val/000001.jpg:{out}"
        assert evaluate(image, switch, "--engine=eager", "--precision=float32") == 0
        seen.add(Path(out).read_bytes())
    assert len(seen) == 5


@pytest.mark.skipif(has_display(), reason="a window would open")
def test_without_a_display_pictures_are_written(capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate("--image=scenes/val/000002.jpg") == 0
    assert capsys.readouterr().out.splitlines()[-1] == "results/000002.png"
    assert evaluate("--video=clip.mp4") == 0
    assert Path("results/clip.mp4").exists()
    assert evaluate("--display", "--max_images=1") == 1
    assert "no display" in capsys.readouterr().err


def test_a_folder_of_images_passes_over_what_is_broken(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    folder = Path("mixed")
    shutil.copytree("scenes/val", folder)
    (folder / "Thumbs.db").write_bytes(b"no image")
    assert evaluate("--images=mixed:out") == 0
    assert capsys.readouterr().out.split() == [f"out/00000{i}.png" for i in (1, 2, 3)]
    assert evaluate("--images=mixed/*2.jpg:out") == 0
    assert capsys.readouterr().out.split() == ["out/000002.png"]
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff no jpeg")
    assert evaluate("--images=mixed:out") == 1
    captured = capsys.readouterr()
    assert len(captured.out.split()) == 3
    assert "broken.jpg" in caplog.text
    assert captured.err.splitlines()[-1] == "error: 1 of 4 images could not be read or written"


@pytest.mark.parametrize("source", ["shots", "shots/*/a.jpg", "shots/**/*.jpg"])
def test_pictures_lie_as_their_images_do(source: str, capsys: pytest.CaptureFixture[str]) -> None:
    for number in (1, 2, 3):
        Path(f"shots/{number}").mkdir(parents=True, exist_ok=True)
        shutil.copy(f"scenes/val/00000{number}.jpg", f"shots/{number}/a.jpg")
    assert evaluate(f"--images={source}:shots/pictures") == 0
    assert evaluate(f"--images={source}:shots/pictures") == 0  # again, beside what was written
    names = [f"shots/pictures/{number}/a.png" for number in (1, 2, 3)]
    assert capsys.readouterr().out.split() == 2 * names
    assert len({Path(name).read_bytes() for name in names}) == 3
    shutil.rmtree("shots/pictures")


@pytest.mark.parametrize(
    "flag",
    [
        "--image=scenes/val/000001.jpg:b.xyz",
        "--image=scenes/val/000001.jpg:scenes/val/000001.jpg",
        "--video=clip.mp4:b.xyz",
        "--video=clip.mp4:clip.mp4",
        "--image=scenes/val/000001.jpg:scenes",
        "--image=scenes/val/000001.jpg:clip.mp4/out.png",
        "--video=clip.mp4:scenes",
        "--images=nothing",
        "--images=scenes:out.png",
        "--images=scenes:clip.mp4",
        "--images=scenes:clip.mp4/out",
        "--images=scenes/val:scenes/val",
        "--images=scenes/*/*.jpg:scenes",
        "--display",
        "--dataset=nowhere",
    ],
)
@pytest.mark.usefixtures("no_window")
def test_what_cannot_be_is_refused_before_the_network_is_loaded(
    flag: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(from_flags.Predictor, "from_parts", lambda *_: pytest.fail("loaded"))
    before = Path("clip.mp4").read_bytes()
    assert evaluate(flag) == 1
    assert capsys.readouterr().err.splitlines()[-1].startswith("error: ")
    assert Path("clip.mp4").read_bytes() == before


@pytest.fixture
def no_window(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(eval_script, "has_display", lambda: False)


@pytest.mark.parametrize(
    "more",
    [
        [],
        ["--video_multiframe=2"],
        ["--display_fps"],
        ["--emulate_playback"],
        ["--keyframes=2", "--video_multiframe=2"],
        ["--keyframes=auto", "--display_fps"],
    ],
)
def test_a_video(more: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate("--video=clip.mp4:out.mp4", *more) == 0
    assert capsys.readouterr().out.startswith("5 frames in ")
    with open_video("out.mp4") as video:
        assert video.image_hw == (48, 64)
        assert sum(1 for _ in video) == 5
