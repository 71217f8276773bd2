"""A real browser for tests of pages, and a server for pages that need one."""

from __future__ import annotations

import importlib.util
import os
import shutil
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

NAMES = ("chromium", "chromium-browser", "google-chrome")
NEEDED = ("playwright", "axe_playwright_python")
GRAVE = ("serious", "critical")


def need_browser() -> str:
    """Return the path of a browser, or skip the tests that need it."""
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"{missing[0]} is not installed: pip install '.[dev]'", allow_module_level=True)
    found = [path for name in NAMES if (path := shutil.which(name))]
    if not found:
        pytest.skip(f"no browser: install one of {', '.join(NAMES)}", allow_module_level=True)
    return found[0]


@contextmanager
def open_browser(flags: Sequence[str] = ()) -> Iterator[Browser]:
    """Run Chromium without a window. While it is open, asyncio.run() fails in this thread."""
    from playwright.sync_api import sync_playwright

    as_root = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=need_browser(), args=[*as_root, *flags]
        )
        yield browser
        browser.close()


@contextmanager
def open_page(browser: Browser, tolerated: str = "", **context: Any) -> Iterator[Page]:
    """Open a page, 1280 x 800 by default; it must not complain in its console.

    Args:
        browser: where a new context is made, with a storage of its own.
        tolerated: how errors begin that are no mistake.
        context: its settings.
    """
    settings = {"viewport": {"width": 1280, "height": 800}, **context}
    with browser.new_context(**settings) as own:
        page = own.new_page()
        complaints: list[str] = []
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda m: complaints.append(m.text) if m.type == "error" else None)
        yield page
        wrong = [each for each in complaints if not (tolerated and each.startswith(tolerated))]
        assert not wrong, wrong


def grave_violations(page: Page) -> list[str]:
    """Return what axe finds against accessibility on a page that is serious or critical."""
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page).response["violations"]
    return [
        f"{each['id']}: {node['html']}"
        for each in found
        if each["impact"] in GRAVE
        for node in each["nodes"]
    ]


@contextmanager
def serving(app: Any) -> Iterator[str]:
    """Run an ASGI application in a thread; yield its address."""
    from yolact.serve.run import address_of, make_server

    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = make_server(app)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield address_of(listener)
        finally:
            server.should_exit = True
            thread.join()
