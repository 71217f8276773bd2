from __future__ import annotations

import io
import struct
import sys
import tracemalloc
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image, ImageOps

from data import images
from data.formats.label_maps.ids import read_ids
from data.images import read_head, read_image

GRADIENT = np.arange(6 * 8 * 3, dtype=np.uint8).reshape(6, 8, 3)
ROTATED = 6  # EXIF: turn clockwise to see it upright


def encoded(image: Image.Image, file_format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def exif(orientation: int) -> Image.Exif:
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


RGB = Image.fromarray(GRADIENT)
RGBA = Image.fromarray(np.dstack((GRADIENT, np.zeros((6, 8), np.uint8))))
GRAY = Image.fromarray(GRADIENT[..., 0])
DEEP = Image.fromarray(GRADIENT[..., 0].astype(np.uint16) * 257)
FEW = Image.fromarray(GRADIENT // 64 * 64)


@pytest.mark.parametrize(
    ("content", "expected", "tolerance"),
    [
        (encoded(RGB, "PNG"), GRADIENT, 0),
        (encoded(RGB, "BMP"), GRADIENT, 0),
        (encoded(RGB, "TIFF"), GRADIENT, 0),
        (encoded(RGB, "WEBP", lossless=True), GRADIENT, 0),
        (encoded(GRAY.convert("RGB"), "AVIF", quality=100), GRADIENT[..., :1].repeat(3, 2), 3),
        (encoded(RGBA, "PNG"), GRADIENT, 0),
        (encoded(GRAY, "PNG"), GRADIENT[..., :1].repeat(3, 2), 0),
        (encoded(GRAY.convert("LA"), "PNG"), GRADIENT[..., :1].repeat(3, 2), 0),
        (encoded(DEEP, "PNG"), GRADIENT[..., :1].repeat(3, 2), 0),
        (encoded(FEW.quantize(64), "PNG"), GRADIENT // 64 * 64, 0),
        (encoded(FEW.quantize(64), "GIF"), GRADIENT // 64 * 64, 0),
        (encoded(GRAY, "JPEG", quality=100), GRADIENT[..., :1].repeat(3, 2), 3),
        (encoded(GRAY.convert("RGB"), "JPEG", quality=100), GRADIENT[..., :1].repeat(3, 2), 3),
        (encoded(GRAY.convert("CMYK"), "JPEG", quality=100), GRADIENT[..., :1].repeat(3, 2), 4),
    ],
)
def test_formats(content: bytes, expected: np.ndarray, tolerance: int) -> None:
    image = read_image(content)
    assert image.dtype == np.uint8
    assert image.shape == (6, 8, 3)
    assert image.flags.writeable
    assert np.abs(image.astype(int) - expected).max() <= tolerance


def test_channel_order() -> None:
    red = Image.new("RGB", (16, 16), (250, 20, 10))
    for file_format in ("JPEG", "PNG"):
        pixel = read_image(encoded(red, file_format))[8, 8]
        assert np.abs(pixel.astype(int) - (250, 20, 10)).max() <= 4


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([np.nan, -7, 0.4, 99.6, 255, 300], [0, 0, 0, 100, 255, 255]),
        ([np.nan, -7, 0.0, 0.4, 1.0], [0, 0, 0, 102, 255]),  # none larger than 1: a share
        ([0.0, 0.0], [0, 0]),
    ],
)
def test_floats_are_limited(values: list[float], expected: list[int]) -> None:
    image = read_image(encoded(Image.fromarray(np.array([values], np.float32)), "TIFF"))
    assert image[0, :, 0].tolist() == expected


@pytest.mark.parametrize("file_format", ["GIF", "MPO"])
def test_the_first_of_several_pictures_is_read(file_format: str) -> None:
    first, second = Image.new("RGB", (16, 16), "white"), Image.new("RGB", (16, 16), "black")
    content = encoded(first, file_format, save_all=True, append_images=[second])
    assert (read_image(content) >= 254).all()


HEIF = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"


def test_heif_needs_a_library(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(images, "_reads_heif", lambda: False)
    (tmp_path / "a.heic").write_bytes(HEIF)
    for read in (read_image, read_head):
        with pytest.raises(ValueError, match=r"a.heic as an image: .*: pip install pi-heif"):
            read(tmp_path / "a.heic")


@pytest.mark.parametrize("installed", ["pi_heif", "pillow_heif"])
def test_heif_is_registered_once_and_when_it_comes(
    installed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    registered: list[str] = []
    for name in ("pi_heif", "pillow_heif"):
        library = SimpleNamespace(register_heif_opener=partial(registered.append, name))
        monkeypatch.setitem(sys.modules, name, library if name == installed else None)
    images._reads_heif.cache_clear()
    read_image(encoded(RGB, "PNG"))
    assert registered == []
    for _ in range(2):
        with pytest.raises(ValueError, match="not a known image format"):
            read_image(HEIF)
    assert registered == [installed]
    images._reads_heif.cache_clear()


def test_a_jpeg_that_is_cut_short_is_not_filled_up_with_gray() -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    content = encoded(Image.fromarray(noise), "JPEG")
    with pytest.raises(ValueError, match="truncated"):
        read_image(content[: len(content) // 2])


@pytest.mark.parametrize("file_format", ["JPEG", "PNG"])
def test_squares_are_rotated(file_format: str) -> None:
    half = np.zeros((16, 16, 3), np.uint8)
    half[:, :8] = 250  # the left becomes the top
    content = encoded(Image.fromarray(half), file_format, exif=exif(ROTATED))
    assert read_image(content, (16, 16))[:8].min() > 200


@pytest.mark.parametrize("file_format", ["JPEG", "PNG"])
@pytest.mark.parametrize(
    ("annotated_hw", "expected_hw"),
    [(None, (8, 6)), ((8, 6), (8, 6)), ((6, 8), (6, 8)), ((60, 80), (8, 6))],
)
def test_exif_rotation_follows_the_annotations(
    tmp_path: Path,
    file_format: str,
    annotated_hw: tuple[int, int] | None,
    expected_hw: tuple[int, int],
) -> None:
    content = encoded(RGB, file_format, exif=exif(ROTATED))
    assert read_image(content, annotated_hw).shape[:2] == expected_hw
    (tmp_path / "photo").write_bytes(content)
    assert read_head(tmp_path / "photo").image_hw == (8, 6)


def test_half_turn_is_applied() -> None:
    content = encoded(RGB, "PNG", exif=exif(3))
    assert (read_image(content, (6, 8)) == GRADIENT[::-1, ::-1]).all()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty"),
        (b"not an image", "not a known image format"),
        (encoded(RGB, "JPEG")[:-40], "truncated|broken"),
        (encoded(RGB, "PNG")[:-40], "truncated|broken"),
        (encoded(RGB, "JPEG")[:30], "cannot read"),
        (encoded(RGB, "JPEG")[:30] + b"\xff\xd9", "cannot read"),
    ],
)
def test_broken_files(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "broken.jpg"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        read_image(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_and_folder(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no such image: .*gone\.jpg"):
        read_image(tmp_path / "gone.jpg")
    with pytest.raises(FileNotFoundError, match=r"no such image: .*gone\.jpg"):
        read_head(tmp_path / "gone.jpg")
    with pytest.raises(ValueError, match="cannot read"):
        read_image(tmp_path)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "webp", "gif"])
def test_the_limit_is_raised_only_when_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    path = tmp_path / f"a.{suffix}"
    Image.new("RGB", (60, 40)).save(path)
    monkeypatch.setattr(images, "MAX_PIXELS", 2000)
    for pillows in (None, 4000, 1000, 10):  # it warns of more, and refuses more than the double
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", pillows)
        with pytest.raises(ValueError, match=r"\d+ pixels exceed 2,000; .* max_pixels=\d+$"):
            read_image(path)
        with pytest.raises(ValueError, match=r"60 x 40 pixels exceed 2,399; .*max_pixels=2400"):
            read_image(path, max_pixels=2399)
        assert read_image(path, max_pixels=2400).shape == (40, 60, 3)
        assert pillows == Image.MAX_IMAGE_PIXELS


def test_huge_images_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "MAX_PIXELS", 40)
    (tmp_path / "a.png").write_bytes(encoded(RGB, "PNG"))
    for read in (read_image, read_head):
        with pytest.raises(ValueError, match=r"a\.png as an image: 8 x 6 pixels exceed 40"):
            read(tmp_path / "a.png")


def bmp_in_runs(width: int, height: int, bits: int = 8) -> bytes:
    """A BMP whose lines are each a run of one pixel, which the decoder fills up."""
    lines, palette = b"\x01\x00\x00\x00" * height, bytes((1, 2, 3, 0)) * 2
    sizes = 40, width, height, 1, bits, {8: 1, 4: 2}[bits], len(lines), 0, 0, 2, 2
    offset = 14 + 40 + len(palette)
    head = b"BM" + struct.pack("<IHHI", offset + len(lines), 0, 0, offset)
    return head + struct.pack("<IiiHHIIiiII", *sizes) + palette + lines


@pytest.mark.parametrize("bits", [8, 4])
def test_bitmaps_in_runs(tmp_path: Path, bits: int) -> None:
    """Pillow decodes them pixel by pixel in Python."""
    assert (read_image(bmp_in_runs(60, 40, bits)) == (3, 2, 1)).all()
    large = bmp_in_runs(1 << 19, 100, bits)
    (tmp_path / "a.bmp").write_bytes(large)
    for read in (read_image, read_head):
        with pytest.raises(ValueError, match=r"a BMP in runs, .* PNG"):
            read(tmp_path / "a.bmp")
    with pytest.raises(ValueError, match="an image that cannot be read"):
        read_ids(tmp_path / "a.bmp", (100, 1 << 19))
    with pytest.raises(ValueError, match="not a known image format"):
        read_image(large[14:])  # without the head of a file


@pytest.mark.parametrize(("mode", "orientation"), [("RGB", 1), ("L", 1), ("RGB", 3), ("RGBA", 6)])
def test_decoding_takes_the_memory_of_the_picture(
    tmp_path: Path, mode: str, orientation: int
) -> None:
    picture = Image.effect_noise((2048, 1536), 50).convert(mode)
    picture.save(tmp_path / "a.png", exif=exif(orientation), compress_level=0)
    with Image.open(tmp_path / "a.png") as stored:
        expected = np.array(ImageOps.exif_transpose(stored).convert("RGB"))
    tracemalloc.start()
    try:
        image = read_image(tmp_path / "a.png")
        peak = tracemalloc.get_traced_memory()[1] - (tmp_path / "a.png").stat().st_size
    finally:
        tracemalloc.stop()
    assert np.array_equal(image, expected)
    assert peak < 2 * image.nbytes


@pytest.mark.parametrize("file_format", ["JPEG", "PNG"])
@pytest.mark.parametrize("orientation", range(10))
def test_pixels_are_turned_as_exif_says(tmp_path: Path, file_format: str, orientation: int) -> None:
    path = tmp_path / "a.picture"
    path.write_bytes(encoded(RGB, file_format, exif=exif(orientation)))
    with Image.open(path) as picture:
        expected = np.asarray(ImageOps.exif_transpose(picture))
    assert read_head(path).image_hw == expected.shape[:2]
    assert np.abs(read_image(path).astype(int) - expected).max() <= 1


@pytest.mark.parametrize("damage", [b"\x00\x7f", b"\x00\x02", b"\x00\x00"])
def test_exif_that_libraries_read_differently_turns_nothing_or_both(
    tmp_path: Path, damage: bytes
) -> None:
    """Of an orientation that is stored in a wrong type Pillow says nothing, OpenCV takes it."""
    path, content = tmp_path / "a.jpg", encoded(RGB, "JPEG", exif=exif(6))
    kind = content.index(b"\x01\x12") + 2
    path.write_bytes(content[:kind] + damage + content[kind + 2 :])
    assert read_head(path).image_hw == read_image(path).shape[:2]


@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_of_thousands_of_scans_is_refused(tmp_path: Path, progressive: bool) -> None:
    """A scan may have a dozen bytes, and passes over all pixels: two megabytes took minutes."""
    path = tmp_path / "a.jpg"
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(path, progressive=progressive)
    assert read_image(path).shape == (64, 64, 3)
    content = path.read_bytes()
    scans = content.index(b"\xff\xda")
    last = content[content.rindex(b"\xff\xda") : -2]
    noise_behind = np.random.default_rng(1).integers(0, 256, 1 << 24, np.uint8).tobytes()
    path.write_bytes(content + noise_behind)  # as a motion photo has it
    assert read_image(path).shape == (64, 64, 3)
    path.write_bytes(content[:scans] + last * 300 + content[scans:])
    for read in (read_image, partial(read_image, least_side=8)):
        with pytest.raises(ValueError, match="a.jpg.*more than 200 scans"):
            read(path)


@pytest.mark.parametrize("big_tiff", [False, True])
@pytest.mark.parametrize("pages", [1, 4])
def test_a_tiff_of_several_pages(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, pages: int, big_tiff: bool
) -> None:
    frames = [Image.new("L", (8, 6), 50 * number) for number in range(pages)]
    folder = tmp_path / f"{pages}{big_tiff}"  # told once a folder, and pytest may use one twice
    folder.mkdir()
    file = folder / "stack.tif"
    frames[0].save(file, save_all=True, append_images=frames[1:], big_tiff=big_tiff)
    for read in (read_head, read_image, read_image):
        read(file)
    told = f"{file} has {pages} pages: only the first is read, as of all in its folder"
    assert [record.message for record in caplog.records] == [told] * (pages > 1)
    assert not read_image(file).any()


@pytest.mark.parametrize("big_tiff", [False, True])
def test_smaller_copies_in_a_tiff_are_no_pages(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, big_tiff: bool
) -> None:
    copies = [Image.new("L", (4, 3)) for _ in range(2)]
    for copy in copies:
        copy.encoderinfo = {"tiffinfo": {254: 1}}
    whole = Image.new("L", (8, 6))
    whole.save(tmp_path / "a.tif", save_all=True, append_images=copies, big_tiff=big_tiff)
    assert read_image(tmp_path / "a.tif").shape == (6, 8, 3)
    assert not caplog.records


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
@pytest.mark.parametrize("end", [6, 10, 30, 140])
def test_pages_of_a_tiff_that_is_cut_short(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, end: int
) -> None:
    frames = [Image.new("L", (8, 6), 50 * number) for number in range(4)]
    frames[0].save(tmp_path / "a.tif", save_all=True, append_images=frames[1:])
    (tmp_path / "a.tif").write_bytes((tmp_path / "a.tif").read_bytes()[:end])
    with suppress(ValueError):
        read_image(tmp_path / "a.tif")
    assert "pages" not in caplog.text
