"""`Predictor.tiled` and --tile: with a trained model, on files, arrays and what only has parts."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image as PilImage
from support.rectangles import Recorder
from support.tiny import SETTINGS
from test_scripts import script

import eval as eval_script
from data import images
from data.images import Image, read_image
from data.shapes.large_scenes import large_scene
from data.shapes.scenes import ShapeScenes
from yolact import Predictor, build_model, get_config
from yolact.checkpoint import save_checkpoint
from yolact.cli.common import run_command
from yolact.errors import OptionError
from yolact.results.detections import Detections


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return Predictor.from_checkpoint("yolact_resnet18_shapes", device="cpu", engine="eager")


@pytest.fixture(scope="module")
def scene() -> Image:
    return large_scene(300, (40, 110), seed=1)[0]


def equal(one: Detections, other: Detections) -> bool:
    names = ("boxes", "scores", "labels", "soft_masks", "mask_frames", "box_scores")
    same = all(torch.equal(getattr(one, name), getattr(other, name)) for name in names)
    return same and (one.image_hw, one.class_names) == (other.image_hw, other.class_names)


def test_an_image_no_larger_than_a_tile_is_segmented_as_it_is(
    predictor: Predictor, scene: Image
) -> None:
    for tile in (300, 2000):
        tiled = predictor.tiled(scene, tile, score_threshold=0, top_k=7)
        assert equal(tiled, predictor(scene, score_threshold=0, top_k=7))
        assert len(tiled) == 7


def test_tiles_find_small_objects(predictor: Predictor) -> None:
    image, truth = large_scene(900, (40, 110), seed=1)
    centres = [(x + w / 2, y + h / 2) for x, y, w, h in (entry["bbox"] for entry in truth)]

    def recall(found: Detections) -> float:
        boxes = found.boxes.tolist()
        hits = [any(a <= x <= c and b <= y <= d for a, b, c, d in boxes) for x, y in centres]
        return sum(hits) / len(hits)

    assert recall(predictor.tiled(image, 300)) >= 0.8
    assert recall(predictor(image)) < 0.5


def test_files_and_arrays_know_their_picture(
    predictor: Predictor, scene: Image, tmp_path: Path
) -> None:
    path = tmp_path / "scene.png"
    PilImage.fromarray(scene).save(path)
    np.save(tmp_path / "scene.npy", scene)
    mapped = np.load(tmp_path / "scene.npy", mmap_mode="r")
    parts = Recorder(scene)
    named, plain, memmap, read = (predictor.tiled(x, 200) for x in (path, scene, mapped, parts))
    assert equal(named, plain) and equal(memmap, plain) and equal(read, plain)
    assert (named.source, plain.source) == (str(path), "")
    assert np.array_equal(named.image, scene)
    assert memmap.image is mapped
    assert parts.largest == 200
    with pytest.raises(ValueError, match="give the image to this call"):
        _ = read.image
    assert read.plot(scene).shape == scene.shape
    assert list(plain.scores) == sorted(plain.scores, reverse=True)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"tile": 0}, "tile=0: expected a whole number, at least 1"),
        ({"tile": 99.5}, "tile=99.5: expected a whole number, at least 1, or a part of the longer"),
        ({"tile": 1.0}, "tile=1.0: expected a whole number"),
        ({"tile": float("nan")}, "tile=nan: expected a whole number"),
        ({"overlap": 1}, "overlap=1: expected a number from 0 to 0.9"),
        ({"overlap": -0.1}, "overlap=-0.1: expected a number from 0 to 0.9"),
        ({"overlap": float("nan")}, "overlap=nan: expected a number from 0 to 0.9"),
        ({"max_pixels": 0}, "max_pixels=0: expected a whole number"),
        ({"top_k": 0}, "top_k=0: expected a whole number"),
        ({"classes": ["dog"]}, "classes='dog': no such class"),
    ],
)
def test_impossible_arguments_are_refused(
    predictor: Predictor, scene: Image, arguments: dict[str, object], problem: str
) -> None:
    with pytest.raises(OptionError, match=problem):
        predictor.tiled(scene, **arguments)


@pytest.mark.parametrize("given", [np.zeros((0, 5, 3), np.uint8), np.zeros((2, 5, 7)), [], None])
def test_what_is_no_image_is_refused(predictor: Predictor, given: object) -> None:
    with pytest.raises(ValueError, match="image"):
        predictor.tiled(given)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a checkpoint, two scenes, and a file that is none."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    config = get_config("yolact_resnet18").override(
        *SETTINGS, "detect.score_threshold=0.0", "detect.max_detections=8"
    )
    save_checkpoint(tmp_path / "tiny.pth", build_model(config), config)
    (tmp_path / "in").mkdir()
    for index in range(2):
        PilImage.fromarray(ShapeScenes(2, 90).sample(index).image).save(f"in/{index}.png")
    (tmp_path / "in" / "broken.png").write_bytes(b"")
    return tmp_path


PART = f"--tile={50 / 90}"


def predict(*flags: str) -> int:
    shared = ["--trained_model=tiny.pth", "--device=cpu", "--engine=eager"]
    shared += ["--score_threshold=0", "--top_k=5", "--tile=50"]
    return run_command(eval_script.main, [*shared, *flags])


def test_the_command_line(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "MAX_PIXELS", 90 * 90 - 1)
    assert predict("--max_pixels=8100", "--save_json", "--image=in/0.png:one/0.png") == 0
    assert predict("--max_pixels=8100", "--save_json", "--images=in:all") == 1  # the broken one
    assert predict("--max_pixels=8100", "--save_json", "--image=in/1.png:part/1.png", PART) == 0
    predictor = Predictor.from_checkpoint("tiny.pth", device="cpu", engine="eager")
    for name, file in (("0", "one"), ("0", "all"), ("1", "all"), ("1", "part")):
        content = json.loads(Path(f"{file}/json/{name}.json").read_text())
        path = f"in/{name}.png"
        found = predictor.tiled(path, 50, score_threshold=0, top_k=5, max_pixels=8100)
        assert content == found.to_dict()
        assert len(found) == 5
        assert read_image(f"{file}/{name}.png", max_pixels=8100).shape == (90, 90, 3)
    assert predict("--no_overview", "--image=in/0.png:small.png") == 1
    assert not Path("small.png").exists()


def test_the_benchmark(
    predictor: Predictor, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    main = script("bench_tiles")["main"]
    loaded = SimpleNamespace(from_checkpoint=lambda name: predictor)
    monkeypatch.setitem(main.__globals__, "Predictor", loaded)
    huge = 300 if sys.platform == "linux" else 0  # which tells how much memory is one's own
    main(["--images=1", "--side=400", "--tile=300", f"--huge={huge}"])
    out = capsys.readouterr().out
    assert len(re.findall(r"^\| tiles and overview \|( \S+ \|){9}$", out, re.MULTILINE)) == 2
    assert len(re.findall(r"^\| single, at most \d+ cells.* 1\.000 \|$", out, re.MULTILINE)) >= 2
    assert not huge or "300 x 300 pixels, 0 MB" in out


@pytest.mark.parametrize(
    ("flags", "problem"),
    [
        (["--tile=400", "--max_pixels=9"], "--max_pixels does nothing with the evaluation of a"),
        (["--tile=400", "--video=0"], "--tile does nothing with --video: it is for --image"),
        (["--tile=400", "--benchmark"], "--tile does nothing with --benchmark: it is for --image"),
        (["--overlap=0.3", "--image=a"], "are for tiles: add --tile=1024"),
        (["--no_overview", "--images=a"], "are for tiles: add --tile=1024"),
        (["--max_pixels=9", "--image=a"], "are for tiles: add --tile=1024"),
        (["--tile=0", "--image=a"], "--tile=0: expected a whole number, at least 1, or a part of"),
        (["--tile=1.5", "--image=a"], "--tile=1.5: expected a whole number, at least 1, or a part"),
        (["--tile=0.0", "--image=a"], "--tile=0: expected a whole number"),
        (["--tile=9", "--overlap=1", "--image=a"], "--overlap=1: expected a number"),
        (["--tile=9", "--max_pixels=0", "--image=a"], "--max_pixels=0: expected a whole number"),
        (["--tile=9", "--display_lincomb", "--image=a"], "--tile: not with --display_lincomb"),
        (["--tile=9", "--mask_proto_debug", "--image=a"], "nor with --mask_proto_debug"),
    ],
)
def test_flags_without_effect_are_refused(
    flags: list[str], problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(eval_script.main, flags) == 2
    assert problem in capsys.readouterr().err
