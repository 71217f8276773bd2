"""The keyboard on the page of `yolact serve`: what keys do, what is told, where the focus goes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.browser import need_browser, open_page

need_browser()
pytest.importorskip("fastapi", reason="needs the extra 'serve'")
pytest.importorskip("httpx2", reason="needs httpx2, which comes with the extra 'dev'")

from playwright.sync_api import Browser, Page, expect  # noqa: E402
from support.faked_answers import add, answers, found, late  # noqa: E402

pytestmark = pytest.mark.slow


@pytest.fixture
def page(browser: Browser, tiny_address: str) -> Iterator[Page]:
    with open_page(browser, base_url=tiny_address) as opened:
        opened.goto("/")
        expect(opened.locator("[data-ready]")).to_be_attached()
        yield opened


def begin(page: Page, count: int) -> None:
    """Add pictures, each with one object more than the one before."""
    answers(page, *(found(number) for number in range(1, count + 1)))
    add(page, *(f"{number}.png" for number in range(1, count + 1)))
    expect(page.locator(".tally")).to_have_text([str(n) for n in range(1, count + 1)])


def names(page: Page) -> list[str]:
    return [
        title.split(":")[0]
        for title in page.locator(".thumbnail").evaluate_all("(es) => es.map((e) => e.title)")
    ]


@pytest.mark.parametrize(
    ("key", "told"),
    [
        ("ArrowRight", "2.png"),
        ("j", "cup 0.90"),
        ("b", "Boxes on"),
        ("e", "Outlines off"),
        ("p", "A colour per class on"),
        ("Delete", "1.png removed"),
        ("Backspace", "1.png removed"),
    ],
)
def test_what_a_key_did_is_told(page: Page, key: str, told: str) -> None:
    begin(page, 2)
    page.keyboard.press(key)
    expect(page.locator("#announcement")).to_have_text(told)
    assert names(page) == ["2.png"] if "removed" in told else ["1.png", "2.png"]


def test_a_key_that_is_held_acts_once_or_steps(page: Page) -> None:
    begin(page, 3)
    downloads: list[str] = []
    page.on("download", lambda download: downloads.append(download.suggested_filename))
    for key in ("s", "b", "Delete"):
        for _ in range(4):
            page.keyboard.down(key)
        page.keyboard.up(key)
    expect(page.locator("[data-view=boxes]")).to_have_attribute("aria-pressed", "true")
    expect(page.locator(".thumbnail")).to_have_count(2)
    for _ in range(3):
        page.keyboard.down("]")
    page.keyboard.up("]")
    expect(page.locator("#threshold-value")).to_have_text("0.30")
    page.wait_for_timeout(300)
    assert downloads == ["1-objects.png"]


def test_what_is_disabled_is_so_for_keys(page: Page) -> None:
    downloads: list[str] = []
    page.on("download", lambda download: downloads.append(download.suggested_filename))
    answers(page, late)
    page.keyboard.press("s")  # without a picture
    add(page, "a.png")
    expect(page.locator("#canvas")).to_be_visible()
    expect(page.locator("#save-picture")).to_be_disabled()
    page.keyboard.press("s")
    page.wait_for_timeout(300)
    assert downloads == []


def test_the_list_of_keys_is_whole(page: Page) -> None:
    page.keyboard.press("?")
    assert {"Space", "Esc", "←", "Delete"} <= set(page.locator("kbd").all_inner_texts())


@pytest.mark.parametrize("key", ["Enter", "Delete"])
def test_the_focus_moves_to_the_neighbour_of_what_is_removed(page: Page, key: str) -> None:
    begin(page, 3)
    page.keyboard.press("ArrowRight")
    page.focus(".remove >> nth=1" if key == "Enter" else ".thumbnail >> nth=1")
    for left in (["1.png", "3.png"], ["1.png"]):
        page.keyboard.press(key)
        expect(page.locator(".thumbnail")).to_have_count(len(left))
        expect(page.locator(f".thumbnail[title='{left[-1]}']")).to_be_focused()
        assert names(page) == left
        if key == "Enter":
            page.keyboard.press("Tab")
    page.keyboard.press(key)
    expect(page.locator("#choose")).to_be_focused()


@pytest.mark.parametrize("key", ["Enter", "Escape"])
def test_the_focus_goes_back_to_the_object(page: Page, key: str) -> None:
    begin(page, 3)
    page.keyboard.press("ArrowRight")
    for _ in range(2):
        page.keyboard.press("j")
    expect(page.locator(".tile")).to_have_count(7)
    page.focus("#terms")
    page.keyboard.press("Shift+Tab")
    expect(page.locator("#explain-close")).to_be_focused()
    page.keyboard.press(key)
    expect(page.locator("#explain")).to_be_hidden()
    expect(page.locator(".object >> nth=1")).to_be_focused()
