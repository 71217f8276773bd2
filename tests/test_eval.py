"""eval.py, run as a user would, with a tiny untrained network."""

from __future__ import annotations

import errno
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from support.tiny import make_dataset, save_tiny
from test_resume import edit

import eval as eval_script
from data.classes import SHAPE_CLASSES
from data.shapes.clip import export_clip, shape_clip
from data.video.reader import open_video
from yolact import build_model
from yolact.checkpoint import read_checkpoint, save_checkpoint
from yolact.cli import evaluate as evaluate_room
from yolact.cli import from_flags
from yolact.cli.common import run_command
from yolact.drawing.window import has_display
from yolact.engines import exported
from yolact.engines.choose import choose_engine
from yolact.engines.names import Engine
from yolact.runs.provenance import as_text, provenance

main = eval_script.main


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a dataset "scenes", a checkpoint "tiny.pth" and a video "clip.mp4"."""
    folder = tmp_path_factory.mktemp("place")
    make_dataset(folder / "scenes")
    save_tiny(folder / "tiny.pth")
    export_clip(folder / "clip.mp4", shape_clip(5, (48, 64)))
    return folder


@pytest.fixture(autouse=True)
def in_place(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    shutil.rmtree("results", ignore_errors=True)


def evaluate(*flags: str) -> int:
    return run_command(
        main, ["--trained_model=tiny.pth", "--dataset=scenes", "--device=cpu", *flags]
    )


def rows(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.lstrip().startswith(("box |", "mask |"))]


@pytest.mark.parametrize(
    "flags",
    [
        [],
        ["--max_images=0"],
        ["--max_images=2", "--no_bar", "--per_class"],
        ["--shuffle", "--seed=3"],
        ["--no_sort", "--fast_nms=False"],
        ["--cross_class_nms=True"],
        ["--detect"],
        ["--no_crop"],
        ["--smooth_masks"],
        ["--score_threshold=0.9"],
        ["--precision=bfloat16"],
        ["--cuda=False", "--set=detect.top_k=10"],
        ["--config=yolact_resnet18"],
    ],
)
def test_average_precision(flags: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate(*flags) == 0
    out = capsys.readouterr().out
    assert len(rows(out)) == 2 - ("--detect" in flags)
    assert "Average Precision" in out
    assert ("crescent" in out) == ("--per_class" in flags)


def test_resume_scores_the_kept_detections(capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate("--ap_data_file=kept.json") == 0
    first = rows(capsys.readouterr().out)
    assert evaluate("--ap_data_file=kept.json", "--resume") == 0
    assert rows(capsys.readouterr().out) == first


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--trained_model=other.pth"], "--trained_model=tiny.pth (SHA-256 "),
        (["--dataset=copy"], "--dataset="),
        (["--score_threshold=0.3"], "--score_threshold=0.0, not 0.3"),
        (["--fast_nms=False"], "--set detect.nms=fast, not greedy"),
        (["--max_detections=150"], "--set detect.max_detections=100, not 150"),
        (["--set=detect.iou_threshold=0.6"], "--set detect.iou_threshold=0.5, not 0.6"),
        (["--no_crop"], "masks=cropped, not whole"),
        (["--precision=bfloat16"], "--precision=float32, not bfloat16"),
    ],
)
def test_kept_detections_of_another_model_are_refused(
    flags: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if not Path("kept.json").exists():
        assert evaluate("--ap_data_file=kept.json") == 0
    if not Path("copy").exists():
        shutil.copytree("scenes", "copy")
        checkpoint = read_checkpoint(Path("tiny.pth"))
        model = build_model(checkpoint.preset())
        save_checkpoint(Path("other.pth"), model, checkpoint.preset())
    capsys.readouterr()
    assert evaluate("--ap_data_file=kept.json", "--resume", *flags) == 1
    captured = capsys.readouterr()
    error = captured.err.splitlines()[-1]
    assert error.startswith("error: kept.json holds what was found by ")
    assert said in error
    assert "evaluate once more without --resume" in error
    assert captured.out == ""


def test_boxes_of_kept_masks_may_be_scored_alone(capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate("--ap_data_file=boxes.json", "--detect") == 0
    assert evaluate("--ap_data_file=boxes.json", "--resume") == 1
    assert "masks=none, not cropped" in capsys.readouterr().err.splitlines()[-1]


def test_more_objects_than_can_be_found_are_told(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree("scenes", "crowded", dirs_exist_ok=True)
    annotations = Path("crowded/annotations/instances_val.json")
    content = json.loads(annotations.read_text())
    first = content["annotations"][0]
    more = [{**first, "id": 10**6 + number} for number in range(400)]
    annotations.write_text(json.dumps({**content, "annotations": content["annotations"] + more}))
    assert evaluate("--dataset=crowded", "--max_detections=100") == 0
    assert caplog.text.count("1 of 3 images has more than 100 objects (up to 4") == 1
    assert "): detections beyond that are dropped or do not count; raise --max_det" in caplog.text
    out = capsys.readouterr().out
    assert out.count("maxDets=100 ]") == 2 * 10
    few = len(json.loads(Path("results/ap_data.json").read_text())["detections"])
    caplog.clear()
    assert evaluate("--dataset=crowded") == 0
    assert "objects: 500 detections are kept of each and count in an AP" in caplog.text
    out = capsys.readouterr().out
    assert out.count("maxDets=500 ]") == 2 * 10
    many = len(json.loads(Path("results/ap_data.json").read_text())["detections"])
    assert many > few == 300


@pytest.mark.parametrize(
    "flags", [["--report_threshold=0.2", "--shuffle", "--seed=3"], ["--detect", "--resume"]]
)
def test_metrics_and_report_as_files(flags: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate("--ap_data_file=kept.json") == 0
    capsys.readouterr()
    files = ["--json=out/ap.json", "--report=out/report", "--ap_data_file=kept.json"]
    assert evaluate(*files, *flags) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[-2:] == ["out/ap.json", "out/report/index.html"]
    content = json.loads(Path("out/ap.json").read_text())
    assert content == json.loads(Path("out/report/metrics.json").read_text())
    assert (content["model"], content["dataset"]) == ("yolact_resnet18", "scenes")
    assert (content["weights"], content["images"]) == ("tiny.pth", 3)
    assert [row["name"] for row in content["per_class"]] == list(SHAPE_CLASSES.names)
    assert (content["mask"] is None) == ("--detect" in flags)
    assert content["made_by"] == {**provenance(), "seed": 0}
    assert content["settings"]["train"]["seed"] == 0
    assert as_text(content["made_by"]) in Path("out/report/index.html").read_text()
    assert content.get("order") == ("shuffled, seed 3" if "--shuffle" in flags else None)
    assert json.loads(Path("kept.json").read_text())["made_by"] == provenance()
    assert f"{content['box']['AP'] / 100:.3f}" in out
    assert list(Path("out/report/viewer/large").iterdir())


def test_no_annotations_no_report(capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree("scenes", "test_set")
    annotations = Path("test_set/annotations/instances_val.json")
    content = json.loads(annotations.read_text())
    del content["annotations"]
    annotations.write_text(json.dumps(content))
    assert evaluate("--dataset=test_set") == 0
    assert evaluate("--dataset=test_set", "--report=out/nothing") == 1
    assert "error: no annotations, so no AP" in capsys.readouterr().err
    assert not Path("out/nothing").exists()


def test_an_evaluation_that_goes_on_scores_what_is_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken_off(*given: Any, **more: Any) -> None:
        real(*given, **more)
        raise KeyboardInterrupt

    real = evaluate_room.evaluate
    with monkeypatch.context() as patch:
        patch.setattr(evaluate_room, "evaluate", broken_off)
        assert evaluate() == 130
    assert evaluate("--resume", "--max_images=1", "--json=one.json") == 0
    assert len(json.loads(Path("results/ap_data.json").read_text())["images"]) == 1


@pytest.mark.skipif(sys.platform == "win32", reason="no such locks")
def test_two_evaluations_into_one_file_are_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(file: Any, how: int) -> None:
        raise OSError(errno.EAGAIN, "held")

    monkeypatch.setattr("fcntl.lockf", refuse)
    assert evaluate() == 2
    assert "another evaluation writes it; stop it, or give another" in capsys.readouterr().err


@pytest.mark.parametrize("end", [KeyboardInterrupt(), OSError("disk full"), RuntimeError("ours")])
def test_an_evaluation_that_breaks_off_goes_on(
    end: BaseException, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level("INFO")
    kept, noted = Path("results/ap_data.json"), Path("results/.ap_data.json.progress")
    assert evaluate() == 0
    whole = kept.read_bytes()
    kept.unlink()
    asked: list[int] = []

    def recorded(*given: Any, order: Any, **more: Any) -> None:
        asked.extend(order)
        real(*given, order=order[:2] if len(asked) == 3 else order, **more)
        if len(asked) == 3:
            raise end

    real = evaluate_room.evaluate
    monkeypatch.setattr(evaluate_room, "evaluate", recorded)
    if isinstance(end, RuntimeError):
        with pytest.raises(RuntimeError):
            evaluate()
    else:
        assert evaluate() == (1 if isinstance(end, OSError) else 130)
    assert "2 images done; --resume goes on" in caplog.text
    assert (kept.exists(), noted.exists()) == (False, True)
    with noted.open("ab") as file:
        file.write(b'{"key": "3", "ent')  # as a kill in the middle of it leaves it
    assert evaluate("--resume", "--score_threshold=0.5") == 1  # other detections
    assert evaluate("--resume") == 0
    assert len(asked) == 4
    assert kept.read_bytes() == whole
    assert not noted.exists()


@pytest.mark.parametrize(
    "entry", [5, None, [], [[96], []], [[96, 96], 5], [[96, 96], [[]]], [[96, -1], []], [5, []]]
)
def test_what_is_kept_of_an_evaluation_and_was_changed(
    entry: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is detected again."""
    kept, noted = Path("results/ap_data.json"), Path("results/.ap_data.json.progress")
    assert evaluate() == 0
    whole = kept.read_bytes()
    kept.unlink()

    def broken_off(*given: Any, **more: Any) -> None:
        real(*given, **more)
        raise KeyboardInterrupt

    real = evaluate_room.evaluate
    with monkeypatch.context() as patch:
        patch.setattr(evaluate_room, "evaluate", broken_off)
        assert evaluate() == 130
    edit(noted, "3", entry)
    assert evaluate("--resume") == 0
    assert kept.read_bytes() == whole


def test_files_for_others(capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--output_coco_json", "--output_web_json", "--web_det_path=web"]
    assert evaluate(*flags, "--bbox_det_file=b.json", "--mask_det_file=m.json") == 0
    assert capsys.readouterr().out.split() == ["b.json", "m.json", "web/yolact_resnet18.json"]
    boxes, masks = (json.loads(Path(name).read_text()) for name in ("b.json", "m.json"))
    assert len(boxes) == len(masks) > 0
    assert set(boxes[0]) == {"image_id", "category_id", "bbox", "score"}
    assert isinstance(masks[0]["segmentation"]["counts"], str)
    assert json.loads(Path("web/yolact_resnet18.json").read_text())["images"]


def test_files_for_others_name_no_category_that_the_dataset_lacks(tmp_path: Path) -> None:
    content = json.loads(next(Path("scenes").rglob("*val*.json")).read_text())
    content["categories"] = content["categories"][2:4]
    known = {entry["id"] for entry in content["categories"]}
    content["annotations"] = [a for a in content["annotations"] if a["category_id"] in known]
    (tmp_path / "few.json").write_text(json.dumps(content))
    (tmp_path / "images").symlink_to(Path("scenes/val").resolve())
    files = [f"--bbox_det_file={tmp_path}/b.json", f"--mask_det_file={tmp_path}/m.json"]
    assert evaluate("--output_coco_json", *files, f"--dataset={tmp_path}/few.json") == 0
    for name in ("b.json", "m.json"):
        found = json.loads((tmp_path / name).read_text())
        assert {part["category_id"] for part in found} == known


def test_benchmark_shows_every_stage(capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate("--benchmark", "--max_images=3") == 0
    out = capsys.readouterr().out
    for stage in ("preprocess", "network", "postprocess", "draw", "fps", "p95 ms", "GFLOP"):
        assert stage in out


def test_without_its_dataset_a_model_is_still_timed(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    flags = ["--trained_model=tiny.pth", "--device=cpu", "--max_images=4"]
    assert run_command(main, [*flags, "--benchmark"]) == 0
    assert "timed on generated scenes instead" in caplog.text
    assert "network" in capsys.readouterr().out
    assert run_command(main, flags) == 1
    assert "--dataset takes other data" in capsys.readouterr().err.splitlines()[-1]
    assert run_command(main, [*flags, "--benchmark", "--dataset=coco2017"]) == 1


def test_benchmark_compares_engines_on_a_video(capsys: pytest.CaptureFixture[str]) -> None:
    variants = ["--compare=engine=plain", "--compare=engine=eager,precision=float32"]
    flags = ["--video=clip.mp4", "--max_images=4", "--batch_sizes=1,2", "--json=out/speed.json"]
    assert evaluate(*variants, *flags) == 0
    out = capsys.readouterr().out
    assert "tiny.pth: plain, float32" in out
    assert "1.00x" in out
    content = json.loads(Path("out/speed.json").read_text())
    assert [v["label"] for v in content["variants"]] == [
        "tiny.pth: plain, float32",
        "tiny.pth: eager, float32",
    ]
    for variant in content["variants"]:
        assert variant["image"]["runs"] == 2
        assert set(variant["network_ms"]) == {"1", "2"}
        assert len(variant["video_fps"]) == 3
    assert content["network_gflop"] > 0
    assert content["made_by"] == provenance()


@pytest.mark.parametrize(
    "flags",
    [
        ["--compare=top_k=3"],
        ["--compare=nonsense"],
        ["--compare=video_multiframe=x"],
        ["--compare=video_multiframe=0"],
        ["--benchmark", "--batch_sizes=0"],
        ["--batch_sizes=2"],
        ["--json=a.json", "--image=scenes/val/000001.jpg"],
        ["--json=a.json", "--output_web_json"],
        ["--report=out", "--benchmark"],
        ["--report=out", "--video=clip.mp4"],
        ["--report=out", "--output_coco_json"],
        ["--report_threshold=0.3"],
        ["--report_images=9"],
        ["--report=out", "--report_images=-1"],
        ["--report=out", "--report_threshold=30"],
        ["--report=clip.mp4"],
        ["--max_detections=0"],
        ["--benchmark", "--image=scenes/val/000001.jpg"],
        ["--engine=x"],
        ["--engine=plain", "--smooth_masks"],
    ],
)
def test_what_does_not_go_together_is_wrong_usage(flags: list[str]) -> None:
    try:
        code = evaluate(*flags)
    except SystemExit as error:  # argparse
        code = int(error.code or 0)
    assert code == 2


def test_benchmark_of_all_leaves_out_what_cannot_be_done(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def choose(device: str, engine: Any, *more: Any) -> Engine:
        if engine == "compile":
            raise ValueError("no compiler")
        return choose_engine(device, engine, *more)

    monkeypatch.setattr(exported, "choose_engine", choose)
    assert evaluate("--benchmark=all", "--max_images=3") == 0
    out = capsys.readouterr().out
    assert out.count("tiny.pth: ") == 5
    assert "compile" not in out


def test_one_comparison_is_with_the_flags_as_given(capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--engine=eager", "--precision=float32", "--compare=engine=plain"]
    assert evaluate(*flags, "--max_images=3") == 0
    rows = [line for line in capsys.readouterr().out.splitlines() if "tiny.pth" in line]
    assert "eager" in rows[0]
    assert "plain" in rows[1]


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


@pytest.mark.parametrize(
    ("flags", "code", "expected"),
    [
        (["--config=yolact_bass"], 2, "did you mean"),
        (["--set=model.size=3"], 2, "model.size"),
        (["--video_multiframe=0", "--video=clip.mp4:o.mp4"], 2, "expected at least 1"),
        (["--keyframes=0", "--video=clip.mp4:o.mp4"], 2, "--keyframes=0: expected auto, off, or a"),
        (["--keyframes=all", "--video=clip.mp4:o.mp4"], 2, "--keyframes=all: expected auto"),
        (["--keyframes=4", "--engine=plain", "--video=clip.mp4"], 2, "not with --engine=plain"),
        (["--trained_model=latest"], 2, "no checkpoint of any run"),
        (["--trained_model=nothing.pth"], 1, "no such checkpoint file"),
        (["--trained_model=clip.mp4"], 1, "not a readable checkpoint (damaged, no PyTorch file"),
        (["--config=yolact_resnet50"], 1, "does not fit this model"),
        (["--dataset=nowhere"], 1, "no dataset 'nowhere'"),
        (["--image=nothing.jpg"], 1, "nothing.jpg"),
        (["--image=clip.mp4"], 1, "clip.mp4"),
        (["--image=scenes/val/000001.jpg:out.xyz"], 1, "out.xyz"),
        (["--images=nothing"], 1, "nothing"),
        (["--video=nothing.mp4"], 1, "nothing.mp4"),
        (["--video=tiny.pth"], 1, "tiny.pth"),
        (["--video=97"], 1, "no camera 97"),
        (["--resume", "--ap_data_file=tiny.pth"], 1, "tiny.pth"),
    ],
)
def test_mistakes_are_one_line(
    flags: list[str], code: int, expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate(*flags) == code
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: ")
    assert expected in error


def test_help_tells_by_example(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_code:
        main(["--help"])
    assert exit_code.value.code == 0
    assert "--video=a.mp4:b.mp4" in capsys.readouterr().out
