"""The small scripts, run as a user would."""

from __future__ import annotations

import json
import runpy
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from support.golden import Golden
from support.tiny import SETTINGS, make_dataset

from data.images import read_image
from data.video.reader import open_video
from yolact import build_model, get_config
from yolact.checkpoint import read_checkpoint, save_checkpoint
from yolact.cli.common import run_command
from yolact.formats.official import to_official

SCRIPTS = Path(__file__).parents[1] / "scripts"


def script(name: str) -> dict[str, Any]:
    return runpy.run_path(str(SCRIPTS / f"{name}.py"))


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    config = get_config("yolact_resnet18").override(*SETTINGS)
    path = tmp_path / "ours.pth"
    save_checkpoint(path, build_model(config), config, {"iteration": 7})
    return path


def test_convert_there_and_back_is_lossless(checkpoint: Path, tmp_path: Path) -> None:
    main = script("convert_checkpoint")["main"]
    official, back = tmp_path / "official.pth", tmp_path / "back.pth"
    assert run_command(main, [str(checkpoint), str(official), "--to=official"]) == 0
    there = torch.load(official, weights_only=True)
    assert "prediction_layers.0.conf_layer.weight" in there
    ours = read_checkpoint(checkpoint)
    assert ours.config is not None
    model = build_model(ours.config)
    model.load_state_dict(ours.model)
    assert set(there) == set(to_official(model.state_dict()))

    assert run_command(main, [str(checkpoint), str(back), "--half", "--set=dataset=coco2017"]) == 0
    half = read_checkpoint(back)
    assert half.training == {}
    assert half.config == ours.config.override("dataset=coco2017")
    assert all(torch.allclose(half.model[n], t, atol=2e-3) for n, t in ours.model.items())


def test_convert_an_official_file(golden_root: Path, tmp_path: Path) -> None:
    golden = Golden(golden_root / "yolact_resnet50.npz")
    official = tmp_path / "yolact_resnet50_54_800000.pth"
    state = golden.official_state_dict()
    torch.save({f"module.{name}": tensor for name, tensor in state.items()}, official)
    main = script("convert_checkpoint")["main"]
    ours, again = tmp_path / "ours.pth", tmp_path / "again.pth"
    assert run_command(main, [str(official), str(ours)]) == 0
    assert run_command(main, [str(ours), str(again), "--to=official"]) == 0
    back = torch.load(again, weights_only=True)
    assert set(back) == set(state)
    assert all(torch.equal(back[name], tensor) for name, tensor in state.items())


def test_overfit_copies_annotated_images(tmp_path: Path) -> None:
    parts = script("overfit")
    dataset = make_dataset(tmp_path / "scenes")
    parts["make_subset"](str(dataset), 2, 0.005, tmp_path / "few")
    assert len(list((tmp_path / "few" / "train").iterdir())) == 2
    assert (tmp_path / "few" / "annotations" / "instances_val.json").exists()


def test_overfit_keeps_what_there_is_until_there_is_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And copies images into the folders that annotations name."""
    dataset = make_dataset(tmp_path / "scenes")
    file = next(dataset.rglob("*train*.json"))
    content = json.loads(file.read_text())
    for number, image in enumerate(content["images"]):
        source = dataset / "train" / image["file_name"]
        image["file_name"] = f"{number}/a{source.suffix}"
        (dataset / "train" / str(number)).mkdir()
        source.rename(dataset / "train" / image["file_name"])
    file.write_text(json.dumps(content))
    earlier = tmp_path / "out" / "data" / "annotations"
    earlier.mkdir(parents=True)
    main = script("overfit")["main"]
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: SimpleNamespace(returncode=1))
    flags = [f"--output={tmp_path / 'out'}", "--images=2", "--min_area=0.005"]
    assert run_command(main, ["nowhere", *flags]) == 1
    assert earlier.is_dir()
    assert run_command(main, [str(dataset), *flags]) == 1
    assert len(list((tmp_path / "out" / "data" / "train").rglob("a.*"))) == 2


def test_bench_loader(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dataset = make_dataset(tmp_path / "scenes")
    main = script("bench_loader")["main"]
    assert run_command(main, [str(dataset), "--image_size=64", "--images=2"]) == 0
    assert "images/s" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "told"),
    [([], {"2 detections at": 3, "run lengths": 3}), (["--compare"], {"F.interpolate": 8})],
)
def test_bench_pixels(
    flags: list[str], told: dict[str, int], capsys: pytest.CaptureFixture[str]
) -> None:
    threads = torch.get_num_threads()
    script_globals = script("bench_pixels")
    script_globals["main"].__globals__["ROUNDS"] = 1
    assert run_command(script_globals["main"], ["--detections=2", *flags]) == 0
    torch.set_num_threads(threads)
    out = capsys.readouterr().out
    assert {text: out.count(text) for text in told} == told


def test_the_ways_that_are_compared_give_the_same() -> None:
    parts = script("bench_pixels")
    for crop in (True, False):
        found, _ = parts["make_detections"](3, (40, 60), crop)
        assert (parts["resize"](found) == parts["paste"](found)).float().mean() > 0.999
        texts = parts["encode"](found)
        assert parts["without_kernels"](lambda f=found: parts["encode"](f)) == texts
        lengths = [len(text) for text in texts]
        assert [len(t) for t in parts["resize_and_encode"](found)] == pytest.approx(lengths, abs=4)


def test_the_demo_has_a_video_of_its_photograph(tmp_path: Path) -> None:
    parts = script("demo")
    parts["fly_over"](parts["PORTRAIT"], tmp_path / "clip.mp4", frames=3)
    height, width = read_image(parts["PORTRAIT"]).shape[:2]
    with open_video(str(tmp_path / "clip.mp4")) as video:
        assert [frame.shape for frame in video] == [(height, width, 3)] * 3


def test_the_pictures_of_the_method_are_small(tmp_path: Path) -> None:
    assert script("method_pictures")["main"]([f"--folder={tmp_path}"]) == 0
    pictures = {file.name: file for file in tmp_path.iterdir()}
    assert set(pictures) == {"prototypes.jpg", "combination.jpg"}
    for file in pictures.values():
        assert read_image(file).shape[1] >= 800
    assert sum(file.stat().st_size for file in pictures.values()) < 150_000
