"""Files into the page of `yolact serve` and out of it, where something is unusual."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PilImage
from support.browser import need_browser, open_browser, open_page, serving

from data.shapes.scenes import ShapeScenes
from yolact import Predictor

need_browser()
pytest.importorskip("fastapi", reason="needs the extra 'serve'")

from playwright.sync_api import Browser, Page, Route, expect  # noqa: E402

from yolact.serve.app import make_app  # noqa: E402

pytestmark = pytest.mark.slow

CAMERA = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")
COUNT = re.compile(r"\d")


@pytest.fixture(scope="module")
def scene() -> PilImage.Image:
    return PilImage.fromarray(ShapeScenes(1, 384, seed=5).sample(0).image[:288])


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    predictor = Predictor.from_checkpoint("yolact_resnet18_shapes", "cpu", engine="eager")
    with serving(make_app(predictor, "yolact_resnet18_shapes")) as opened:
        yield opened


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with open_browser(CAMERA) as opened:
        yield opened


@pytest.fixture
def page(browser: Browser, address: str) -> Iterator[Page]:
    with open_page(browser, base_url=address, permissions=["camera"]) as opened:
        opened.goto("/")
        expect(opened.locator("[data-ready]")).to_be_attached()
        yield opened


def save(scene: PilImage.Image, *paths: Path, **options: object) -> list[Path]:
    for path in paths:
        path.parent.mkdir(exist_ok=True)
        scene.save(path, **options)
    return list(paths)


def saved(page: Page, button: str) -> Path:
    with page.expect_download() as waiting:
        page.click(button)
    return waiting.value.path()


def test_pictures_of_one_name_are_told_apart(
    page: Page, scene: PilImage.Image, tmp_path: Path
) -> None:
    paths = save(scene, *(tmp_path / f"{n}" / "a.b.png" for n in range(3)))
    page.set_input_files("#files", paths)
    expect(page.locator(".tally", has_text=COUNT)).to_have_count(3, timeout=30_000)
    names = [
        image["file_name"] for image in json.loads(saved(page, "#save-coco").read_text())["images"]
    ]
    assert names == ["a.b.png", "a.b-2.png", "a.b-3.png"]


def hold_first(route: Route, held: list[Route]) -> None:
    if held:
        route.continue_()
    else:
        held.append(route)


def test_a_dataset_is_saved_when_all_pictures_are_segmented(
    page: Page, scene: PilImage.Image, tmp_path: Path
) -> None:
    waiting: list[Route] = []
    page.set_input_files("#files", save(scene, tmp_path / "0.png"))
    button = page.locator("#save-coco")
    expect(button).to_be_enabled(timeout=30_000)
    page.route("**/api/segment*", lambda route: hold_first(route, waiting))
    page.set_input_files("#files", save(scene, tmp_path / "1.png", tmp_path / "2.png"))
    expect(page.locator(".thumbnail")).to_have_count(3)
    page.click(".thumbnail >> nth=0")
    expect(button).to_be_disabled()
    expect(button).to_have_attribute("title", "The objects of 1 picture")
    while len(waiting) < 1:
        page.wait_for_timeout(50)
    waiting[0].fulfill(json={"width": 1, "height": 1, "objects": []})  # of another picture
    expect(button).to_be_enabled(timeout=30_000)
    expect(button).to_have_attribute("title", "The objects of 2 pictures")
    assert len(json.loads(saved(page, "#save-coco").read_text())["images"]) == 2


def test_a_file_that_goes_away_is_no_matter(
    page: Page, scene: PilImage.Image, tmp_path: Path
) -> None:
    held: list[Route] = []
    page.route("**/api/segment*", lambda route: hold_first(route, held))
    paths = save(scene, tmp_path / "0.png", tmp_path / "1.png")
    page.set_input_files("#files", paths)
    expect(page.locator(".thumbnail")).to_have_count(2)
    paths[1].unlink()
    held[0].continue_()
    expect(page.locator(".tally", has_text=COUNT)).to_have_count(2, timeout=30_000)
    page.click(".thumbnail >> nth=1")
    expect(page.locator("#canvas")).to_have_attribute("aria-label", re.compile("^1.png, "))
    expect(page.get_by_role("alert")).to_be_hidden()


def test_a_picture_that_the_browser_does_not_turn_is_refused(
    page: Page, scene: PilImage.Image, tmp_path: Path
) -> None:
    exif = PilImage.Exif()
    exif[0x0112] = 6
    page.set_input_files("#files", save(scene, tmp_path / "a.webp", exif=exif))
    problem = page.get_by_role("alert")
    expect(problem).to_contain_text("a.webp: this browser shows it turned otherwise")
    expect(page.locator("#save-coco")).to_be_disabled()


def test_a_cut_out_holds_what_is_outside_of_the_box(
    page: Page, scene: PilImage.Image, tmp_path: Path
) -> None:
    areas: list[int] = []

    def narrow(route: Route) -> None:
        """Half of the first box is taken away."""
        answer = route.fetch().json()
        first = answer["objects"][0]
        areas.append(first["area"])
        first["box"][2] = (first["box"][0] + first["box"][2]) / 2
        route.fulfill(json=answer)

    page.route("**/api/segment*", narrow)
    page.set_input_files("#files", save(scene, tmp_path / "a.png"))
    page.click(".object >> nth=0", timeout=30_000)
    cutout = np.asarray(PilImage.open(saved(page, "#save-cutout")))
    assert (cutout[..., 3] > 127).sum() == pytest.approx(areas[0], rel=0.03)


TRACKS = """() => {
    window.tracks = [];
    const { mediaDevices } = navigator;
    const open = mediaDevices.getUserMedia.bind(mediaDevices);
    mediaDevices.getUserMedia = async (...given) => {
        const stream = await open(...given);
        window.tracks.push(...stream.getTracks());
        return stream;
    };
}"""


def test_a_double_click_opens_the_camera_once(page: Page) -> None:
    page.evaluate(TRACKS)
    page.dblclick("#camera")
    expect(page.locator("#fps")).to_be_visible(timeout=30_000)
    expect(page.locator("#camera")).to_have_attribute("aria-pressed", "true")
    page.click("#camera")
    expect(page.locator("#camera")).to_have_attribute("aria-pressed", "false")
    assert page.evaluate("window.tracks.map((track) => track.readyState)") == ["ended"]


def test_a_camera_that_is_unplugged_is_told(page: Page) -> None:
    page.evaluate(TRACKS)
    page.click("#camera")
    expect(page.locator("#fps")).to_be_visible(timeout=30_000)
    page.evaluate("window.tracks[0].stop(); window.tracks[0].dispatchEvent(new Event('ended'))")
    expect(page.get_by_role("alert")).to_contain_text("camera: it was disconnected")
    expect(page.locator("#camera")).to_have_attribute("aria-pressed", "false")
