"""The examples of docs/use.md run as they stand."""

from __future__ import annotations

import re
from pathlib import Path

import cv2
import matplotlib
import pytest

from data.images import read_image
from data.video.writer import VideoWriter

PAGE = Path(__file__).resolve().parent.parent / "docs" / "use.md"
EXAMPLES = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
PORTRAIT = Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg"
MAX_LINES = 10


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with photo.jpg, photos/ and clip.mp4."""
    folder = tmp_path_factory.mktemp("use")
    portrait = cv2.cvtColor(read_image(PORTRAIT), cv2.COLOR_RGB2BGR)
    (folder / "photos").mkdir()
    for name in ("photo.jpg", "photos/1.jpg", "photos/2.jpg", "photos/3.jpg"):
        cv2.imwrite(str(folder / name), portrait)
    with VideoWriter(folder / "clip.mp4", 25, (96, 128)) as writer:
        for _ in range(4):
            writer.write(cv2.resize(read_image(PORTRAIT), (128, 96)))
    return folder


@pytest.mark.parametrize("example", EXAMPLES, ids=range(len(EXAMPLES)))
def test_an_example_runs(
    example: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    before = set(folder.iterdir())
    exec(compile(example, str(PAGE), "exec"), {"__name__": "example"})
    assert capsys.readouterr().out
    assert set(folder.iterdir()) == before
    assert len(example.splitlines()) <= MAX_LINES


def test_there_are_examples() -> None:
    assert len(EXAMPLES) > 3
