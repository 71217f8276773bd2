"""The images that a name, a folder or a pattern stands for."""

from __future__ import annotations

from pathlib import Path

import pytest

from data.files import natural_key
from yolact.sources.listing import expand_images


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
    ],
)
def test_expand_images_finds_nothing(folder: Path, source: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        expand_images(folder / source)
    assert "\n" not in str(error.value)
    with pytest.raises(FileNotFoundError, match="no such file or folder: .*missing.jpg"):
        expand_images(folder / "missing.jpg")


@pytest.mark.parametrize("name", ["9" * 5000, "a" + "1" * 5000 + ".png", "8" * 9999])
def test_numbers_of_any_length_are_ordered(name: str) -> None:
    assert sorted([Path(name), Path("1")], key=natural_key)[0] == Path("1")


def test_natural_key_orders_any_mixture() -> None:
    expected = ["9", "10", "A1", "a2", "a10", "b", "B3"]
    paths = [Path(name) for name in sorted(expected)]
    assert [str(path) for path in sorted(paths, key=natural_key)] == expected


@pytest.fixture
def deep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with images in folders of odd names, and links."""
    monkeypatch.chdir(tmp_path)
    for name in (
        *("ph [2024]/1.jpg", "ph [2024]/2.txt", "ph [2024]/day 2/3.gif", "ph [2024]/day 2/4.HEIC"),
        *("ph [2024]/.thumbs/1.jpg", "ph [2024]/day 10/5.jfif", "ph 2/6.jpg", "other/7.mpo"),
        "a*b/8.jpg",
    ):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()
    return tmp_path


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("ph [2024]", [1, 3, 4, 5]),
        ("ph [2024]/*.jpg", [1]),
        ("ph [2024]/**/*.*", [1, 1, 3, 4, 5]),  # a pattern sees hidden folders
        ("ph [2024]/day 2", [3, 4]),
        ("ph [2024]/day*", [3, 4, 5]),  # folders that match give all that is in them
        ("ph [2]", [6]),
        ("ph*", [6, 1, 3, 4, 5]),
        ("*/?.mpo", [7]),
        ("a*b", [8]),
        ("a*b/*", [8]),
        ("./other/../other", [7]),
    ],
)
def test_folders_are_searched_to_the_bottom(deep: Path, source: str, expected: list[int]) -> None:
    assert [int(path.stem) for path in expand_images(source)] == expected
    absolute = [int(path.stem) for path in expand_images(deep / source)]
    assert absolute == expected


def test_links_are_followed_but_in_no_circle(deep: Path) -> None:
    Path("other/self").symlink_to(deep / "other")
    Path("other/days").symlink_to(deep / "ph [2024]/day 2")
    Path("other/gone.jpg").symlink_to("nowhere.jpg")
    names = ["7.mpo", "days/3.gif", "days/4.HEIC", "gone.jpg"]
    assert expand_images("other") == [Path("other") / name for name in names]


def test_a_folder_that_cannot_be_read_is_named(
    deep: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def listed(folder: Path) -> list[Path]:
        if folder.name == "day 2":
            raise PermissionError(13, "Permission denied")
        return list(real(folder))

    real = Path.iterdir
    monkeypatch.setattr(Path, "iterdir", listed)
    assert [path.name for path in expand_images("ph [2024]")] == ["1.jpg", "5.jfif"]
    assert caplog.messages == ["passed over: ph [2024]/day 2: Permission denied"]
