from pathlib import Path

import pytest

from data.files import is_url
from yolact.cli.inputs import expand_images, natural_key, parse_source


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("clip.mp4", ("clip.mp4", None)),
        ("clip.mp4:out.mp4", ("clip.mp4", "out.mp4")),
        ("0", ("0", None)),
        ("0:out.mp4", ("0", "out.mp4")),
        ("0:/tmp/out.mp4", ("0", "/tmp/out.mp4")),
        ("in_folder:out_folder", ("in_folder", "out_folder")),
        ("shots/*.jpg:out", ("shots/*.jpg", "out")),
        (r"C:\x.mp4", (r"C:\x.mp4", None)),
        ("C:/x.mp4", ("C:/x.mp4", None)),
        (r"C:\x.mp4:y.mp4", (r"C:\x.mp4", "y.mp4")),
        (r"C:\x.mp4:D:\y.mp4", (r"C:\x.mp4", r"D:\y.mp4")),
        (r"x.mp4:d:/y.mp4", ("x.mp4", "d:/y.mp4")),
        (r"0:D:\y.mp4", ("0", r"D:\y.mp4")),
        ("rtsp://host/stream", ("rtsp://host/stream", None)),
        ("rtsp://host:554/stream", ("rtsp://host:554/stream", None)),
        ("rtsp://host:554/stream:out.mp4", ("rtsp://host:554/stream", "out.mp4")),
        ("rtsp://host:554:out.mp4", ("rtsp://host:554", "out.mp4")),
        ("rtsp://host:out.mp4", ("rtsp://host", "out.mp4")),
        ("rtsp://me:p@ss:9@host:554/s:o.mp4", ("rtsp://me:p@ss:9@host:554/s", "o.mp4")),
        ("rtsp://[fe80::1]:554/s:out.mp4", ("rtsp://[fe80::1]:554/s", "out.mp4")),
        (r"rtsp://host/s:D:\y.mp4", ("rtsp://host/s", r"D:\y.mp4")),
        ("http://h:80/v.mp4", ("http://h:80/v.mp4", None)),
        ("http://h:80/v.mp4:out.mp4", ("http://h:80/v.mp4", "out.mp4")),
        ("http://h/cam:1/live", ("http://h/cam:1/live", None)),
        ("http://h/live?t=12:30", ("http://h/live?t=12:30", None)),
        ("http://h/live?t=12:30:a.avi", ("http://h/live?t=12:30", "a.avi")),
    ],
)
def test_parse_source(text: str, expected: tuple[str, str | None]) -> None:
    assert parse_source(text) == expected


@pytest.mark.parametrize("text", ["", ":", ":out.png", "in.png:"])
def test_parse_source_refuses_an_empty_side(text: str) -> None:
    with pytest.raises(ValueError, match="INPUT:OUTPUT"):
        parse_source(text)


def test_existing_names_win_over_colons(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("10:20.mp4", "d", "a", "a:b"):
        Path(name).touch()
    assert parse_source("10:20.mp4") == ("10:20.mp4", None)
    assert parse_source("10:20.mp4:out.mp4") == ("10:20.mp4", "out.mp4")
    assert parse_source("10:20.mp4:11:30.mp4") == ("10:20.mp4", "11:30.mp4")
    assert parse_source("1*.mp4:out") == ("1*.mp4", "out")
    assert parse_source("d:/tmp/out") == ("d", "/tmp/out")  # a file called d, not a drive
    assert parse_source("a:b:c") == ("a:b", "c")  # the longest name that exists


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", False),
        ("clip.mp4", False),
        ("C://x.mp4", False),
        ("0", False),
        ("rtsp://h", True),
        ("HTTP://h/v.mp4", True),
    ],
)
def test_is_url(text: str, expected: bool) -> None:
    assert is_url(text) is expected


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    names = ("10.jpg", "2.JPG", "1.png", "Thumbs.db", "notes.txt", "._2.jpg", "b1.jpeg")
    for name in names:
        (tmp_path / name).touch()
    (tmp_path / "folder.jpg").mkdir()
    return tmp_path


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("", ["1.png", "2.JPG", "10.jpg", "b1.jpeg"]),
        ("*", ["1.png", "2.JPG", "10.jpg", "b1.jpeg"]),
        ("1*", ["1.png", "10.jpg"]),
        ("**/*.png", ["1.png"]),
        ("2.JPG", ["2.JPG"]),
        ("notes.txt", ["notes.txt"]),  # named by the user: the reader shall judge it
    ],
)
def test_expand_images(folder: Path, pattern: str, expected: list[str]) -> None:
    assert [path.name for path in expand_images(str(folder / pattern))] == expected


def test_expand_images_relative_to_the_working_folder(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    assert expand_images("1*") == [Path("1.png"), Path("10.jpg")]
    assert len(expand_images(".")) == 4


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("folder.jpg", "no image in folder"),
        ("*.webp", "no image matches"),
        ("missing.jpg", "no such file or folder"),
    ],
)
def test_expand_images_finds_nothing(folder: Path, source: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        expand_images(folder / source)
    assert "\n" not in str(error.value)


def test_natural_key_orders_any_mixture() -> None:
    paths = [Path(name) for name in ("b", "a10", "a2", "10", "9", "A1")]
    assert [str(p) for p in sorted(paths, key=natural_key)] == ["9", "10", "A1", "a2", "a10", "b"]
