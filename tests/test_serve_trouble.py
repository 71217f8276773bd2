"""The page of `yolact serve` while answers are on their way, and when something goes wrong."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import pytest
from support.browser import need_browser, open_page

need_browser()
pytest.importorskip("fastapi", reason="needs the extra 'serve'")
pytest.importorskip("httpx2", reason="needs httpx2, which comes with the extra 'dev'")

from playwright.sync_api import Browser, Page, Route, expect  # noqa: E402
from support.faked_answers import add, answers, broken, found, late, silent  # noqa: E402

pytestmark = pytest.mark.slow

TOLD = "Failed to load resource"  # by the console, for every status of 400 or more


@pytest.fixture
def page(browser: Browser, tiny_address: str) -> Iterator[Page]:
    with open_page(browser, TOLD, base_url=tiny_address) as opened:
        opened.goto("/")
        expect(opened.locator("[data-ready]")).to_be_attached()
        yield opened


def tallies(page: Page, *texts: str) -> None:
    expect(page.locator(".tally")).to_have_text(list(texts))


@pytest.mark.parametrize("way", ["x", "Delete"])
@pytest.mark.parametrize("path", ["segment", "prototypes"])
def test_nobody_waits_for_a_picture_that_is_removed(page: Page, path: str, way: str) -> None:
    answers(page, late if path == "segment" else found(1), found(2))
    page.route("**/api/prototypes*", late)
    with page.expect_request(f"**/api/{path}*") as asked:
        add(page, "a.png")
        if path == "prototypes":
            page.click(".object")
    with page.expect_event("requestfailed", lambda request: request == asked.value):
        if way == "x":
            page.hover(".thumbnail")
            page.click(".remove")
        else:
            page.keyboard.press(way)
    add(page, "b.png")
    tallies(page, "2")
    expect(page.get_by_role("alert")).to_be_hidden()


def test_all_that_goes_wrong_is_said_and_can_be_tried_again(page: Page) -> None:
    answers(page, broken, found(1), broken, found(2))
    add(page, "more.png", "re.png", content=b"text")
    add(page, "a.png", "b.png")
    tallies(page, "!", "1")
    lines = page.get_by_role("alert").locator("p")
    reason = "not an image that this browser can show"
    wrong = [f"more.png: {reason}", f"re.png: {reason}"]
    expect(lines).to_have_text([*wrong, "a.png: it is broken"])
    failed = page.locator(".thumbnail").first
    for attribute in ("title", "aria-label"):
        expect(failed).to_have_attribute(attribute, re.compile("^a.png.*: it is broken"))
    with page.expect_response("**/api/segment*"):
        failed.click()  # which nothing covers
    expect(lines).to_have_count(3)
    tallies(page, "!", "1")
    failed.click()
    tallies(page, "2", "1")
    expect(lines).to_have_text(wrong)
    expect(failed).to_have_attribute("title", "a.png")
    page.keyboard.press("Escape")
    expect(page.get_by_role("alert")).to_be_hidden()


def test_nothing_is_saved_before_its_pixels_are_here(page: Page) -> None:
    answers(page, found(1), found(1))
    add(page, "a.png", "b.png")
    tallies(page, "1", "1")
    page.evaluate(
        """() => {
          const decode = window.createImageBitmap;
          const pixels = new Promise((arrive) => (window.arrive = arrive));
          window.createImageBitmap = (blob) => pixels.then(() => decode(blob));
        }"""
    )
    page.keyboard.press("ArrowRight")
    page.keyboard.press("s")  # an error in the console would fail
    save = page.locator("#save-picture")
    expect(save).to_be_disabled()
    page.evaluate("() => window.arrive()")
    expect(save).to_be_enabled()


def test_a_server_that_answers_again_is_no_trouble(page: Page) -> None:
    answers(page, silent, broken, found(1))
    add(page, "a.png", "b.png")
    tallies(page, "!", "!")
    lines = page.get_by_role("alert").locator("p")
    expect(lines).to_have_text(
        ["a.png: the server does not answer; is it still running?", "b.png: it is broken"]
    )
    add(page, "c.png")
    tallies(page, "!", "!", "1")
    expect(lines).to_have_text("b.png: it is broken")


@pytest.mark.parametrize(
    ("way", "shown", "found_", "name"),
    [
        (late, "…", "not segmented", "a.png, not segmented"),
        (broken, "!", "not segmented", "a.png, not segmented"),
        (found(0), "0", "objects of 0 candidates", "a.png, no objects"),
        (found(1), "1", "object of 1 candidate", "a.png, 1 × cup"),
    ],
)
def test_nothing_is_counted_without_an_answer(
    page: Page, way: Callable[[Route], None], shown: str, found_: str, name: str
) -> None:
    answers(page, way)
    add(page, "a.png")
    expect(page.locator("#shown")).to_have_text(shown)
    expect(page.locator("#found")).to_have_text(found_)
    expect(page.locator("#canvas")).to_have_attribute("aria-label", name)
    page.keyboard.press("]")
    told = re.compile(r"^\d object" if found_ != "not segmented" else r"^0\.\d+ or more")
    expect(page.locator("#announcement")).to_have_text(told)
