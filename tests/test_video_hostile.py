"""Videos of strangers that name other files, wait for ever, or hold texts in no encoding."""

from __future__ import annotations

import os
from pathlib import Path

import av
import numpy as np
import pytest

from data.shapes.clip import export_clip, shape_clip
from data.video.reader import open_video

HEAD = "#EXTM3U\n#EXT-X-TARGETDURATION:1\n"
HW = (32, 48)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for suffix in (".mp4", ".ts"):
        export_clip(tmp_path / f"clip{suffix}", shape_clip(3, HW))
    return tmp_path


def test_a_playlist_of_files(folder: Path) -> None:
    (folder / "a.m3u8").write_text(f"{HEAD}#EXTINF:1,\nclip.ts\n#EXT-X-ENDLIST\n")
    with open_video(folder / "a.m3u8") as source:
        assert len(list(source)) == 3


def test_a_playlist_without_end_is_waited_for_no_longer_than_told(folder: Path) -> None:
    (folder / "a.m3u8").write_text(f"{HEAD}#EXTINF:1,\nclip.ts\n")
    with open_video(folder / "a.m3u8", timeout=0.3) as source:
        assert len(list(source)) == 3


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("pipe.m3u8", f"{HEAD}#EXTINF:1,\npipe.ts\n#EXT-X-ENDLIST\n"),
        ("key.m3u8", f'{HEAD}#EXT-X-MAP:URI="pipe.ts"\n#EXTINF:1,\nclip.ts\n#EXT-X-ENDLIST\n'),
        ("self.m3u8", "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\nself.m3u8\n"),
        ("zero.m3u8", f"{HEAD}#EXTINF:1,\n/dev/zero\n#EXT-X-ENDLIST\n"),
        ("pipe.txt", "ffconcat version 1.0\nfile pipe.ts\n"),
        ("self.mp4", "ffconcat version 1.0\nfile self.mp4\n"),
        ("list.mkv", "ffconcat version 1.0\nfile clip.mp4\n"),
    ],
)
def test_what_a_video_names_is_no_pipe_and_not_itself(folder: Path, name: str, text: str) -> None:
    if not hasattr(os, "mkfifo"):
        pytest.skip("pipes are of Unix")
    os.mkfifo(folder / "pipe.ts")
    (folder / name).write_text(text)
    with pytest.raises(ValueError, match="not a video, or one without frames"):
        open_video(folder / name, timeout=0.3)


@pytest.mark.parametrize("name", [b"caf\xe9.ts", b"\xff", b"\x84/clip.ts"])
def test_names_in_no_encoding(folder: Path, name: bytes) -> None:
    (folder / "a.m3u8").write_bytes(f"{HEAD}#EXTINF:1,\n".encode() + name + b"\n#EXT-X-ENDLIST\n")
    with pytest.raises(ValueError, match="not a video, or one without frames"):
        open_video(folder / "a.m3u8", timeout=0.3)


@pytest.mark.parametrize("part", ["gone.ts", "pipe.ts", "x/gone.ts"])
def test_a_part_that_is_not_there_costs_only_itself(folder: Path, part: str) -> None:
    if hasattr(os, "mkfifo"):
        os.mkfifo(folder / "pipe.ts")
    parts = "".join(f"#EXTINF:1,\n{name}\n" for name in (part, "clip.ts", part))
    (folder / "a.m3u8").write_text(f"{HEAD}{parts}#EXT-X-ENDLIST\n")
    with open_video(folder / "a.m3u8", timeout=0.3) as source:
        assert len(list(source)) == 3


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi"])
def test_titles_in_no_encoding(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    with av.open(path, "w") as container:
        container.metadata["title"] = "cafeteria"
        stream = container.add_stream("mpeg4", 25)
        stream.height, stream.width = HW
        frame = av.VideoFrame.from_ndarray(np.zeros((*HW, 3), np.uint8), format="rgb24")
        container.mux([*stream.encode(frame), *stream.encode()])
    content = path.read_bytes()
    assert b"cafeteria" in content
    path.write_bytes(content.replace(b"cafeteria", b"caf\xe9teria"))
    with open_video(path) as source:
        assert len(list(source)) == 1
