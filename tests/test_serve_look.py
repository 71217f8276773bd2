"""How the page of `yolact serve` looks in small windows, in few colours, and with long names."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from support.browser import need_browser, open_page

from data.images import read_image

need_browser()
pytest.importorskip("fastapi", reason="needs the extra 'serve'")
pytest.importorskip("httpx2", reason="needs httpx2, which comes with the extra 'dev'")

from playwright.sync_api import Browser, FloatRect, Locator, Page, expect  # noqa: E402
from support.faked_answers import FOUND, add, answer, answers, found, late  # noqa: E402

pytestmark = pytest.mark.slow

LONG = "a-class-name-without-any-place-where-it-could-be-broken-" * 2
ARABIC = "\u062d\u0642\u064a\u0628\u0629"


@pytest.fixture
def page(browser: Browser, tiny_address: str) -> Iterator[Page]:
    with open_page(browser, base_url=tiny_address) as opened:
        opened.goto("/")
        expect(opened.locator("[data-ready]")).to_be_attached()
        yield opened


def resize(page: Page, width: int, height: int) -> None:
    page.set_viewport_size({"width": width, "height": height})


def box_of(element: Locator) -> FloatRect:
    box = element.bounding_box()
    assert box is not None
    return box


def bottom(element: Locator) -> float:
    box = box_of(element)
    return box["y"] + box["height"]


@pytest.mark.parametrize("size", [(740, 330), (915, 320), (320, 256), (1280, 800)])
def test_the_buttons_to_begin_with_are_whole(page: Page, size: tuple[int, int]) -> None:
    resize(page, *size)
    assert bottom(page.locator("#watch")) < bottom(page.locator("#stage"))


@pytest.mark.parametrize("width", [360, 880, 1024, 1200, 1280])
def test_the_parts_of_a_mask_are_told_apart(page: Page, width: int) -> None:
    resize(page, width, 420 if width == 360 else 740)
    answers(page, found(1))
    add(page, "a.png")
    page.click(".object")
    expect(page.locator(".tile")).to_have_count(7)
    fits = "(tiles) => tiles.map((e) => e.clientWidth >= e.lastElementChild.scrollWidth)"
    assert all(page.locator(".tile").evaluate_all(fits))
    assert box_of(page.locator("#explain-title"))["y"] >= bottom(page.locator(".bar"))
    assert page.evaluate("document.documentElement.scrollWidth") == width


def test_names_that_are_long_or_from_right_to_left(page: Page) -> None:
    """The labels keep in order: the best is on top, and a score after its name."""
    page.evaluate(
        """() => {
            const { fillText } = CanvasRenderingContext2D.prototype;
            window.drawn = [];
            CanvasRenderingContext2D.prototype.fillText = function (text, ...rest) {
                window.drawn.push(text);
                fillText.call(this, text, ...rest);
            };
        }"""
    )
    best = {**FOUND, "name": LONG, "score": 0.95}
    answers(page, lambda route: answer(route, best, {**FOUND, "name": ARABIC, "label": 1}))
    add(page, "a.png")
    expect(page.locator(".object")).to_have_count(2)
    labels = [f"\u2068{ARABIC}\u2069 0.90", f"\u2068{LONG}\u2069 0.95"]
    page.wait_for_function("drawn.length")
    assert page.evaluate("drawn.slice(-2)") == labels
    chips = page.locator(".chip").evaluate_all("(es) => es.map((e) => e.scrollWidth)")
    assert max(chips) <= box_of(page.locator("#classes"))["width"]
    page.click(".object >> nth=1")
    expect(page.locator("#explain-text")).to_contain_text(labels[0])


def test_the_bar_of_progress_lies_on_its_picture(page: Page) -> None:
    answers(page, late)
    add(page, "a.png")
    page.wait_for_function(
        """() => {
          const [bar, picture] = ["progress", "canvas"].map((id) =>
            document.getElementById(id).getBoundingClientRect());
          return bar.y === picture.y && picture.x < bar.x && bar.right < picture.right;
        }"""
    )


def pixels(element: Locator) -> Any:
    return read_image(element.screenshot()).astype(int)


def test_few_colours_tell_what_is_on_and_how_much(page: Page) -> None:
    answers(page, found(2))
    add(page, "a.png")
    page.emulate_media(forced_colors="active")
    background = "(e) => getComputedStyle(e).backgroundColor"
    pressed, released = (page.locator(f"[data-view={name}]") for name in ("labels", "boxes"))
    assert pressed.evaluate(background) != released.evaluate(background)
    slider = pixels(page.locator("#opacity"))
    line = np.abs(slider[len(slider) // 2] - slider[0]).sum(axis=1) > 100
    assert line.mean() > 0.9
    for name in (".object .swatch >> nth=0", ".object .meter >> nth=0"):
        part = pixels(page.locator(name))
        assert np.abs(part[len(part) // 2, 3] - slider[0, 0]).sum() > 100


def test_boxes_are_saved_with_two_decimals(page: Page) -> None:
    answers(page, found(1))
    add(page, "a.png")
    expect(page.locator("#save-coco")).to_be_enabled()
    with page.expect_download() as waiting:
        page.click("#save-coco")
    (saved,) = json.loads(waiting.value.path().read_text())["annotations"]
    assert saved["bbox"] == [5.3, 5, 25.01, 25]


def test_without_scripts_the_page_says_so(browser: Browser, tiny_address: str) -> None:
    with open_page(browser, base_url=tiny_address, java_script_enabled=False) as page:
        page.goto("/")
        expect(page.locator("noscript p")).to_be_visible()
