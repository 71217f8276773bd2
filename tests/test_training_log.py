import json
import math
import os
import sys
from pathlib import Path

import numpy as np
import pytest

from scripts import plot_loss
from yolact import Yolact
from yolact.cli.common import run_command
from yolact.drawing.plots import draw_curves
from yolact.models.mask_rcnn import MaskRcnn
from yolact.training.log import TrainingLog, read_log

LOSSES = {"box": 3.8081234, "confidence": 2.416, "mask": 4.821, "semantic": 0.049, "mask_iou": 0.5}


def write_run(path: Path, iterations: int = 2) -> TrainingLog:
    log = TrainingLog(path, Yolact.loss_letters)
    log.start({"batch_size": 8, "resume": None, "folder": Path("weights")}, ["cpu"])
    for iteration in range(iterations):
        log.train(LOSSES, epoch=0, iteration=iteration, learning_rate=1e-3, elapsed=0.5)
    ap = {"all": 29.9, "50": 48.5}
    log.validation(ap, ap, epoch=0, iteration=iterations, elapsed=60.0)
    return log


@pytest.mark.parametrize("text", ["", "\n\n", "half a li", '{"type": "tra', "[1]\n", "7\n", "{}"])
def test_nothing_readable_is_no_events(tmp_path: Path, text: str) -> None:
    path = tmp_path / "run.log"
    path.write_text(text)
    assert read_log(path) == []
    assert TrainingLog(path, Yolact.loss_letters).session == 0


def test_no_path_keeps_no_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    log = TrainingLog(None, Yolact.loss_letters)
    log.start({}, [])
    assert list(tmp_path.iterdir()) == []


def test_events_have_the_fields_of_the_original(tmp_path: Path) -> None:
    path = tmp_path / "logs" / "run.log"
    write_run(path, iterations=1)
    session, train, val = read_log(path)
    assert [event["type"] for event in (session, train, val)] == ["session", "train", "val"]
    assert all(set(event) == {"type", "session", "data", "time"} for event in (session, train, val))
    assert session["data"] == {
        "batch_size": 8,
        "resume": None,
        "folder": "weights",
        "devices": ["cpu"],
    }
    assert train["data"] == {
        "loss": {"B": 3.80812, "C": 2.416, "M": 4.821, "S": 0.049, "I": 0.5, "T": 11.59412},
        "epoch": 0,
        "iter": 0,
        "lr": 0.001,
        "elapsed": 0.5,
    }
    assert set(val["data"]) == {"elapsed", "epoch", "iter", "box", "mask"}
    assert val["data"]["mask"] == {"all": 29.9, "50": 48.5}


def test_runs_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "run.log"
    for _ in range(3):
        write_run(path)
    assert [event["session"] for event in read_log(path)] == [0] * 4 + [1] * 4 + [2] * 4


def test_a_half_written_line_spoils_nothing(tmp_path: Path) -> None:
    path = tmp_path / "run.log"
    write_run(path)
    path.write_bytes(path.read_bytes()[:-30])
    assert len(read_log(path)) == 3
    assert write_run(path).session == 1
    assert len(read_log(path)) == 3 + 4


def test_undefined_values_are_null(tmp_path: Path) -> None:
    path = tmp_path / "run.log"
    log = TrainingLog(path, Yolact.loss_letters)
    log.train({"box": math.nan, "other": 1}, epoch=0, iteration=0, learning_rate=0, elapsed=0)
    log.validation({"all": math.nan}, {}, epoch=0, iteration=0, elapsed=0)
    strict = [json.loads(line, parse_constant=pytest.fail) for line in path.open()]
    assert strict[0]["data"]["loss"] == {"B": None, "other": 1, "T": None}
    assert strict[1]["data"]["box"] == {"all": None}


@pytest.mark.parametrize("what", ["train", "val"])
def test_plot(tmp_path: Path, what: str, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(tmp_path / "run.log")
    assert run_command(plot_loss.main, [str(tmp_path / "run.log"), what]) == 0
    picture = tmp_path / f"run_{what}.png"
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert capsys.readouterr().out.strip() == str(picture)


@pytest.mark.parametrize("text", [None, "", '{"type": "train"}', '{"type": "train", "data": 1}'])
def test_plot_of_no_log_is_one_line(
    tmp_path: Path, text: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    if text is not None:
        (tmp_path / "run.log").write_text(text)
    for path in (tmp_path / "run.log", Path()):
        assert run_command(plot_loss.main, [str(path)]) == 1
        assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_curve_breaks_where_another_session_begins() -> None:
    points = {"loss": [(0, 3.0), (10, 2.0), (0, 5.0), (10, 4.0), (20, 3.0)]}
    (axes,) = draw_curves("run", {"loss": points}).axes
    x = axes.lines[0].get_xdata()
    np.testing.assert_array_equal(x, [0, 10, np.nan, 0, 10, 20])


@pytest.mark.parametrize("model", [Yolact, MaskRcnn])
def test_every_loss_has_a_letter_of_its_own(model: type[Yolact] | type[MaskRcnn]) -> None:
    letters = list(model.loss_letters.values())
    assert len({*letters, "T"}) == len(letters) + 1
    assert all(plot_loss.NAMES[letter] == name for name, letter in model.loss_letters.items())


@pytest.mark.skipif(sys.platform == "win32", reason="no pipes and links")
@pytest.mark.parametrize("kind", ["pipe", "link", "dead link"])
def test_a_log_that_is_no_file_is_replaced(tmp_path: Path, kind: str) -> None:
    path, other = tmp_path / "run.log", tmp_path / "other"
    if kind == "link":
        other.write_text("mine")
    if kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to(other)
    write_run(path)
    assert len(read_log(path)) == 4
    assert not path.is_symlink()
    assert not other.exists() or other.read_text() == "mine"


@pytest.mark.parametrize("points", [[(1, 0.0)], [(1, 0.0), (2, 0.0)], [(1, 2.0), (3, 1.5)], []])
def test_the_axes_of_a_short_run(points: list[tuple[int, float]]) -> None:
    """Whole iterations, and no loss or AP below 0."""
    (axes,) = draw_curves("run", {"AP (%)": {"mask": points} if points else {}}).axes
    assert axes.get_ylim()[0] == 0
    assert all(tick == int(tick) for tick in axes.get_xticks())
