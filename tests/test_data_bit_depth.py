from __future__ import annotations

import io
import struct
import tracemalloc
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image
from support.foreign_formats import opened

from data import bit_depth
from data.bit_depth import scale_of, to_8_bits
from data.checks.dataset import check_annotations, check_dataset
from data.images import from_pil, read_head, read_image

CELL = {"id": 1, "name": "cell"}
SHADES = np.arange(6 * 8, dtype=np.uint8).reshape(6, 8) * 5
TWELVE = SHADES.astype(np.uint16) * 16 + 15


def encoded(pixels: Any, suffix: str = ".png") -> bytes:
    plain = [cv2.IMWRITE_TIFF_COMPRESSION, 1]  # by itself OpenCV 4 writes floats with losses
    return bytes(cv2.imencode(suffix, pixels, plain if suffix == ".tiff" else [])[1])


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.zeros((0, 5), np.uint16), []),
        (np.zeros(3, np.uint16), [0, 0, 0]),
        (np.array([0, 128, 255], np.uint16), [0, 128, 255]),
        (np.array([0, 256, 1023], np.uint16), [0, 64, 255]),
        (np.array([0, 1024, 4095], np.uint16), [0, 64, 255]),
        (np.array([0, 8192, 16383], np.uint16), [0, 128, 255]),
        (np.array([0, 257, 32896, 65535], np.uint16), [0, 1, 128, 255]),
        (np.array([0, 2**16, 2**18 - 1], np.int32), [0, 64, 255]),
        (np.array([0, 2**31 - 1], np.int32), [0, 127]),  # of the 32 bits that it has
        (np.array([-1000, 0, 1000], np.int16), [0, 128, 255]),  # such as of a tomograph
        (np.array([-3, 0, 128, 255, 255], np.int16), [0, 0, 128, 255, 255]),  # noise
        (np.array([0, 0.5, 1], np.float32), [0, 128, 255]),
        (np.array([0, 0.5, 1.001], np.float32), [0, 128, 255]),  # resampled
        (np.array([0, 0.031243, 0.062486], np.float32), [0, 128, 255]),  # 12 of 16 bits
        (np.array([0, 51, 255], np.float64), [0, 51, 255]),
        (np.array([0, 2048, 4095], np.float32), [0, 128, 255]),
        (np.array([-1, 0, 1], np.float32), [0, 128, 255]),  # normalised
        (np.array([-50, -25, 0], np.float32), [0, 128, 255]),  # decibels
        (np.array([0, 5e5, 1e6, 1e30], np.float64), [0, 0, 0, 255]),
        (np.array([np.nan, 0, np.inf, 1, -np.inf], np.float32), [0, 0, 255, 255, 0]),
        (np.array([np.nan, np.nan], np.float32), [0, 0]),
        (np.array([-4, -4], np.float32), [0, 0]),
    ],
)
def test_scales(values: Any, expected: list[int]) -> None:
    scaled = to_8_bits(values)
    assert scaled.dtype == np.uint8
    assert scaled.shape == values.shape
    assert scaled.reshape(-1).tolist() == expected


def ramp(top: float, side: int = 100) -> Any:
    return np.linspace(0, top, side * side).astype(np.uint16).reshape(side, side)


@pytest.mark.parametrize(
    ("side", "marked", "value", "top"),
    [
        (100, [], 0, 4095),
        (100, [(20, 50)], 65535, 4095),  # a hot pixel
        (200, [(20, 50), (90, 3), (199, 199)], 65535, 4095),
        (100, [(20, 50), (60, 50)], 65535, 65535),  # more than one in 10,000
        (200, [(20, 50), (20, 51)], 65535, 65535),  # a small bright object
        (200, [(20, 50), (21, 51)], 65535, 65535),
        (200, [(20, 50), (21, 50)], 65535, 65535),
        (200, [(20, 50), (21, 49)], 65535, 65535),
        (40, [(20, 30)], 65535, 4095),
        (20, [(10, 10)], 65535, 65535),  # too few pixels to tell
    ],
)
@pytest.mark.parametrize("kind", [np.uint16, np.float32])
@pytest.mark.parametrize("channels", [1, 3])
def test_hot_pixels_do_not_darken_a_picture(
    *, side: int, marked: list[tuple[int, int]], value: int, top: int, kind: Any, channels: int
) -> None:
    values = np.dstack([ramp(4095, side)] * channels).astype(kind)
    for row, column in marked:
        values[row, column, 0] = value
    values = values if channels == 3 else values[..., 0]
    assert scale_of(values) == (0, top)
    assert (to_8_bits(values) == np.round((values / top).clip(0, 1) * 255)).all()


def test_many_bright_pixels_are_told_apart_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are not gathered band by band, which takes minutes of a large picture."""
    bands: list[object] = []
    unite = np.union1d
    monkeypatch.setattr(np, "union1d", lambda *both: (bands.append(both), unite(*both))[1])
    monkeypatch.setattr(bit_depth, "_BAND", 5000)
    values = ramp(255, 1000)
    values[::10, ::50] = 4000  # 20 in every second of 200 bands, and 100 may be hot in all
    assert scale_of(values) == (0, 4095)
    assert len(bands) < 30


@pytest.mark.parametrize("hot", [0, 4])
def test_dark_floats_with_a_white_pixel_are_no_12_bits(hot: int) -> None:
    values = np.linspace(0, 0.05, 200 * 300, dtype=np.float32).reshape(200, 300)
    for pixel in range(hot):
        values[20 * pixel, 20] = 1
    assert scale_of(values)[1] == pytest.approx(1 if hot else 4095 / 65535)


def test_rare_counts_are_not_hot() -> None:
    counts = np.zeros((100, 100), np.uint16)
    counts[50, 50] = 3
    assert scale_of(counts) == (0, 255)


def test_pictures_of_one_dataset_that_are_scaled_differently(tmp_path: Path) -> None:
    for number, top in enumerate((4095, 4000, 60000, 3900)):
        cv2.imwrite(str(tmp_path / f"{number}.png"), ramp(top))
    cv2.imwrite(str(tmp_path / "8_bits.png"), ramp(255).astype(np.uint8))
    images = [{"id": n, "file_name": f"{n}.png"} for n in (0, 1, 2, 3, "8_bits")]
    content: dict[str, object] = {"images": images, "annotations": [], "categories": [CELL]}
    (found,) = check_annotations(content, tmp_path)
    assert found.is_notice
    told = "0 to 4095: 3 images, such as 0.png, 0 to 65535: 1 image, such as 2.png; if one camera"
    assert str(found).startswith(f"images of more than 8 bits with several scales: {told}")
    content["images"] = images[:2]
    assert not check_annotations(content, tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        encoded(TWELVE),
        encoded(TWELVE, ".tiff"),
        encoded(SHADES.astype(np.uint16) * 257),
        encoded(SHADES.astype(np.float32) / 255, ".tiff"),
        encoded(SHADES.astype(np.float32) * 257, ".tiff"),
        encoded(TWELVE[..., None].repeat(3, 2)),
        encoded(TWELVE[..., None].repeat(3, 2), ".tiff"),
        encoded(np.dstack([TWELVE] * 3 + [TWELVE * 0])),  # transparent
        encoded(SHADES / 255, ".tiff"),  # 64 bits
        encoded(np.dstack([SHADES.astype(np.float32) / 255] * 3), ".tiff"),
        encoded(np.dstack([SHADES.astype(np.int32)] * 3), ".tiff"),
    ],
)
def test_files_of_more_than_8_bits(content: bytes, tmp_path: Path) -> None:
    image = read_image(content)
    assert image.shape == (6, 8, 3)
    assert np.abs(image.astype(int) - SHADES[..., None]).max() <= 1
    (tmp_path / "a.png").write_bytes(content)
    assert read_head(tmp_path / "a.png") == ((6, 8), (6, 8), True)


@pytest.mark.parametrize(("kind", "suffix"), [("u2", ".png"), ("u2", ".tiff"), ("f8", ".tiff")])
def test_colours_keep_their_order(kind: str, suffix: str) -> None:
    blue_green_red = np.full((4, 4, 3), (1000, 2000, 3000), kind)
    assert read_image(encoded(blue_green_red, suffix))[0, 0].tolist() == [187, 125, 62]


def test_pictures_of_pillow_are_scaled_alike() -> None:
    picture = Image.open(io.BytesIO(encoded(TWELVE)))
    assert (from_pil(picture) == read_image(encoded(TWELVE))).all()


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_broken_files_of_64_bits(tmp_path: Path) -> None:
    content = encoded(SHADES / 255, ".tiff")
    field = b"\x03\x00\x01\x00\x00\x00"  # one number of 16 bits
    huge = content
    for tag, side in ((b"\x00\x01", b"\x08\x00"), (b"\x01\x01", b"\x06\x00")):
        assert tag + field + side in content
        huge = huge.replace(tag + field + side, tag + field + b"\xff\xff")
    (tmp_path / "huge.tif").write_bytes(huge)
    for read in (read_image, read_head):
        with pytest.raises(ValueError, match=r"huge.tif as an image: 65535 x 65535 pixels exceed"):
            read(tmp_path / "huge.tif")
    for broken in (content[: len(content) // 2], content[:40], b"II*\0" + b"\xff" * 99, b"MM\0*"):
        with pytest.raises(ValueError, match="cannot read the given bytes as an image"):
            read_image(broken)


def test_a_size_below_0(tmp_path: Path) -> None:
    """Two of them make a positive number of pixels."""
    entries = [(tag, 9, 1, 2**32 - 1) for tag in (256, 257)]  # width and height, signed
    entries += [(258, 3, 1, 64), (262, 3, 1, 1), (273, 4, 1, 8), (277, 3, 1, 1)]
    listed = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    file = tmp_path / "a.tif"
    file.write_bytes(b"II*\0" + struct.pack("<IH", 8, len(entries)) + listed + bytes(64))
    for read in (read_head, read_image):
        with pytest.raises(ValueError, match="it has no pixels"):
            read(file)


def test_a_labelme_file_without_end(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("[" * 200_000)
    for read in (read_head, read_image):
        with pytest.raises(ValueError, match="cannot read .*a.json as an image"):
            read(tmp_path / "a.json")


@pytest.mark.parametrize("channels", [1, 3])
def test_a_deep_picture_is_rotated(tmp_path: Path, channels: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    deep = Image.fromarray(TWELVE)
    deep.save(tmp_path / "a.png", exif=exif)
    if channels == 3:  # Pillow writes none: its chunk is put into one of OpenCV's
        chunk = (tmp_path / "a.png").read_bytes()
        start = chunk.index(b"eXIf") - 4
        length = int.from_bytes(chunk[start : start + 4], "big") + 12
        plain = encoded(TWELVE[..., None].repeat(3, 2))
        content = plain[:33] + chunk[start : start + length] + plain[33:]
        (tmp_path / "a.png").write_bytes(content)
    assert read_head(tmp_path / "a.png") == ((8, 6), (6, 8), True)
    turned = np.rot90(SHADES, -1)
    assert np.abs(read_image(tmp_path / "a.png")[..., 0].astype(int) - turned).max() <= 1


@pytest.mark.parametrize(
    ("pixels", "what"),
    [
        (np.full((40, 60, 3), 90, np.uint8), "an image of one colour"),
        (np.zeros((40, 60), np.uint16), "an image of one colour"),
        (np.arange(2400, dtype=np.uint16).reshape(40, 60) % 9, "nearly black"),
        (np.arange(2400, dtype=np.uint8).reshape(40, 60) % 9, "nearly black"),
        (np.arange(2400, dtype=np.uint16).reshape(40, 60), None),
        (np.arange(2400, dtype=np.uint8).reshape(40, 60), None),
    ],
)
def test_pictures_without_anything_to_see(tmp_path: Path, pixels: Any, what: str | None) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), pixels)
    (tmp_path / "annotations.json").write_text(
        '{"images": [{"id": 1, "file_name": "a.png"}], "annotations": [], '
        '"categories": [{"id": 1, "name": "cell"}]}'
    )
    found = check_dataset(str(tmp_path))["train"]
    assert [problem.where for problem in found if "image" in problem.what] == ["a.png"] * bool(what)
    assert all((what or "") in problem.what for problem in found)


def test_every_pixel_format_of_an_export(
    cases_root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = cases_root / "c16_pixels"
    with caplog.at_level("INFO"):
        dataset = opened(folder / "a.json", "train")
    assert "more than 8 bits in 6 images: each is scaled" in caplog.text
    names = [dataset.image_info(index)["file_name"] for index in range(len(dataset))]
    grays = {name: dataset.sample(i).image for i, name in enumerate(names)}
    reference = grays["la.png"].astype(int)
    for name in ("g16.png", "g16_12bit.png", "f32.tif", "f32_255.tif", "g16.tif"):
        assert np.abs(grays[name] - reference).max() <= 1, name
    assert (grays["rgb16.png"] == grays["rgba.png"]).all()
    (scales,) = check_dataset(str(folder / "a.json"))["train"]  # it mixes 12 bits with 16
    assert scales.is_notice


@pytest.mark.parametrize("kind", [np.uint16, np.int32, np.float32])
def test_scaling_takes_the_memory_of_a_band(kind: type[np.number]) -> None:
    values = np.arange(3000 * 3000).reshape(3000, 3000).astype(kind)
    tracemalloc.start()
    scaled = to_8_bits(values)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < scaled.nbytes + values.nbytes + 60e6  # all at once: 8 to 24 bytes a value more
    parts = [to_8_bits(np.append(row, (values.min(), values.max())))[:-2] for row in values[::999]]
    assert (scaled[::999] == parts).all()
