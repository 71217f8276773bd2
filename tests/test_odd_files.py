"""Files that are none: pipes, devices, folders, loops; formats that would start a program."""

import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PilImage

from data import files
from data.files import open_file, read_bytes, read_json, xml_elements
from data.formats.label_maps.ids import read_ids, read_lines
from data.formats.recognise import format_of_json
from data.formats.yolo import read_yolo
from data.images import format_suffix, read_head, read_image
from data.problems import Unusable

EPS = b"""%!PS-Adobe-3.0 EPSF-3.0
%%BoundingBox: 0 0 8 8
%%EndComments
showpage
"""


def pipe(path: Path) -> None:
    os.mkfifo(path)


def device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def folder(path: Path) -> None:
    path.mkdir()


def loop(path: Path) -> None:
    path.symlink_to(path)


def dangling(path: Path) -> None:
    path.symlink_to(path.parent / "nowhere")


def sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(100 << 30)


ODD = [pipe, device, folder, loop, dangling, sparse]
posix = pytest.mark.skipif(sys.platform == "win32", reason="of Unix")


@posix
@pytest.mark.parametrize("make", ODD)
@pytest.mark.parametrize("suffix", [".jpg", ".json", ".xml", ".txt"])
def test_no_reader_waits_or_reads_without_end(
    tmp_path: Path, make: Callable[[Path], None], suffix: str
) -> None:
    path = tmp_path / f"a{suffix}"
    make(path)
    readers: dict[str, tuple[Callable[[Path], object], ...]] = {
        ".jpg": (
            *(read_image, read_head, format_suffix),
            *(partial(read_image, least_side=8), partial(read_ids, image_hw=(4, 4))),
        ),
        ".json": (read_json, read_image),
        ".xml": (lambda file: list(xml_elements(file, ("image",))),),
        ".txt": (read_lines,),
    }
    for read in readers[suffix]:
        with pytest.raises((OSError, ValueError, Unusable)) as caught:
            read(path)
        assert "\n" not in str(caught.value)
    assert format_of_json(path) is None


def test_a_file_as_large_as_allowed_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").write_bytes(b"1234")
    monkeypatch.setattr(files, "MAX_BYTES", 4)
    assert read_bytes(tmp_path / "a") == b"1234"
    (tmp_path / "b").write_bytes(b"12345")
    with pytest.raises(OSError, match="more than 4 bytes"):
        open_file(tmp_path / "b")


@posix
@pytest.mark.parametrize("make", ODD[:5])
@pytest.mark.parametrize("suffix", [".txt", ".TXT"])
def test_labels_that_cannot_be_read_are_not_no_objects(
    tmp_path: Path, make: Callable[[Path], None], suffix: str
) -> None:
    """An image whose objects are lost must not be learned as background."""
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    for name in ("a", "b"):
        PilImage.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / f"images/{name}.png")
    (tmp_path / "labels/a.txt").write_text("0 0.1 0.1 0.9 0.1 0.9 0.9\n")
    make(tmp_path / f"labels/b{suffix}")
    (tmp_path / "data.yaml").write_text("train: images\nnames: [thing]\n")
    converted = read_yolo(tmp_path / "images", tmp_path / "data.yaml")
    assert [image["file_name"] for image in converted.content["images"]] == ["a.png"]
    assert any("cannot be read" in str(problem) for problem in converted.problems)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif"])
def test_no_picture_starts_a_program(
    tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pillow decodes EPS by running "gs"."""
    (tmp_path / f"a{suffix}").write_bytes(EPS)

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a program was started")

    monkeypatch.setattr(subprocess, "check_call", refuse)
    monkeypatch.setattr(subprocess, "Popen", refuse)
    for read in (read_image, read_head, partial(read_image, least_side=8), format_suffix):
        with pytest.raises(ValueError, match="not a known image format"):
            read(tmp_path / f"a{suffix}")
