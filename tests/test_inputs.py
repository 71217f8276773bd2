"""What `Predictor` takes: one image in every form, lists, and what stands for none."""

from __future__ import annotations

import io
from collections import OrderedDict, deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image as PilImage
from support.tiny import SETTINGS

from data.shapes.scenes import ShapeScenes
from yolact import Detections, Predictor, build_model, get_config
from yolact import predictor as predictor_module
from yolact.sources.one import read
from yolact.sources.pixels import from_array, from_tensor

SCENE = ShapeScenes(1, 96).sample(0).image
GRAY = SCENE[..., 0]
RGB_OF_GRAY = GRAY[..., None].repeat(3, 2)
PIL = PilImage.fromarray(SCENE)


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    torch.manual_seed(0)
    config = get_config("yolact_resnet18").override(*SETTINGS, "detect.score_threshold=0.0")
    return Predictor(build_model(config))


@pytest.fixture(autouse=True)
def in_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A working folder with scene.png."""
    monkeypatch.chdir(tmp_path)
    PIL.save("scene.png")


def encoded(image: PilImage.Image, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", **options)
    return buffer.getvalue()


def turned() -> PilImage.Image:
    """The scene as a camera held upright stores it."""
    tags = PilImage.Exif()
    tags[0x0112] = 6
    return PilImage.open(io.BytesIO(encoded(PIL.rotate(90, expand=True), exif=tags)))


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (SCENE, SCENE),
        (SCENE[:, ::-1], SCENE[:, ::-1]),
        (np.asfortranarray(SCENE), SCENE),
        (np.dstack((SCENE, GRAY)), SCENE),
        (GRAY, RGB_OF_GRAY),
        (GRAY[..., None], RGB_OF_GRAY),
        (SCENE.astype(np.uint16) * 257, SCENE),
        (SCENE.astype(">u2") * 257, SCENE),
        (np.array([[0, 128, 129, 65535]], np.uint16), [[[0] * 3, [0] * 3, [1] * 3, [255] * 3]]),
        (SCENE / 255, SCENE),
        ((SCENE / 255).astype(np.float32), SCENE),
        ((SCENE / 255).astype(np.float16), SCENE),
        (np.array([[0.0, 0.5, 1.0]]), [[[0] * 3, [128] * 3, [255] * 3]]),
        (torch.from_numpy(SCENE), SCENE),
        (torch.from_numpy(SCENE).permute(2, 0, 1), SCENE),
        (torch.from_numpy(GRAY)[None], RGB_OF_GRAY),
        (torch.from_numpy(GRAY), RGB_OF_GRAY),
        (torch.from_numpy(SCENE / 255).permute(2, 0, 1).requires_grad_(), SCENE),
        (torch.from_numpy(SCENE[:3, :5]), SCENE[:3, :5].transpose(1, 2, 0)),  # channels first
        (torch.full((3, 2, 2), 0.5, dtype=torch.bfloat16), np.full((2, 2, 3), 128)),
        (PIL, SCENE),
        (PIL.convert("RGBA"), SCENE),
        (PilImage.fromarray(GRAY), RGB_OF_GRAY),
        (turned(), SCENE),
        (encoded(PIL), SCENE),
        (bytearray(encoded(PIL)), SCENE),
        ("scene.png", SCENE),
        (Path("scene.png"), SCENE),
    ],
)
def test_every_form_of_an_image_is_the_same_image(given: object, expected: object) -> None:
    shot = read(given)
    assert shot.image.dtype == np.uint8
    assert shot.image.flags.c_contiguous
    np.testing.assert_array_equal(shot.image, expected)
    assert shot.source == ("scene.png" if isinstance(given, (str, Path)) else "")


def test_pixels_that_fit_are_not_copied() -> None:
    assert np.shares_memory(from_array(SCENE), SCENE)
    assert np.shares_memory(from_tensor(torch.from_numpy(SCENE)), SCENE)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (np.zeros((0, 0, 3), np.uint8), "image of shape (0, 0, 3): expected (H, W, 3) RGB"),
        (np.zeros((5, 0, 3), np.uint8), "with at least one pixel"),
        (np.zeros((5, 5, 2), np.uint8), "image of shape (5, 5, 2)"),
        (np.zeros(5, np.uint8), "image of shape (5,)"),
        (np.zeros((3, 8, 9), np.uint8), "turn (3, H, W) by .transpose(1, 2, 0)"),
        (np.zeros((2, 8, 8, 3), np.uint8), "for several images pass a list of them"),
        (torch.zeros(2, 3, 8, 8), "for several images pass a list of them"),
        (np.zeros((8, 8, 3), np.int64), "image of type int64: expected uint8, uint16, or float"),
        (np.zeros((8, 8, 3), bool), "image of type bool"),
        (np.zeros((8, 8, 3), object), "image of type object"),
        (torch.zeros(3, 8, 8, dtype=torch.int32), "image of type int32"),
        (np.array([[0.0, 255.0]]), "values from 0 to 255: floats are taken as 0 to 1; divide by"),
        (torch.full((3, 4, 4), -0.5), "values from -0.5 to -0.5: floats"),
        (np.full((4, 4), np.nan), "values from nan to nan: floats"),
        (np.full((4, 4), np.inf), "values from inf to inf: floats"),
        (PilImage.new("RGB", (0, 4)), "cannot read the PIL image as an image: it has no pixels"),
        (b"", "cannot read the given bytes as an image: the file is empty"),
        (b"no image", "cannot read the given bytes as an image: not a known image format"),
        ("absent.png", "no such image: absent.png"),
        ("absent", "no such file or folder: absent"),
        ("", "no such file or folder: "),
        ("absent/*.png", "no image matches absent/*.png"),
        ("absent.mp4", "no such video file: absent.mp4"),
        (Path("absent.png"), "no such image: absent.png"),
        ("scene.png\0", "cannot read scene.png\0 as an image"),
        (["scene.png", "absent.png"], "no such image: absent.png"),
        (["scene.png", GRAY[:0]], "image 1: image of shape (0, 96): expected"),
        ([SCENE, None], "image 1: None is no image: expected a path or http(s) address, a NumPy"),
        ((1, 2), "image 0: 1 is no image: expected"),
        ([[SCENE]], "image 0: list is no image: expected"),
        (None, "None is no image: expected a path"),
        ({}, "dict is no image"),
        (OrderedDict(), "OrderedDict is no image"),
        (True, "True is no image"),
        (-1, "-1 is no image"),
        (0.5, "0.5 is no image"),
        (object(), "object is no image"),
        (io.BytesIO(b"x"), "BytesIO is no image"),
    ],
)
def test_what_is_no_image_is_refused_in_one_line(
    predictor: Predictor, given: Any, said: str
) -> None:
    with pytest.raises((ValueError, OSError)) as caught:
        predictor(given)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_all_ways_to_the_same_detections(predictor: Predictor) -> None:
    expected = predictor(SCENE, score_threshold=0.0, top_k=5)
    for given in ("scene.png", PIL, torch.from_numpy(SCENE), encoded(PIL)):
        found = predictor(given, score_threshold=0.0, top_k=5)
        assert torch.equal(found.scores, expected.scores)
        assert (found.image == SCENE).all()
        assert found.picture is not None
    assert len(expected) == 5


@pytest.mark.parametrize("kind", [list, tuple])
@pytest.mark.parametrize("count", [0, 1, 3, 20])
def test_lists_run_in_bounded_batches(
    predictor: Predictor,
    kind: Callable[[Any], Any],
    count: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    images = [np.full((20 + n, 30, 3), n, np.uint8) for n in range(count)]
    sizes: list[int] = []
    segment = Predictor.segment

    def counted(self: Predictor, batch: Any, thresholds: Any) -> list[Detections]:
        sizes.append(len(batch))
        return segment(self, batch, thresholds)

    monkeypatch.setattr(Predictor, "segment", counted)
    found = predictor(kind(images))
    assert isinstance(found, list)
    assert [each.image_hw for each in found] == [(20 + n, 30) for n in range(count)]
    assert all((a.image == b).all() for a, b in zip(found, images, strict=True))
    assert max(sizes, default=0) <= predictor_module.LIST_BATCH
    assert sum(sizes) == count


def test_pictures_of_listed_files_are_read_again(predictor: Predictor) -> None:
    found = predictor(["scene.png", Path("scene.png"), SCENE])
    assert [each.source for each in found] == ["scene.png", "scene.png", ""]
    assert [each.picture is None for each in found] == [True, True, False]
    assert all((each.image == SCENE).all() for each in found)
    assert predictor("scene.png").source == "scene.png"


@pytest.mark.parametrize("many", [False, True])
@pytest.mark.parametrize("channels_first", [False, True])
@pytest.mark.parametrize("is_tensor", [False, True])
def test_a_buffer_may_be_used_again(
    predictor: Predictor, is_tensor: bool, channels_first: bool, many: bool
) -> None:
    """A camera's array, and a tensor (3, H, W) whose memory is that of a picture."""
    buffer = np.zeros((40, 60, 3), np.uint8)
    given: Any = torch.from_numpy(buffer) if is_tensor else buffer
    if is_tensor and channels_first:
        given = given.permute(2, 0, 1)
    found = []
    for number in range(3):
        buffer[:] = 60 * number
        found += predictor([given]) if many else [predictor(given)]
    assert [int(each.image.max()) for each in found] == [0, 60, 120]


@pytest.mark.parametrize("surroundings", [torch.inference_mode, lambda: torch.device("meta")])
def test_results_are_plain_tensors_of_the_cpu(
    predictor: Predictor, surroundings: Callable[[], Any]
) -> None:
    expected = predictor(SCENE, 0.0, 5)
    with surroundings():
        found = predictor(SCENE, 0.0, 5)
        areas, masks = found.areas, found.masks
    found.boxes.clamp_(max=1e6)
    assert torch.equal(found.boxes, expected.boxes)
    assert torch.equal(areas, expected.areas)
    assert torch.equal(masks, expected.masks)


def test_a_home_folder_is_found(predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(Path.cwd()))
    (found,) = predictor(["~/scene.png"])
    assert found.source == str(Path.cwd() / "scene.png")
    assert (found.image == SCENE).all()


def test_other_iterables_are_streams(predictor: Predictor) -> None:
    for many in (deque([SCENE, GRAY]), iter([SCENE, GRAY]), (each for each in (SCENE, GRAY))):
        found = predictor(many)
        assert not isinstance(found, (list, Detections))
        assert [each.image_hw for each in found] == 2 * [SCENE.shape[:2]]
