"""The small scripts, run as a user would."""

from __future__ import annotations

import json
import re
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
    assert len(list((tmp_path / "few/images/train").iterdir())) == 2
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
    (tmp_path / "out" / ".overfit").touch()
    (tmp_path / "out" / "notes.txt").touch()
    (tmp_path / "out" / "yolact_resnet18.log").touch()
    main = script("overfit")["main"]
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: SimpleNamespace(returncode=1))
    flags = [f"--output={tmp_path / 'out'}", "--images=2", "--min_area=0.005"]
    assert run_command(main, ["nowhere", *flags]) == 1
    assert earlier.is_dir()
    assert run_command(main, [str(dataset), *flags]) == 1
    assert len(list((tmp_path / "out/data/images/train").rglob("a.*"))) == 2
    assert (tmp_path / "out" / "notes.txt").exists()
    assert not (tmp_path / "out" / "yolact_resnet18.log").exists()


@pytest.mark.parametrize("output", [".", "..", "project", "file"])
def test_overfit_deletes_nothing_of_others(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    output: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    dataset = make_dataset(tmp_path / "scenes")
    for folder in (tmp_path, tmp_path / "here", tmp_path / "here" / "project"):
        (folder / "data" / "annotations").mkdir(parents=True)
        (folder / "mine.txt").touch()
    (tmp_path / "here" / ".overfit").touch()
    (tmp_path / "here" / "file").touch()
    monkeypatch.chdir(tmp_path / "here")
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: SimpleNamespace(returncode=1))
    flags = [str(dataset), f"--output={output}", "--images=2", "--min_area=0.005"]
    assert run_command(script("overfit")["main"], flags) == 2
    assert f"--output={output}: expected a new or empty folder" in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("flags", "code", "said"),
    [
        (["--iterations=2"], 2, "--iterations=2: expected at least 20"),
        (["--images=0"], 2, "--images=0: expected at least 1"),
        (["--config=nope"], 2, "nope"),
        (["--min_area=0.99"], 1, "give a lower --min_area"),
    ],
)
def test_overfit_refuses_before_it_removes(
    tmp_path: Path, flags: list[str], code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset = make_dataset(tmp_path / "scenes")
    earlier = tmp_path / "out" / "data"
    earlier.mkdir(parents=True)
    (tmp_path / "out" / ".overfit").touch()
    assert (
        run_command(script("overfit")["main"], [str(dataset), f"--output={tmp_path}/out", *flags])
        == code
    )
    assert said in capsys.readouterr().err
    assert earlier.is_dir()


def test_overfit_needs_neither_areas_nor_sizes_and_starts_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = make_dataset(tmp_path / "scenes")
    file = next(dataset.rglob("*train*.json"))
    content = json.loads(file.read_text())
    for entry in content["images"]:
        del entry["width"], entry["height"]
    for entry in content["annotations"]:
        del entry["area"]
    file.write_text(json.dumps(content))
    commands: list[list[str]] = []
    monkeypatch.setattr(
        subprocess, "run", lambda c, **_: commands.append(c) or SimpleNamespace(returncode=1)
    )
    monkeypatch.chdir(tmp_path)
    flags = [str(dataset), "--output=out", "--images=2", "--min_area=0.005"]
    assert run_command(script("overfit")["main"], flags) == 1
    assert Path(commands[0][1]) == SCRIPTS.parent / "train.py"
    assert len(list((tmp_path / "out/data/images/val").iterdir())) == 2


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


def test_the_demo_starts_anywhere_and_names_the_step_that_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    main = script("demo")["main"]
    monkeypatch.setitem(main.__globals__, "fly_over", lambda *_: None)
    commands: list[list[str]] = []
    monkeypatch.setattr(
        subprocess, "run", lambda c, **_: commands.append(c) or SimpleNamespace(returncode=3)
    )
    monkeypatch.chdir(tmp_path)
    assert run_command(main, []) == 1
    assert Path(commands[0][1]) == SCRIPTS.parent / "eval.py"
    assert "this step failed with exit code 3" in capsys.readouterr().err


ENDING_THEMSELVES = {"download_weights", "test_gpu"}  # tested where they are
COMMANDS = [path for path in sorted(SCRIPTS.glob("*.py")) if path.stem not in ENDING_THEMSELVES]


@pytest.mark.parametrize("script", COMMANDS, ids=lambda script: script.stem)
def test_every_script_ends_as_commands_do(script: Path) -> None:
    assert re.search(r"(raise SystemExit|sys.exit)\(run_command\(", script.read_text())


@pytest.mark.parametrize(
    ("name", "flags", "said"),
    [
        ("bench_loader", ["x", "--images=0"], "--images=0: expected at least 1"),
        ("bench_loader", ["x", "--rounds=0"], "--rounds=0: expected at least 1"),
        ("bench_pixels", ["--detections=-1"], "--detections=-1: expected at least 0"),
        ("bench_memory", ["--samples=0"], "--samples=0: expected at least 1"),
        ("bench_serve", ["--images=0"], "--images=0: expected at least 1"),
        ("bench_serve", ["--requests=0"], "--requests=0: expected at least 1"),
        ("bench_video", ["--clip_frames=0"], "--clip_frames=0: expected at least 1"),
        ("bench_video", ["--height=0"], "--height=0: expected at least 16"),
        ("bench_index", ["x", "--passes=0"], "--passes=0: expected at least 1"),
        ("bench_kills", ["--only=nope"], "invalid choice: 'nope'"),
        ("bench_kills", ["--kills=0"], "--kills=0: expected at least 1"),
        ("compare", ["m", "--out=FILE"], "FILE: expected a folder, and"),
        ("compare", ["m", "--out=FILE/below"], "FILE/below: expected a folder, and"),
        ("export", ["FOLDER.onnx"], "FOLDER.onnx: expected a file, this is a folder"),
        ("export", ["a.xml", "--int8", "--max_images=0"], "expected at least 1, or -1 for all"),
        ("check_dataset", ["x", "--report=FOLDER.onnx"], "expected a file, this is a folder"),
        ("check_dataset", ["x", "--json=FILE/a"], "FILE: expected a folder, and"),
    ],
)
def test_what_cannot_be_is_refused_while_flags_are_read(
    tmp_path: Path, name: str, flags: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "FILE").touch()
    (tmp_path / "FOLDER.onnx").mkdir()
    given = [
        flag.replace("FILE", f"{tmp_path}/FILE").replace("FOLDER", f"{tmp_path}/FOLDER")
        for flag in flags
    ]
    try:
        code = run_command(script(name)["main"], given)
    except SystemExit as exit:  # argparse's own
        code = exit.code
    assert code == 2
    assert said in capsys.readouterr().err


def test_lines_of_a_file_are_counted_without_its_heads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two images that are lost are not made up for by two lines that are none."""
    parts, lines = script("bench_memory"), tmp_path / "lines"
    lines.write_text("settings\nhead\n" + 3 * "image\n")
    code = "import sys; sys.exit()"
    globals_ = parts["watched"].__globals__
    monkeypatch.setitem(globals_, "MODEL", ())
    monkeypatch.setitem(globals_, "ROOT", tmp_path)
    (tmp_path / "eval.py").write_text(code)
    list(parts["watched"]([], tmp_path, lines, 3, 2, heads=2))
    with pytest.raises(OSError, match="3 lines"):
        list(parts["watched"]([], tmp_path, lines, 5, 2, heads=2))


def test_the_pictures_of_the_method_are_small(tmp_path: Path) -> None:
    folder = tmp_path / "not" / "there"
    assert run_command(script("method_pictures")["main"], [f"--folder={folder}"]) == 0
    pictures = {file.name: file for file in folder.iterdir()}
    assert set(pictures) == {"prototypes.jpg", "combination.jpg"}
    for file in pictures.values():
        assert read_image(file).shape[1] >= 800
    assert sum(file.stat().st_size for file in pictures.values()) < 150_000
