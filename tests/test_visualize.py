import dataclasses
import itertools
import math
import subprocess
from collections.abc import Sequence
from typing import Literal

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from yolact.drawing import window
from yolact.drawing.detections import (
    PALETTE,
    Color,
    draw_detections,
    draw_fps,
    place_labels,
    text_color_on,
)
from yolact.drawing.lincomb import diverging, draw_lincomb
from yolact.drawing.plots import collect_curves
from yolact.drawing.side_by_side import titled
from yolact.drawing.window import has_display, show
from yolact.evaluation.way_of_2019 import draw_plain
from yolact.results.detections import Detections

HW = (120, 160)


def make_detections(
    boxes: list[list[float]], *, hw: tuple[int, int] = HW, labels: list[int] | None = None
) -> Detections:
    """Objects that fill their boxes, best first."""
    n = len(boxes)
    box = torch.tensor(boxes, dtype=torch.float32).reshape(n, 4)
    scores = torch.linspace(0.9, 0.5, n)
    labels = list(range(n)) if labels is None else labels
    return Detections(
        boxes=box,
        scores=scores,
        labels=torch.tensor(labels, dtype=torch.int64),
        soft_masks=torch.ones(n, 8, 8),
        mask_frames=box,
        box_scores=scores,
        image_hw=hw,
        class_names=("person", "dog", "cat"),
    )


def grey(hw: tuple[int, int] = HW, value: int = 100) -> np.ndarray:
    return np.full((*hw, 3), value, np.uint8)


@pytest.mark.parametrize("color_by", ["class", "instance"])
def test_no_detections_give_a_copy(color_by: str) -> None:
    image = grey()
    drawn = draw_detections(image, make_detections([]), color_by=color_by)
    assert np.array_equal(drawn, image)
    assert drawn is not image


@pytest.mark.parametrize("name", ["half \ud800", "file \udcff.png", "nul \0", "line\nbreak", ""])
def test_names_that_no_font_has(name: str) -> None:
    """OpenCV crashes at some, and takes the process with it."""
    found = dataclasses.replace(make_detections([[20, 30, 90, 100]]), class_names=(name,))
    assert (draw_detections(grey(), found) != 100).any()
    assert titled(name, grey()).shape[1] >= HW[1]


def test_input_is_left_alone() -> None:
    image = grey()
    drawn = draw_detections(image, make_detections([[20, 30, 90, 100]]))
    assert (image == 100).all()
    assert drawn.shape == image.shape
    assert drawn.dtype == np.uint8


def test_mask_is_tinted_and_nothing_else() -> None:
    drawn = draw_detections(grey(), make_detections([[20, 30, 90, 100]]), boxes=False, text=False)
    expected = [round(100 * 0.55 + c * 0.45) for c in PALETTE[0]]
    assert np.abs(drawn[30:100, 20:90].astype(int) - expected).max() <= 1
    outside = drawn.copy()
    outside[30:100, 20:90] = 100
    assert (outside == 100).all()


def test_box_alone() -> None:
    drawn = draw_detections(grey(), make_detections([[20, 30, 90, 100]]), masks=False, text=False)
    assert tuple(drawn[30, 50]) == PALETTE[0]
    assert tuple(drawn[60, 90]) == PALETTE[0]
    assert (drawn[40:90, 30:80] == 100).all()


def test_best_is_on_top() -> None:
    same = make_detections([[20, 30, 90, 100], [20, 30, 90, 100]])
    drawn = draw_detections(grey(), same, masks=False, text=False)
    assert tuple(drawn[30, 50]) == PALETTE[0]


def test_color_by_class_is_shared() -> None:
    pair = make_detections([[10, 10, 50, 50], [80, 60, 140, 110]], labels=[2, 2])
    drawn = draw_detections(grey(), pair, masks=False, text=False, color_by="class")
    assert tuple(drawn[10, 30]) == tuple(drawn[60, 100]) == PALETTE[2]
    drawn = draw_detections(grey(), pair, masks=False, text=False, color_by="instance")
    assert tuple(drawn[10, 30]) != tuple(drawn[60, 100])


def test_given_colors_are_those_of_the_objects() -> None:
    pair = make_detections([[10, 10, 50, 50], [80, 60, 140, 110]], labels=[2, 2])
    colors = [(1, 2, 3), (250, 200, 9)]
    drawn = draw_detections(grey(), pair, masks=False, text=False, color_by="class", colors=colors)
    assert (tuple(drawn[10, 30]), tuple(drawn[60, 100])) == tuple(colors)
    tinted = draw_detections(grey(), pair, boxes=False, text=False, colors=colors)
    expected = [round(100 * 0.55 + c * 0.45) for c in colors[1]]
    assert np.abs(tinted[80, 100].astype(int) - expected).max() <= 1


def test_more_objects_than_colors() -> None:
    found = make_detections([[6.0 * i, 5.0, 6.0 * i + 4, 20.0] for i in range(25)], labels=[1] * 25)
    drawn = draw_detections(grey(), found, masks=False, text=False)
    assert [tuple(drawn[10, 6 * i]) for i in (0, 13, 14, 24)] == [
        PALETTE[i] for i in (0, 13, 0, 10)
    ]


@pytest.mark.parametrize("names", [(), ("person",)])
def test_unknown_names_become_numbers(names: tuple[str, ...]) -> None:
    found = make_detections([[20, 30, 90, 100]], labels=[7])
    found = Detections(**{**vars(found), "class_names": names})
    drawn = draw_detections(grey(), found, masks=False, boxes=False)
    assert (drawn != 100).any()


@pytest.mark.parametrize(
    "box",
    [
        [0, 0, 160, 120],
        [0, 0, 3, 3],
        [155, 0, 160, 10],
        [150, 110, 160, 120],
        [-40, -40, 20, 20],
        [120, 100, 400, 400],
        [60, 60, 60, 60],
    ],
)
def test_label_stays_inside(box: list[float]) -> None:
    labels = place_labels(["person: 0.87"], [tuple(map(int, box))], HW)
    x1, y1, x2, y2 = labels[0]
    assert 0 <= x1 < x2 <= HW[1]
    assert 0 <= y1 < y2 <= HW[0]
    draw_detections(grey(), make_detections([box]))


def test_labels_avoid_each_other() -> None:
    boxes = [(40, 40, 120, 100)] * 4
    labels = place_labels(["person: 0.87"] * 4, boxes, HW)
    for a, b in itertools.combinations(labels, 2):
        assert a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]


@pytest.mark.parametrize("hw", [(8, 8), (30, 400), (400, 30), (1080, 1920)])
def test_any_resolution(hw: tuple[int, int]) -> None:
    box = [hw[1] * 0.1, hw[0] * 0.1, hw[1] * 0.9, hw[0] * 0.9]
    found = make_detections([box, box], hw=hw)
    drawn = draw_detections(grey(hw), found)
    assert drawn.shape == (*hw, 3)
    assert (drawn != 100).any()
    for x1, y1, x2, y2 in place_labels(["hot dog: 0.50"], [tuple(map(int, box))], hw):
        assert 0 <= x1 <= x2 <= hw[1]
        assert 0 <= y1 <= y2 <= hw[0]


def test_labels_grow_with_the_image() -> None:
    heights = []
    for hw in [(480, 640), (1080, 1920), (2160, 3840)]:
        _, y1, _, y2 = place_labels(["cat"], [(9, 99, 200, 300)], hw)[0]
        heights.append(y2 - y1)
    assert heights[0] < heights[1] < heights[2]


def linear(colors: Sequence[Color]) -> NDArray[np.float64]:
    channels = np.array(colors) / 255
    return np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)


def contrast(color: Color, ink: Color) -> float:
    dark, light = sorted(linear([color, ink]) @ [0.2126, 0.7152, 0.0722])
    return float((light + 0.05) / (dark + 0.05))


def test_names_can_be_read_on_every_colour() -> None:
    assert min(contrast(color, text_color_on(color)) for color in PALETTE) >= 3.5


# How linear RGB looks to who lacks one kind of cone (Machado, Oliveira, Fernandes 2009).
COLOUR_BLIND = {
    "nobody": np.eye(3),
    "protan": [[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]],
    "deutan": [[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]],
    "tritan": [[1.256, -0.077, -0.179], [-0.078, 0.931, 0.148], [0.005, 0.691, 0.304]],
}


@pytest.mark.parametrize("kind", COLOUR_BLIND)
def test_palette_is_distinct_to_everybody(kind: str) -> None:
    seen = np.clip(linear(PALETTE) @ np.array(COLOUR_BLIND[kind]).T, 0, 1)
    encoded = np.where(seen <= 0.0031308, 12.92 * seen, 1.055 * seen ** (1 / 2.4) - 0.055)
    lab = cv2.cvtColor(np.float32([encoded]), cv2.COLOR_RGB2Lab)[0]
    apart = [np.linalg.norm(a - b) for a, b in itertools.combinations(lab, 2)]
    assert len(apart) == 14 * 13 / 2
    assert min(apart) > 9


@pytest.mark.parametrize("value", [0, 255])
def test_fps_is_readable_on_any_background(value: int) -> None:
    image = grey(value=value)
    drawn = draw_fps(image, "31.4 fps")
    corner = drawn[:20, :60]
    assert corner.min() < 60
    assert corner.max() > 200
    assert (drawn[60:] == value).all()
    assert (image == value).all()


@pytest.mark.parametrize("count", [0, 1, 5, 32])
def test_lincomb_makes_a_picture(count: int) -> None:
    generator = torch.Generator().manual_seed(0)
    prototypes = torch.rand(count, 10, 14, generator=generator)
    coefficients = torch.rand(count, generator=generator) * 2 - 1
    picture = draw_lincomb(prototypes, coefficients, torch.ones(10, 14, dtype=torch.bool))
    assert picture.dtype == np.uint8
    assert picture.ndim == 3
    assert (picture != 255).any()


def test_lincomb_shows_the_largest_weight_first_and_sums_up() -> None:
    """Two flat prototypes cancel: the first sum is red, the second white, and so is the last."""
    prototypes, coefficients = torch.ones(2, 10, 10), torch.tensor([0.5, -0.5])
    coefficients = torch.cat((torch.tensor([0.1]), coefficients))
    prototypes = torch.cat((torch.zeros(1, 10, 10), prototypes))
    picture = draw_lincomb(prototypes, coefficients, torch.zeros(10, 10))
    tile = 118 + 2 + 8  # with its frame and the gap
    top, side = 22 + 4 + 22 + 60, 4 + 60  # the middle of the first tile
    above = [tuple(picture[top, side + tile * step]) for step in range(3)]
    below = [tuple(picture[top + 120, side + tile * step]) for step in range(3)]
    red, blue, white = (200, 20, 40), (30, 70, 200), (255, 255, 255)
    assert above == [red, blue, white]
    assert below == [red, white, white]


def test_diverging() -> None:
    colors = diverging(np.float32([[-2, -1, 0, 1]]), 1.0)
    assert tuple(colors[0, 2]) == (255, 255, 255)
    assert (colors[0, 0] == colors[0, 1]).all()
    assert colors[0, 1, 2] > colors[0, 1, 0]  # blue against
    assert colors[0, 3, 0] > colors[0, 3, 2]  # red for


@pytest.fixture
def no_display(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(window.sys, "platform", "linux")
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    has_display.cache_clear()
    yield
    has_display.cache_clear()


@pytest.mark.usefixtures("no_display")
def test_show_without_display() -> None:
    with pytest.raises(OSError, match="no display; write to a file with :out"):
        show(grey())
    window.close_window()


@pytest.mark.usefixtures("no_display")
def test_dead_display_is_found_out_in_a_child(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISPLAY", ":99")
    aborted = subprocess.CompletedProcess([], -6)
    monkeypatch.setattr(window.subprocess, "run", lambda *_, **__: aborted)
    assert not has_display()


@pytest.mark.parametrize("color_by", ["class", "instance"])
def test_plain_drawing_looks_the_same(color_by: Literal["class", "instance"]) -> None:
    """Boxes, names and masks of one object have one colour, in both ways of drawing."""
    soft = torch.zeros(2, 8, 8)
    soft[0, 1:5, 1:5] = soft[1, 4:7, 3:7] = 1
    boxes = torch.tensor([[8.0, 8.0, 40.0, 40.0], [24.0, 32.0, 56.0, 56.0]])
    frames = torch.tensor([0.0, 0.0, 64.0, 64.0]).expand(2, 4)
    scores = torch.tensor([0.9, 0.8])
    found = Detections(boxes, scores, torch.tensor([3, 3]), soft, frames, scores, (64, 64))
    image = np.full((64, 64, 3), 100, np.uint8)
    plain = draw_plain(image, found, color_by=color_by).astype(int)
    assert np.abs(plain - draw_detections(image, found, color_by=color_by)).max() <= 2


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([], {}),
        ([{}, {"a": None}], {}),
        (
            [{"a": 1.0}, {"a": math.nan, "b": None}, {"a": 2.0, "b": math.inf}, {"b": 3.0}],
            {"a": [(0, 1.0), (2, 2.0)], "b": [(3, 3.0)]},
        ),
    ],
)
def test_curves_have_only_what_is_defined(
    rows: list[dict[str, float | None]], expected: dict[str, object]
) -> None:
    assert collect_curves(range(len(rows)), rows) == expected
