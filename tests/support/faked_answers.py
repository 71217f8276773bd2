"""Answers to the page of `yolact serve` that a test makes up, and pictures that it adds."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .tiny_server import PNG

if TYPE_CHECKING:
    from playwright.sync_api import Page, Route

FOUND = {
    "name": "cup", "label": 0, "score": 0.9, "box": [5.3, 5, 30.31, 30], "area": 625,
    "polygons": [{"outline": [5, 5, 30, 5, 30, 30, 5, 30], "holes": []}],
    "segmentation": {"size": [40, 60], "counts": "0"}, "coefficients": [0.5, -0.5] * 16,
}  # fmt: skip


def answer(route: Route, *objects: dict[str, Any]) -> None:
    route.fulfill(json={"width": 60, "height": 40, "seconds": 0.1, "objects": objects})


def answers(page: Page, *ways: Callable[[Route], None]) -> None:
    """Answer one request after the other for objects; those beyond never."""
    left = iter(ways)
    page.route("**/api/segment*", lambda route: next(left, late)(route))


def found(count: int) -> Callable[[Route], None]:
    return lambda route: answer(route, *[FOUND] * count)


def broken(route: Route) -> None:
    route.fulfill(status=422, json={"error": "it is broken"})


def silent(route: Route) -> None:
    route.abort("connectionrefused")


def late(route: Route) -> None:
    """Answer never."""


def add(page: Page, *names: str, content: bytes = PNG) -> None:
    files = [{"name": name, "mimeType": "image/png", "buffer": content} for name in names]
    page.set_input_files("#files", files)  # type: ignore[arg-type]
