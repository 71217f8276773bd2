"""What an evaluation keeps of its detections, and scores again."""

from __future__ import annotations

import errno
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from support.evaluate import evaluate
from test_eval import rows
from test_resume import edit

from yolact import Predictor, build_model
from yolact.checkpoint import read_checkpoint, save_checkpoint
from yolact.cli import evaluate as evaluate_room

pytestmark = pytest.mark.usefixtures("in_evaluation_place")

TILES = ["--tile=50", "--overlap=0.3", "--no_overview"]


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
        (["--tile=50"], "--tile=none, not 50, overlap 0.2"),
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


def break_off(monkeypatch: pytest.MonkeyPatch, *flags: str) -> None:
    """Evaluate, and press Ctrl-C after the last image, before anything is scored."""

    def broken_off(*given: Any, **more: Any) -> None:
        real(*given, **more)
        raise KeyboardInterrupt

    real = evaluate_room.evaluate
    with monkeypatch.context() as patch:
        patch.setattr(evaluate_room, "evaluate", broken_off)
        assert evaluate(*flags) == 130


def test_an_evaluation_that_goes_on_scores_what_is_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    break_off(monkeypatch)
    assert evaluate("--resume", "--max_images=1", "--json=one.json") == 0
    kept, noted = Path("results/ap_data.json"), Path("results/.ap_data.json.progress")
    assert len(json.loads(kept.read_text())["images"]) == 1
    assert noted.exists()  # for the evaluation of all
    monkeypatch.setattr(Predictor, "segment", lambda *_: pytest.fail("looked at again"))
    assert evaluate("--resume") == 0
    assert len(json.loads(kept.read_text())["images"]) == 3
    assert not noted.exists()


def test_of_kept_detections_those_that_flags_choose_are_scored(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    assert evaluate("--ap_data_file=two.json", "--max_images=2") == 0
    for flags, images in (((), 2), (("--max_images=1",), 1), (("--max_images=3",), 2)):
        file = Path(f"of_{images}.json")
        assert evaluate("--ap_data_file=two.json", "--resume", f"--json={file}", *flags) == 0
        assert json.loads(file.read_text())["images"] == images
    assert "detections of 2 of 3 images are kept" in caplog.text


@pytest.mark.parametrize("broken_off", [False, True])
def test_detections_of_other_images_are_refused(
    broken_off: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ids that count files mean others once a file is new."""
    folder = Path(f"files{broken_off}")
    (folder / "images").mkdir(parents=True)
    (folder / "labels").mkdir()
    (folder / "data.yaml").write_text("train: images\nval: images\nnames: [circle]\n")
    for name, source in zip("bcd", sorted(Path("scenes/val").iterdir()), strict=False):
        shutil.copy(source, folder / "images" / f"{name}{source.suffix}")
        (folder / "labels" / f"{name}.txt").write_text("0 0.1 0.1 0.5 0.1 0.5 0.5\n")
    flags = [f"--dataset={folder}", f"--ap_data_file={folder}.json"]
    if broken_off:
        break_off(monkeypatch, *flags)
    else:
        assert evaluate(*flags) == 0
    last = next(folder.glob("images/d*"))
    last.rename(last.with_stem("a"))
    (folder / "labels" / "d.txt").rename(folder / "labels" / "a.txt")
    assert evaluate(*flags, "--resume") == 1
    assert "images of --dataset" in capsys.readouterr().err.splitlines()[-1]


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


def test_what_is_kept_of_an_evaluation_and_was_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is detected again."""
    kept, noted = Path("results/ap_data.json"), Path("results/.ap_data.json.progress")
    assert evaluate() == 0
    whole = kept.read_bytes()
    kept.unlink()

    break_off(monkeypatch)
    before = noted.read_bytes()
    for entry in (
        5,
        None,
        [],
        [[96], []],
        [[96, 96], 5],
        [[96, 96], [[]]],
        [[96, -1], []],
        [5, []],
    ):
        kept.unlink(missing_ok=True)
        noted.write_bytes(before)
        edit(noted, "3", entry)
        assert evaluate("--resume") == 0, entry
        assert kept.read_bytes() == whole, entry
