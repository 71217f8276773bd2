"""Names from files are shown, never acted on: by terminals, spreadsheets, pages and pictures."""

from __future__ import annotations

import csv
import io
import logging
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from layers.instances import Instances
from yolact.cli.common import run_command
from yolact.cli.process import PrintableFormatter, PrintableStream
from yolact.drawing import window
from yolact.drawing.detections import draw_detections
from yolact.drawing.lincomb import draw_lincomb
from yolact.drawing.side_by_side import titled
from yolact.drawing.window import close_window, show
from yolact.files import as_cell, write_picture, write_text
from yolact.report.page import Section, render_single
from yolact.report.tables import Table, write_csv
from yolact.results.exports import csv_header, csv_lines

FORMULAS = ('=HYPERLINK("http://x")', "@SUM(1)")
NAMES = ("", "dog", "a\x1b]0;owned\x07", "cat\0", *FORMULAS, "\udce9", "é中")


def named(name: str) -> Instances:
    return Instances(
        boxes=torch.tensor([[1.0, 1, 30, 30]]),
        scores=torch.ones(1),
        labels=torch.zeros(1, dtype=torch.int64),
        soft_masks=torch.ones(1, 4, 4),
        mask_frames=torch.tensor([[1.0, 1, 30, 30]]),
        box_scores=torch.ones(1),
        image_hw=(40, 40),
        class_names=(name,),
    )


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1", "ascii"])
@pytest.mark.parametrize("name", NAMES)
def test_standard_output_takes_every_name(name: str, encoding: str) -> None:
    raw = io.BytesIO()
    target = io.TextIOWrapper(raw, encoding=encoding)
    print(name, "and more", file=PrintableStream(target), flush=True)
    written = raw.getvalue()
    assert written.endswith(b" and more\n")
    assert not {0, 7, 0x1B} & set(written)


@pytest.mark.parametrize("name", NAMES)
def test_messages_and_errors_hold_nothing_that_acts(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    record = logging.LogRecord("x", logging.INFO, "x", 1, "left out %s\nand more", (name,), None)
    line = PrintableFormatter("%(message)s").format(record)
    assert line.startswith("left out ")
    assert line.endswith("\nand more")

    def fail(argv: object) -> None:
        print(name)
        raise ValueError(f"no such class: {name}")

    assert run_command(fail) == 1
    shown = capsys.readouterr()
    for text in (line, shown.out, shown.err):
        assert text.replace("\n", "").isprintable()


@pytest.mark.slow
def test_a_command_of_an_ascii_terminal_ends_well() -> None:
    code = (
        "from yolact.cli.common import run_command\n"
        "raise SystemExit(run_command(lambda argv: print('\\xe9\\u4e2d\\udce9\\x1b')))"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        env={"PYTHONIOENCODING": "ascii", "PYTHONPATH": ":".join(sys.path)},
        check=False,
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, b"????\n", b"")


@pytest.mark.parametrize("name", NAMES)
def test_a_table_has_no_formulas(name: str, tmp_path: Path) -> None:
    text = csv_header(named(name)) + csv_lines(named(name), source=name)
    write_csv(tmp_path / "a.csv", Table(("class", "AP"), [[name, -1.5]]))
    cells = next(csv.DictReader(text.splitlines()))
    last = next(csv.DictReader((tmp_path / "a.csv").read_text().splitlines()))
    for cell in (cells["source"], cells["name"], last["class"]):
        assert cell == as_cell(name)
        assert cell.isprintable()
        assert cell[:1] not in tuple("=+-@")
    assert last["AP"] == "-1.5"


@pytest.mark.parametrize("name", [*NAMES, "<script>", 'a" onload="x'])
def test_a_page_holds_text_only(name: str, tmp_path: Path) -> None:
    table = Table(("class", "AP"), [[name, 1.0]])
    page = render_single(name, name, {name: 1}, [Section(name, name, table=table)])
    written = write_text(tmp_path / "a.html", page).read_text(encoding="utf-8")
    assert not {"\0", "\x07", "\x1b"} & set(written)
    for mark in ("<script>", 'a" onload'):
        assert mark not in written


@pytest.mark.parametrize("name", [*NAMES, "\ud800" * 50, "a" * 5000])
def test_pictures_take_every_name(name: str, tmp_path: Path) -> None:
    """A crash of OpenCV would end the tests."""
    image = np.zeros((40, 40, 3), np.uint8)
    assert draw_detections(image, named(name)).shape == image.shape
    assert titled(name, image).shape[2] == 3
    close_window(name)
    mask = torch.ones(4, 4)
    assert draw_lincomb(mask[None], torch.ones(1), mask).shape[2] == 3


@pytest.mark.parametrize("name", [*NAMES, "caf\udce9.png"])
def test_windows_take_every_title(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    titles: list[str] = []

    def recorded(title: str, *_: object) -> float:
        titles.append(title)
        return 0.0

    monkeypatch.setattr(window, "has_display", lambda: True)
    for call in ("getWindowProperty", "namedWindow", "resizeWindow", "imshow", "destroyWindow"):
        monkeypatch.setattr(cv2, call, recorded)
    monkeypatch.setattr(cv2, "waitKey", lambda _: 27)
    show(np.zeros((2, 2, 3), np.uint8), name)
    close_window(name)
    assert len(titles) >= 4
    assert set(titles) == {titles[0]}
    assert titles[0].isprintable()


@pytest.mark.parametrize("name", ["a.\udce9", "a.\ud800\udc00", "a.é"])
def test_pictures_of_odd_suffixes_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"try \.png"):
        write_picture(tmp_path / name, np.zeros((2, 2, 3), np.uint8))


def test_a_picture_whose_name_is_not_utf_8_is_written(tmp_path: Path) -> None:
    path = write_picture(tmp_path / "caf\udce9.png", np.zeros((2, 2, 3), np.uint8))
    assert path.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("name", ["", "猫\u3000犬", "a\u00a0b", "\U0001f468\u200d\U0001f469"])
def test_files_keep_what_they_can_hold(name: str, tmp_path: Path) -> None:
    """Spaces and joiners, too, which no terminal is given."""
    assert as_cell(name) == name
    assert name in render_single(name, "", {}, [])


@pytest.mark.parametrize("text", ["a" * 9999, "x\n" * 9999, "é" * 9999])
def test_an_error_is_of_sensible_length(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    def fail(_: object) -> None:
        raise ValueError(f"bad.json: {text}; export it again")

    assert run_command(fail) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: bad.json: ") and line.endswith("; export it again")
    assert len(line) < 2100
