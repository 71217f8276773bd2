"""Names of pictures and videos: each its own, and never that of an input."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from yolact.cli import output_names
from yolact.cli.output_names import (
    image_and_picture,
    images_and_pictures,
    name_pictures,
    source_and_video,
)
from yolact.files import as_file_name, write_json, write_picture, write_text


def make(*names: str) -> list[Path]:
    """Create files in the working folder."""
    paths = [Path(name) for name in names]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(str(path))
    return paths


@pytest.fixture(autouse=True)
def in_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("images", "folder", "expected"),
    [
        ([], "out", []),
        (["a.jpg", "b.jpg"], "out", ["a", "b"]),
        (["a.jpg", "a.png"], "out", ["a", "a_png"]),
        (["x/a.jpg", "y/a.jpg", "z/a.jpg"], "out", ["x/a", "y/a", "z/a"]),
        (["x/y/a.jpg", "x/y/a.png", "x/a.jpg"], "out", ["y/a", "y/a_png", "a"]),
        (["x/y/a.jpg", "x/y/z/b.jpg"], "out", ["a", "z/b"]),
        (["a.jpg", "a.png", "a_png.jpg"], "out", ["a", "a_png", "a_png_jpg"]),
        (["a_png.jpg", "a.jpg", "a.png"], "out", ["a_png", "a", "a_png_2"]),
        (["a.jpg", "A.jpg"], "out", ["a", "A_jpg"]),  # one file, on some systems
        (["a.png", "b.jpg"], ".", ["a_png", "b"]),
        (["a.png", "a_png.png", "a_png_2.png"], ".", ["a_png_3", "a_png_png", "a_png_2_png"]),
        (["in/a.jpg", "out/a.png"], "out", ["in/a", "out/a"]),
        (["a.jpg", "out/a.png"], "out", ["a_jpg", "out/a"]),
    ],
)
def test_no_picture_replaces_another_or_an_image(
    images: list[str], folder: str, expected: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    paths = make(*images)
    pictures = name_pictures(paths, Path(folder))
    assert pictures == [Path(folder) / f"{name}.png" for name in expected]
    assert name_pictures(paths, Path(folder)) == pictures
    for path in pictures:
        write_picture(path, np.zeros((2, 2, 3), np.uint8))
    assert [path.read_text() for path in paths] == images
    renamed = [
        f"{a} is written as" for a, b in zip(paths, pictures, strict=True) if a.stem != b.stem
    ]
    assert all(line in caplog.text for line in renamed)
    assert caplog.text.count("is written as") == 2 * len(renamed)


def test_files_beside_images_have_the_names_of_these() -> None:
    """No picture is written: a labelme file for a.png is a.json."""
    images = make("a.png", "b.jpg", "b.png")
    pictures = name_pictures(images, Path(), False)
    assert [path.stem for path in pictures] == ["a", "b", "b_png"]


def test_pictures_of_an_earlier_run_are_replaced() -> None:
    images = make("a.jpg", "b/a.jpg")
    pictures = name_pictures(images, Path("out"))
    make(*map(str, pictures))
    assert name_pictures(images, Path("out")) == pictures


@pytest.mark.parametrize(
    ("images", "expected"),
    [
        (["in/a.jpg", "in/x/../../../../../etc/b.jpg"], None),
        (["in/a.jpg", "in/../in/b.jpg"], ["a", "b"]),
        (["../../a.jpg"], ["a"]),
    ],
)
def test_no_picture_leaves_its_folder(images: list[str], expected: list[str] | None) -> None:
    """Lists of images and videos may hold any path."""
    pictures = name_pictures([Path(image) for image in images], Path("out"))
    assert all(Path("out").resolve() in path.resolve().parents for path in pictures)
    assert expected in (None, [path.stem for path in pictures])


def test_many_images_of_one_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is looked for from where the last one was found."""
    looked = 0

    def counted(image: Path) -> Iterator[str]:
        nonlocal looked
        for name in names(image):
            looked += 1
            yield name

    names = output_names._names
    monkeypatch.setattr(output_names, "_names", counted)
    pictures = name_pictures([Path("in/a.jpg")] * 300, Path("out"))
    assert len(set(pictures)) == looked == 300


@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_links_to_an_image_are_spared(link: object) -> None:
    (image,) = make("in/a.png")
    Path("out").mkdir()
    assert callable(link)
    link(image.resolve(), Path("out/a.png"))
    assert name_pictures([image], Path("out")) == [Path("out/a_png.png")]


@pytest.mark.parametrize(
    ("text", "has_display", "expected"),
    [
        ("in/a.jpg", True, None),
        ("in/a.jpg", False, "results/a.png"),
        ("in/a.jpg:b.jpg", True, "b.jpg"),
        ("results/a.png", False, "results/a_2.png"),
        ("https://h/x/c.jpg?q=1", False, "results/c.png"),
        ("https://h//x/c.jpg:d.png", False, "d.png"),
        ("https://h", False, "results/image.png"),
    ],
)
def test_one_image(text: str, has_display: bool, expected: str | None) -> None:
    make("in/a.jpg", "results/a.png")
    source, picture = image_and_picture(text, lambda: has_display)
    assert text.startswith(source)  # to the last slash
    assert picture == (None if expected is None else Path(expected))


@pytest.mark.parametrize(
    ("text", "has_display", "expected"),
    [
        ("0", True, None),
        ("0", False, "results/0.mp4"),
        ("in/a.mov:b.avi", False, "b.avi"),
        ("results/a.mp4", False, "results/a_2.mp4"),
        ("rtsp://host:554/s:o.mp4", True, "o.mp4"),
    ],
)
def test_one_video(text: str, has_display: bool, expected: str | None) -> None:
    make("in/a.mov", "results/a.mp4")
    video = source_and_video(text, lambda: has_display)[1]
    assert video == (None if expected is None else Path(expected))


@pytest.mark.parametrize("name", ["caf\udce9.png", "\udce9/a.png", "\udc80\udcff.JPG"])
def test_a_picture_of_any_name_can_be_written(name: str) -> None:
    """OpenCV, which is asked for the suffix, crashes at a name that is not UTF-8."""
    make("a.png")
    assert image_and_picture(f"a.png:{name}", lambda: True) == ("a.png", Path(name))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a.png:b.xyz", "cannot write b.xyz: expected a name that ends in .png or .jpg"),
        ("a.png:b", "cannot write b: expected a name"),
        ("a.png:b.\udce9", "cannot write b.\udce9: expected a name"),  # OpenCV crashes at it
        ("a.png:a.png", "a.png would be replaced by its own result: name another output"),
        ("a.png:./a.png", "would be replaced by its own result"),
        ("a.png:.", r"\. is a folder: name a file in it, as a.png"),
        ("a.png:a.png/b.png", "cannot write a.png/b.png: a.png is a file, not a folder"),
    ],
)
def test_pictures_that_cannot_be_are_refused(text: str, message: str) -> None:
    make("a.png")
    with pytest.raises(ValueError, match=message):
        image_and_picture(text, lambda: True)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a.mp4:b.png", "cannot write b.png: use one of the suffixes .mp4"),
        ("0:b", "cannot write b: use one"),
        ("a.mp4:a.mp4", "a.mp4 would be replaced by its own result"),
    ],
)
def test_videos_that_cannot_be_are_refused(text: str, message: str) -> None:
    make("a.mp4")
    with pytest.raises(ValueError, match=message):
        source_and_video(text, lambda: True)


@pytest.mark.parametrize(
    ("text", "read", "pictures"),
    [
        ("in", ["in/a.jpg", "in/b/a.jpg", "in/out/a.png"], ["a", "b/a", "out/a"]),
        ("in:in/out", ["in/a.jpg", "in/b/a.jpg"], ["a", "b/a"]),  # what lies there was written
        ("in/*.jpg:new/deep", ["in/a.jpg"], ["a"]),
        ("in/b:in", ["in/b/a.jpg"], ["a"]),
        ("in:v1.2", ["in/a.jpg", "in/b/a.jpg", "in/out/a.png"], ["a", "b/a", "out/a"]),
    ],
)
def test_many_images(text: str, read: list[str], pictures: list[str]) -> None:
    make("in/a.jpg", "in/b/a.jpg", "in/out/a.png")
    _, pairs = images_and_pictures(text)
    folder = Path(text.partition(":")[2] or "results")
    assert [image for image, _ in pairs] == list(map(Path, read))
    assert [picture for _, picture in pairs] == [folder / f"{name}.png" for name in pictures]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("in:in", "in: the pictures would land among the images; name another folder"),
        ("in:./in", "would land among the images"),
        ("in/*/*.jpg:in/b", "would land among the images"),
        ("in/*.jpg:link", "would land among the images"),
        ("in:out.png", "out.png names a file: --images writes into a folder"),
        ("in:out.mp4", "out.mp4 names a file"),
        ("in:in/a.jpg", "in/a.jpg names a file"),
        ("in:in/a.jpg/out", "cannot write in/a.jpg/out: in/a.jpg is a file, not a folder"),
    ],
)
def test_folders_that_cannot_be_are_refused(text: str, said: str) -> None:
    make("in/a.jpg", "in/b/a.jpg")
    Path("link").symlink_to("in")
    with pytest.raises(ValueError, match=said):
        images_and_pictures(text)


def test_a_full_disk_is_told_and_leaves_nothing() -> None:
    resource = pytest.importorskip("resource")
    noise = np.random.default_rng(0).integers(0, 255, (200, 200, 3), np.uint8)
    write_picture(Path("old.png"), np.zeros((2, 2, 3), np.uint8))
    before, limits = Path("old.png").read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large: 'old.png'"):
            write_picture(Path("old.png"), noise)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert Path("old.png").read_bytes() == before
    assert list(Path().iterdir()) == [Path("old.png")]


@pytest.mark.parametrize("write", ["picture", "text", "json"])
def test_a_link_under_the_name_of_a_half_file_is_not_written_through(write: str) -> None:
    Path("private").write_text("mine")
    Path(f".out.png.{os.getpid()}.part").symlink_to("private")
    if write == "picture":
        write_picture(Path("out.png"), np.zeros((2, 2, 3), np.uint8))
    elif write == "text":
        write_text(Path("out.png"), "")
    else:
        write_json(Path("out.png"), {})
    assert Path("private").read_text() == "mine"
    assert Path("out.png").is_file() and not Path("out.png").is_symlink()


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("", "_"),
        ("../a b", "a_b"),
        ("\udce9/\x1b", "_"),
        ("a" * 300, "a" * 100),
        ("猫" * 90, "猫" * 33),
        ("a" * 99 + "é", "a" * 99),
    ],
)
def test_parts_of_names(text: str, name: str) -> None:
    assert as_file_name(text) == name
    write_picture(Path(f"{'b' * 130}_000_{name}.png"), np.zeros((2, 2), np.uint8))


def test_a_picture_is_written_as_rgb() -> None:
    red = np.zeros((4, 5, 3), np.uint8)
    red[..., 0] = 255
    assert write_picture(Path("new/red.png"), red) == Path("new/red.png")
    assert cv2.imread("new/red.png")[0, 0].tolist() == [0, 0, 255]
    with pytest.raises(ValueError, match="cannot write 5 x 4 pixels as new/red.xyz: try .png"):
        write_picture(Path("new/red.xyz"), red)
