from pathlib import Path

import pytest

from data.files import is_url
from yolact.cli.inputs import parse_source


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
