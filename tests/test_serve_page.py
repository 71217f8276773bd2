"""The page of `yolact serve` in a real browser."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image as PilImage
from pycocotools import mask as mask_utils
from support.browser import grave_violations, need_browser, open_browser, open_page, serving

from data.annotations.as_coco import coco_index
from data.formats.labelme import read_labelme
from data.images import read_image
from data.shapes.scenes import ShapeScenes
from layers.masks import mask_boxes
from yolact import Detections, Predictor
from yolact.checkpoint import BUNDLED

need_browser()
pytest.importorskip("fastapi", reason="needs the extra 'serve'")

from playwright.sync_api import Browser, Download, FileChooser, Page, Route, expect  # noqa: E402

from yolact.serve.app import make_app  # noqa: E402
from yolact.serve.limits import Limits  # noqa: E402

if TYPE_CHECKING:
    from numpy.typing import NDArray

pytestmark = pytest.mark.slow

CAMERA = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")
LOWEST = 0.1
SCREENSHOTS = os.environ.get("YOLACT_SCREENSHOTS")  # a folder to keep them in


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return Predictor.from_checkpoint("yolact_resnet18_shapes", "cpu", engine="eager")


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder, dataset = tmp_path_factory.mktemp("scenes"), ShapeScenes(3, 384, seed=5)
    for index in range(3):
        image = dataset.sample(index).image
        cv2.imwrite(str(folder / f"scene {index}.png"), image[:288, :, ::-1])
    return sorted(folder.iterdir())


@pytest.fixture(scope="module")
def found(predictor: Predictor, scenes: list[Path]) -> Detections:
    """What the first scene holds, all that the page asks for."""
    return predictor(read_image(scenes[0]), LOWEST, 100)


@pytest.fixture(scope="module")
def shown(predictor: Predictor, found: Detections) -> Detections:
    """What of it the page shows at first."""
    return found.filter(min_score=predictor.model.score_threshold)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with open_browser(CAMERA) as opened:
        yield opened


@pytest.fixture(scope="module")
def address(predictor: Predictor) -> Iterator[str]:
    app = make_app(predictor, "yolact_resnet18_shapes", Limits(upload_bytes=2_000_000))
    with serving(app) as opened:
        yield opened


@pytest.fixture
def page(browser: Browser, address: str) -> Iterator[Page]:
    with open_page(browser, base_url=address) as opened:
        yield visit(opened)


def visit(page: Page) -> Page:
    page.goto("/")
    expect(page.locator("[data-ready]")).to_be_attached()
    return page


def choose(page: Page, *paths: Path) -> None:
    """Add pictures by the file picker, and wait for their objects."""
    page.set_input_files("#files", list(paths))
    expect(page.locator(".tally")).to_have_text([re.compile(r"\d+")] * len(paths), timeout=30_000)


def pixels(page: Page) -> str:
    return str(page.evaluate("document.getElementById('canvas').toDataURL()"))


def rows(page: Page) -> list[str]:
    return page.locator(".object .name").all_inner_texts()


def download(page: Page, button: str) -> Download:
    with page.expect_download() as waiting:
        page.click(button)
    return waiting.value


def drop(page: Page, path: Path) -> None:
    transfer = page.evaluate_handle(
        """async ([url, name]) => {
            const transfer = new DataTransfer();
            const blob = await (await fetch(url)).blob();
            transfer.items.add(new File([blob], name, { type: "image/png" }));
            return transfer;
        }""",
        [serve_file(page, path), path.name],
    )
    for kind in ("dragenter", "dragover"):
        page.dispatch_event("#stage", kind, {"dataTransfer": transfer})
    expect(page.locator("[data-dropping]")).to_be_attached()
    page.dispatch_event("#stage", "drop", {"dataTransfer": transfer})
    expect(page.locator("[data-dropping]")).not_to_be_attached()


def paste(page: Page, path: Path) -> None:
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.evaluate(
        """async (url) => {
            const blob = await (await fetch(url)).blob();
            await navigator.clipboard.write([new ClipboardItem({ "image/png": blob })]);
        }""",
        serve_file(page, path),
    )
    page.keyboard.press("Control+V")


def serve_file(page: Page, path: Path) -> str:
    """Give a file an address on the page's own server."""
    page.route("**/local-file", lambda route: route.fulfill(path=path, content_type="image/png"))
    return "/local-file"


@pytest.mark.parametrize("way", [choose, drop, paste])
def test_pictures_come_in(page: Page, scenes: list[Path], shown: Detections, way: Any) -> None:
    way(page, scenes[0])
    expect(page.locator(".tally")).to_have_text(str(len(shown)), timeout=30_000)
    assert rows(page) == shown.names()
    assert page.inner_text("#shown") == str(len(shown))
    drawn = pixels(page)
    page.fill("#opacity", "0")
    for name in ("outlines", "labels"):
        page.click(f"[data-view={name}]")
    expect(page.locator("[data-view=labels]")).to_have_attribute("aria-pressed", "false")
    assert pixels(page) != drawn


def test_threshold_and_classes_do_not_ask_the_server(
    page: Page, scenes: list[Path], found: Detections
) -> None:
    choose(page, scenes[0])
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    for threshold in (0.6, LOWEST, 1.0, 0.3):
        expected = found.filter(min_score=threshold)
        page.fill("#threshold", str(threshold))
        expect(page.locator("#shown")).to_have_text(str(len(expected)))
        assert rows(page) == expected.names()
        expect(page.locator(".tally")).to_have_text(str(len(expected)))
    name = rows(page)[0]
    before = pixels(page)
    page.get_by_role("button", name=re.compile(f"^{name} *\\d+$"), pressed=True).click()
    expect(page.locator("#shown")).to_have_text(str(len(expected) - expected.names().count(name)))
    assert rows(page) == [other for other in expected.names() if other != name]
    assert pixels(page) != before
    assert requests == []


def inner_point(detections: Detections, index: int) -> tuple[float, float]:
    """The middle of the thickest part of a mask, relative to the image."""
    depth = cv2.distanceTransform(detections.masks[index].numpy().astype(np.uint8), cv2.DIST_L2, 5)
    y, x = np.unravel_index(depth.argmax(), depth.shape)
    return (float(x) + 0.5) / depth.shape[1], (float(y) + 0.5) / depth.shape[0]


def click_object(page: Page, detections: Detections, index: int) -> None:
    box = page.locator("#canvas").bounding_box()
    assert box is not None
    x, y = inner_point(detections, index)
    page.mouse.click(box["x"] + x * box["width"], box["y"] + y * box["height"])


def test_a_click_explains_the_mask(page: Page, scenes: list[Path], shown: Detections) -> None:
    choose(page, scenes[0])
    smallest = int(shown.areas.argmin())  # no smaller one lies above it
    click_object(page, shown, smallest)
    expect(page.locator(".tile")).to_have_count(7, timeout=30_000)
    assert shown.names()[smallest] in page.inner_text("#explain-text")
    titles = page.locator("#bars title").all_text_contents()
    assert shown.coefficients is not None
    weights = [float(title.split(": ")[1].replace("−", "-")) for title in titles]
    assert weights == pytest.approx(shown.coefficients[smallest].tolist(), abs=0.006)
    pressed = page.locator(".object[aria-pressed=true] .name")
    expect(pressed).to_have_text(shown.names()[smallest])
    whole = page.evaluate("document.querySelector('.tile:last-child canvas').toDataURL()")
    page.fill("#terms", "1")
    expect(page.locator("#terms-value")).to_have_text("1 of 32")
    expect(page.locator(".bars rect:not(.unused)")).to_have_count(1)
    assert page.evaluate("document.querySelector('.tile:last-child canvas').toDataURL()") != whole
    page.keyboard.press("Escape")
    expect(page.locator("#explain")).to_be_hidden()


def test_what_is_hidden_is_not_selected(page: Page, scenes: list[Path], shown: Detections) -> None:
    choose(page, scenes[0])
    click_object(page, shown, int(shown.areas.argmin()))
    expect(page.locator("#explain")).to_be_visible()
    page.fill("#threshold", "1")
    expect(page.locator("#explain")).to_be_hidden()
    page.fill("#threshold", "0.3")
    expect(page.locator(".object[aria-pressed=true]")).to_have_count(0)


def test_prototypes_are_asked_for_again_after_a_failure(
    browser: Browser, address: str, scenes: list[Path], shown: Detections
) -> None:
    with open_page(browser, "Failed to load resource", base_url=address) as page:
        visit(page).clock.install()
        page.route("**/api/prototypes*", lambda route: route.fulfill(status=504), times=1)
        choose(page, scenes[0])
        click_object(page, shown, int(shown.areas.argmin()))
        expect(page.locator(".explain.loading")).to_be_visible()
        page.wait_for_timeout(300)
        page.clock.run_for(6000)
        page.fill("#opacity", "0.3")
        expect(page.locator(".tile")).to_have_count(7, timeout=30_000)


def overlap(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    return float((one & other).sum() / (one | other).sum())


def test_downloads_of_pictures(page: Page, scenes: list[Path], shown: Detections) -> None:
    choose(page, scenes[0])
    image, union = read_image(scenes[0]), shown.masks.any(dim=0).numpy()
    picture = download(page, "#save-picture")
    assert picture.suggested_filename == "scene 0-objects.png"
    drawn = read_image(picture.path())
    assert drawn.shape == image.shape
    changed = (drawn != image).any(axis=2)
    assert changed[union].mean() > 0.95
    cutout = np.asarray(PilImage.open(download(page, "#save-cutout").path()))
    assert overlap(cutout[..., 3] > 127, union) > 0.97
    inside = cv2.erode(union.astype(np.uint8), np.ones((5, 5))) > 0
    assert (cutout[..., :3] == image)[inside].mean() > 0.98
    smallest = int(shown.areas.argmin())
    click_object(page, shown, smallest)
    expect(page.locator("#explain")).to_be_visible()
    alone = np.asarray(PilImage.open(download(page, "#save-cutout").path()))
    box, around = shown.boxes[smallest], mask_boxes(shown.masks[[smallest]])[0]
    width, height = (torch.maximum(box, around)[2:] - torch.minimum(box, around)[:2]).tolist()
    assert alone.shape[:2] == pytest.approx((height, width), abs=2)


def test_downloads_of_annotations(
    page: Page, scenes: list[Path], shown: Detections, tmp_path: Path
) -> None:
    choose(page, *scenes[:2])
    coco = json.loads(download(page, "#save-coco").path().read_text())
    truth = coco_index(coco)
    assert [image["file_name"] for image in coco["images"]] == ["scene 0.png", "scene 1.png"]
    expected = shown.to_coco(1)
    ours = truth.loadAnns(truth.getAnnIds(imgIds=[1]))
    assert len(ours) == len(expected)
    for annotation, one in zip(ours, expected, strict=True):
        for key in ("category_id", "area", "segmentation", "iscrowd"):
            assert annotation[key] == one[key]
        assert annotation["bbox"] == pytest.approx(one["bbox"], abs=0.02)
    file = download(page, "#save-labelme")
    assert file.suggested_filename == "scene 0.json"
    file.save_as(tmp_path / "scene 0.json")
    read: Any = read_labelme(scenes[0].parent, tmp_path).content
    masks = [truth.annToMask(annotation) for annotation in ours]
    outlines = [mask_utils.frPyObjects(a["segmentation"], 288, 384) for a in read["annotations"]]
    for mask, outline in zip(masks, outlines, strict=True):
        drawn = mask_utils.decode(mask_utils.merge(outline))
        assert overlap(mask > 0, drawn > 0) > 0.95


def test_the_keyboard_is_enough(page: Page, scenes: list[Path], shown: Detections) -> None:
    choosers: list[FileChooser] = []
    page.on("filechooser", lambda chooser: choosers.append(chooser))
    page.keyboard.press("Tab")
    expect(page.locator("#open")).to_be_focused()
    for key in ("Enter", "o"):
        with page.expect_file_chooser():
            page.keyboard.press(key)
    choosers[-1].set_files(scenes[:2])
    expect(page.locator(".tally", has_text=re.compile(r"\d"))).to_have_count(2, timeout=30_000)
    reached = set()
    for _ in range(60):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.id || document.activeElement.className"))
    wanted = {"open", "camera", "theme", "help", "thumbnail", "remove", "threshold", "opacity"}
    assert wanted | {"chip", "object", "save-picture", "save-coco", "save-labelme"} <= reached
    page.keyboard.press("j")
    expect(page.locator("#explain")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("#explain")).to_be_hidden()
    page.fill("#threshold", "0.3")
    page.focus("#open")
    page.keyboard.press("]")
    expect(page.locator("#threshold-value")).to_have_text("0.35")
    expect(page.locator("#announcement")).to_have_text(re.compile(r"^\d objects at 0\.35"))
    page.keyboard.press("ArrowRight")
    expect(page.locator(".thumbnail[aria-current=true]")).to_have_attribute(
        "aria-label", re.compile("scene 1")
    )
    page.keyboard.press("Delete")
    expect(page.locator(".thumbnail")).to_have_count(1)
    page.keyboard.press("?")
    expect(page.locator("#keys")).to_be_visible()
    page.uncheck("#key-switch")
    page.get_by_role("button", name="Close").click()
    expect(page.locator("#keys")).to_be_hidden()
    page.keyboard.press("]")
    page.evaluate("() => new Promise(requestAnimationFrame)")
    assert page.inner_text("#threshold-value") == "0.35"


def test_the_focus_can_be_seen(page: Page) -> None:
    page.keyboard.press("Tab")
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"


def background(page: Page) -> int:
    color = page.evaluate("getComputedStyle(document.body).backgroundColor")
    return int(re.findall(r"\d+", color)[0])


def test_dark_and_light(browser: Browser, address: str) -> None:
    with open_page(browser, base_url=address, color_scheme="dark") as page:
        visit(page)
        assert background(page) < 40
        page.get_by_role("button", name="Dark mode", pressed=True).click()
        assert background(page) > 200
        page.reload()
        expect(page.locator("[data-ready]")).to_be_attached()
        assert background(page) > 200


def test_a_browser_that_stores_nothing(browser: Browser, address: str) -> None:
    blocked = "Object.defineProperty(window, 'localStorage', { get() { throw new Error('no'); } })"
    with open_page(browser, base_url=address, color_scheme="dark") as page:
        page.add_init_script(blocked)
        visit(page)
        page.click("#theme")
        assert background(page) > 200


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_grave(
    browser: Browser, address: str, scenes: list[Path], shown: Detections, scheme: Any
) -> None:
    with open_page(browser, base_url=address, color_scheme=scheme) as page:
        visit(page)
        assert grave_violations(page) == []
        choose(page, *scenes[:2])
        page.click(".object >> nth=0")
        expect(page.locator(".tile")).to_have_count(7, timeout=30_000)
        page.click("[data-view=byClass]")
        assert grave_violations(page) == []
        page.click("#help")
        assert grave_violations(page) == []


def test_a_phone(browser: Browser, address: str, scenes: list[Path]) -> None:
    viewport = {"width": 360, "height": 740}
    with open_page(browser, base_url=address, viewport=viewport, has_touch=True) as page:
        visit(page)
        assert page.evaluate("document.documentElement.scrollWidth") == 360
        choose(page, *scenes)
        page.tap(".object >> nth=0")
        expect(page.locator(".tile")).to_have_count(7, timeout=30_000)
        expect(page.locator("#explain")).to_be_in_viewport()
        assert page.evaluate("document.documentElement.scrollWidth") == 360
        assert grave_violations(page) == []


def test_the_camera(browser: Browser, address: str) -> None:
    with open_page(browser, base_url=address, permissions=["camera"]) as page:
        visit(page)
        page.click("#watch")
        expect(page.locator("#fps")).to_have_text(re.compile(r"^\d+\.\d fps$"), timeout=30_000)
        expect(page.locator("#canvas")).to_have_attribute("aria-label", re.compile("^Camera, "))
        before = pixels(page)
        expect(page.locator("#canvas")).to_be_visible()
        page.wait_for_timeout(500)
        assert pixels(page) != before
        assert grave_violations(page) == []
        page.click("#shutter")
        expect(page.locator(".thumbnail")).to_have_count(1)
        expect(page.locator("#fps")).to_be_hidden()
        expect(page.locator("#camera")).to_have_attribute("aria-pressed", "false")
        page.click("#camera")
        expect(page.locator("#fps")).to_be_visible()
        page.click(".thumbnail")  # another picture ends it
        expect(page.locator("#fps")).to_be_hidden()


def test_what_goes_wrong_is_said(page: Page, scenes: list[Path], tmp_path: Path) -> None:
    text, large = tmp_path / "notes.png", tmp_path / "large.png"
    text.write_text("not an image")
    large.write_bytes(bytes(2_000_001))
    problem = page.get_by_role("alert")
    page.set_input_files("#files", text)
    expect(problem).to_contain_text("notes.png: not an image that this browser can show")
    page.get_by_role("button", name="Dismiss").click()
    expect(problem).to_be_hidden()
    page.set_input_files("#files", large)
    expect(problem).to_contain_text("large.png: larger than 2 MB")
    page.set_input_files("#files", scenes[0])
    expect(page.locator(".tally")).to_have_text(re.compile(r"\d"), timeout=30_000)


def test_a_busy_server_is_asked_again(browser: Browser, address: str, scenes: list[Path]) -> None:
    answers = iter([503, 429])

    def busy(route: Route) -> None:
        if (status := next(answers, None)) is None:
            route.continue_()
        else:
            route.fulfill(status=status, json={"error": "busy"})

    with open_page(browser, "Failed to load resource", base_url=address) as page:
        visit(page).route("**/api/segment*", busy)
        choose(page, scenes[0])
        expect(page.get_by_role("alert")).to_be_hidden()
    assert next(answers, None) is None


def test_screenshots(browser: Browser, address: str, scenes: list[Path], tmp_path: Path) -> None:
    """Take pictures for people to look at: where YOLACT_SCREENSHOTS says."""
    folder = Path(SCREENSHOTS or tmp_path)
    phone = {"viewport": {"width": 360, "height": 740}, "device_scale_factor": 2}
    for name, look in {"light": {}, "dark": {"color_scheme": "dark"}, "phone": phone}.items():
        with open_page(browser, base_url=address, **look) as page:
            visit(page).screenshot(path=folder / f"{name}-empty.png")
            choose(page, *scenes)
            page.screenshot(path=folder / f"{name}.png")
            page.click(".object >> nth=1")
            expect(page.locator(".tile")).to_have_count(7, timeout=30_000)
            page.screenshot(path=folder / f"{name}-explained.png", full_page=name == "phone")
    assert len(list(folder.iterdir())) >= 9


PHOTOGRAPHS = ("000000252219.jpg", "000000214753.jpg", "000000183709.jpg")  # CC BY 2.0


def test_the_screenshot_of_the_guide(browser: Browser, data_root: Path, tmp_path: Path) -> None:
    """With YOLACT_SCREENSHOTS=docs this writes docs/serve.jpg."""
    picture = Path(SCREENSHOTS or tmp_path) / "serve.jpg"
    app = make_app(Predictor.from_checkpoint(BUNDLED, "cpu", engine="eager"), BUNDLED)
    with serving(app) as address, open_page(browser, base_url=address) as page:
        choose(visit(page), *(data_root / "coco_small" / "val" / name for name in PHOTOGRAPHS))
        page.fill("#threshold", "0.5")
        page.click(".object >> nth=0")
        expect(page.locator(".tile")).to_have_count(7, timeout=30_000)
        page.mouse.move(0, 0)
        page.screenshot(path=picture, quality=80)
    assert 20_000 < picture.stat().st_size < 150_000


def test_the_example_of_the_guide(
    address: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    cv2.imwrite("photo.jpg", np.ascontiguousarray(ShapeScenes(1, 96).sample(0).image[..., ::-1]))
    guide = (Path(__file__).parents[1] / "docs" / "serve.md").read_text()
    (example,) = re.findall(r"^```python\n(.*?)^```$", guide, re.MULTILINE | re.DOTALL)
    assert "http://127.0.0.1:8000/" in example
    exec(example.replace("http://127.0.0.1:8000", address), {})
    assert all(len(line.split()) >= 6 for line in capsys.readouterr().out.splitlines())
