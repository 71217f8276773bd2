"""Colours, as they are distorted in training."""

from __future__ import annotations

import colorsys

import numpy as np
import pytest

from data.augment import colours
from data.augment.colours import adjust_colours, distort_colours

GRAY = np.full((60, 80, 3), 90, np.uint8)


def test_colours_unchanged() -> None:
    assert adjust_colours(GRAY) is GRAY
    empty = np.zeros((0, 5, 3), np.uint8)
    assert distort_colours(empty, np.random.default_rng(0)).shape == empty.shape


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"brightness": 20.0}, (220, 120, 60)),
        ({"contrast": 0.5}, (100, 50, 20)),
        ({"brightness": 10.0, "contrast": 1.5}, (255, 165, 75)),
        ({"saturation": 0.5}, (200, 150, 120)),
        ({"saturation": 1.5}, (200, 50, 0)),
    ],
)
def test_known_colours(changes: dict[str, float], expected: tuple[int, int, int]) -> None:
    pixel = np.full((1, 1, 3), (200, 100, 40), np.uint8)
    assert adjust_colours(pixel, **changes)[0, 0].tolist() == list(expected)
    assert pixel[0, 0].tolist() == [200, 100, 40]


def test_colours_are_distorted_independently(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[dict[str, float]] = []
    monkeypatch.setattr(colours, "adjust_colours", lambda _, **changes: drawn.append(changes))
    rng = np.random.default_rng(0)
    for _ in range(400):
        distort_colours(GRAY, rng)
    neutral = {"brightness": 0, "contrast": 1, "saturation": 1, "hue_degrees": 0}
    limits = {"brightness": 32, "contrast": 0.5, "saturation": 0.5, "hue_degrees": 18}
    values = np.array([[changes[name] - neutral[name] for name in neutral] for changes in drawn])
    assert np.abs(values).max(axis=0) == pytest.approx(list(limits.values()), rel=0.05)
    varied = values != 0
    assert varied.mean(axis=0) == pytest.approx([0.5] * 4, abs=0.1)
    assert np.corrcoef(varied.T) == pytest.approx(np.eye(4), abs=0.2)


@pytest.mark.parametrize("degrees", [-18.0, -5.0, 7.0, 18.0])
def test_hue_equals_exact_arithmetic(degrees: float) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 20, 3), np.uint8)
    turned = adjust_colours(pixels, hue_degrees=degrees).astype(float)
    hsv = [colorsys.rgb_to_hsv(*(pixel / 255)) for pixel in pixels.reshape(-1, 3)]
    exact = [colorsys.hsv_to_rgb((h + degrees / 360) % 1, s, v) for h, s, v in hsv]
    difference = np.abs(turned - 255 * np.array(exact).reshape(20, 20, 3))
    assert difference.mean() < 1.5
    assert difference.max() < 9  # 8-bit hues are 1.4 degrees apart
