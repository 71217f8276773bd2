"""The viewer of a report in a real browser, opened as a file."""

from __future__ import annotations

import contextlib
import csv
import io
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from support.browser import grave_violations, need_browser, open_page
from support.coco_rectangles import (
    CATEGORY_IDS,
    HW,
    NAMES,
    TRUTH,
    Box,
    annotation,
    detections,
    evaluated,
    ground_truth,
    perfect,
    random_detections,
)

import eval as eval_script
from data.classes import Categories
from data.sample import Sample
from yolact import get_config
from yolact.evaluation.coco import CocoEvaluator
from yolact.evaluation.confusion import match_outcome
from yolact.report.evaluation_data import EvaluationData
from yolact.report.viewer import ViewerData
from yolact.report.write import write_report

need_browser()

from playwright.sync_api import Browser, Page, expect  # noqa: E402

SCREENSHOTS = os.environ.get("YOLACT_SCREENSHOTS")  # a folder to keep them in
EVIL = ("<img src=x onerror=alert(1)>", "</script><script>alert(1)</script>", "toothbrush")
KINDS = ("right", "missed", "confused", "duplicate", "mask", "box", "background")
LEFT, MIDDLE, RIGHT = (10, 10, 50, 60), (60, 10, 100, 60), (110, 10, 150, 60)


class Images:
    """Grey images of a ground truth."""

    def __init__(self, coco: COCO) -> None:
        self.coco, self.image_ids = coco, tuple(coco.imgs)
        self.categories = Categories(NAMES, CATEGORY_IDS)

    def __len__(self) -> int:
        return len(self.image_ids)

    def sample(self, index: int) -> Sample:
        none = np.zeros(0, np.int64)
        image = np.full((*HW, 3), 60 + index, np.uint8)
        boxes = np.zeros((0, 4), np.float32)
        return Sample(image, boxes, none, none.astype(bool), (), self.image_ids[index])


def write(folder: Path, evaluator: CocoEvaluator, coco: COCO, *names: str, **more: Any) -> str:
    config = get_config("yolact_resnet18").with_classes(names or NAMES)
    return write_report(folder, evaluator, Images(coco), config, {}, **more).as_uri()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report with every kind of error."""
    objects = [
        (1, 0, LEFT),
        (1, 1, MIDDLE),
        (1, 0, RIGHT),
        (2, 0, LEFT),
        (2, 1, RIGHT),
        (5, 1, MIDDLE),
    ]
    truth = [annotation(n, *parts) for n, parts in enumerate(objects, start=1)]
    narrow, below, shifted = (110, 10, 150, 30), (60, 70, 100, 110), (10, 20, 50, 70)
    found = {
        1: detections(
            [LEFT, MIDDLE, RIGHT, below, LEFT],
            [0, 0, 0, 2, 0],  # right, wrong class, poor mask, nothing there, duplicate
            [0.95, 0.9, 0.8, 0.7, 0.6],
            mask_boxes=[LEFT, MIDDLE, narrow, below, LEFT],
        ),
        2: detections([(130, 10, 160, 60), shifted], [1, 0], [0.75, 0.7]),  # poor box, right
        5: detections([MIDDLE], [1], [0.85]),
    }
    folder = tmp_path_factory.mktemp("report")
    coco = ground_truth(truth)
    write(folder, evaluated(coco, found), coco, score_threshold=0.5)
    return folder


@pytest.fixture(scope="module")
def judge(browser: Browser, folder: Path) -> Iterator[Page]:
    """A page whose scripts judge what it is told."""
    with open_page(browser) as page:
        page.goto((folder / "index.html").as_uri())
        yield page


@pytest.fixture
def page(browser: Browser, folder: Path) -> Iterator[Page]:
    with open_page(browser) as page:
        page.goto((folder / "index.html").as_uri())
        yield page


def counts(page: Page) -> dict[str, str]:
    names = page.locator(".counts dt").all_inner_texts()
    return dict(zip(names, page.locator(".counts dd").all_inner_texts(), strict=True))


def slide(page: Page, name: str, value: float) -> None:
    """Move a slider without letting go of it."""
    page.eval_on_selector(
        f"#{name}", "(e, value) => { e.value = value; e.dispatchEvent(new Event('input')); }", value
    )


def cards(page: Page) -> list[str]:
    return page.locator(".gallery li:visible .name").all_inner_texts()


JUDGE = """([images, ...thresholds]) => images.map((image) => {
  unpack(image);
  const { objects, detections } = judge(image, ...thresholds.map((x) => Math.round(10000 * x)));
  return [objects.map((o) => o.kind), detections.map((d) => d.kind)];
})"""


def shown(evaluator: CocoEvaluator, score: float, masks: bool = True) -> ViewerData:
    matches = evaluator.summarize().main(masks).matches
    data = EvaluationData(evaluator.results, evaluator.ground_truth(), masks)
    outcome = match_outcome(matches, score, data.overlaps)
    files = {image_id: f"{image_id}.jpg" for image_id in evaluator.results.images}
    return ViewerData(data, matches, outcome, NAMES, files)


def judged(page: Page, told: ViewerData, score: float, overlap: float = 0.5) -> Any:
    """Let the page judge images: the kinds of the objects, and of the detections, of each."""
    return page.evaluate(JUDGE, [list(told.records(0)), score, overlap])


CASES: dict[str, tuple[list[tuple[int, Box, int]], list[tuple[int, Box]], str, str]] = {
    "nothing": ([], [], "", ""),
    "missed": ([(0, LEFT, 0)], [], "missed", ""),
    "background": ([], [(0, LEFT)], "", "background"),
    "right": ([(0, LEFT, 0)], [(0, LEFT)], "right", "right"),
    "confused": ([(0, LEFT, 0)], [(1, LEFT)], "confused", "confused"),
    "duplicate": ([(0, LEFT, 0)], [(0, LEFT), (0, LEFT)], "right", "right duplicate"),
    "of another class": ([(0, LEFT, 0)], [(0, LEFT), (1, LEFT)], "right", "right duplicate"),
    "poor box": ([(0, LEFT, 0)], [(0, (30, 10, 70, 60))], "missed", "box"),
    "elsewhere": ([(0, LEFT, 0)], [(0, RIGHT)], "missed", "background"),
    "poor, other class": ([(0, LEFT, 0)], [(1, (30, 10, 70, 60))], "missed", "background"),
    "crowd": ([(0, LEFT, 1)], [(0, LEFT), (0, (10, 10, 20, 20))], "crowd", "ignored ignored"),
    "beside a crowd": (
        [(0, LEFT, 0), (0, (0, 0, 160, 120), 1)],
        [(0, LEFT), (0, MIDDLE), (1, RIGHT)],
        "right crowd",
        "right ignored background",
    ),
    "the class goes before": (
        [(0, LEFT, 0), (1, LEFT, 0)],
        [(1, LEFT), (2, LEFT)],
        "confused right",
        "right confused",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_every_kind_of_verdict(judge: Page, case: str) -> None:
    objects, found, of_objects, of_found = CASES[case]
    truth = [annotation(n, 1, *parts) for n, parts in enumerate(objects, start=1)]
    labels, boxes = [label for label, _ in found], [box for _, box in found]
    scores = np.linspace(0.9, 0.6, len(found)).tolist()
    evaluator = evaluated(ground_truth(truth, [1]), {1: detections(boxes, labels, scores)})
    verdicts = judged(judge, shown(evaluator, 0.3), 0.3)
    assert verdicts == [[of_objects.split(), of_found.split()]]


def test_a_mask_may_be_poor_in_a_good_box(judge: Page) -> None:
    found = detections([LEFT], [0], [0.9], mask_boxes=[(10, 10, 50, 25)])
    evaluator = evaluated(ground_truth([annotation(1, 1, 0, LEFT)], [1]), {1: found})
    assert judged(judge, shown(evaluator, 0.3), 0.3) == [[["missed"], ["mask"]]]
    assert judged(judge, shown(evaluator, 0.3), 0.3, overlap=0.25) == [[["right"], ["right"]]]
    assert judged(judge, shown(evaluator, 0.3, masks=False), 0.3) == [[["right"], ["right"]]]


@pytest.mark.parametrize("masks", [True, False])
@pytest.mark.parametrize("seed", range(4))
def test_counts_are_those_of_python(judge: Page, seed: int, masks: bool) -> None:
    evaluator = evaluated(ground_truth(TRUTH), random_detections(seed))
    for score in (0.0, 0.3, 0.45, 0.8):
        told = shown(evaluator, score, masks)
        outcome = told.outcome
        objects, found = count(judged(judge, told, score))
        del objects["crowd"], found["ignored"]
        kinds = {"right": outcome.is_found.sum(), "confused": (outcome.detected_labels < 3).sum()}
        kinds["confused"] -= kinds["right"]
        assert {kind: objects[kind] for kind in kinds} == kinds
        assert {kind: found[kind] for kind in kinds} == kinds
        assert objects.total() == len(outcome.objects)
        assert found.total() == len(outcome.detections)


@pytest.mark.parametrize("overlap", [0.3, 0.57, 0.75, 0.95])
def test_at_other_overlaps_pycocotools_agrees(judge: Page, overlap: float) -> None:
    for seed in range(3):
        evaluator = evaluated(ground_truth(TRUTH), random_detections(seed))
        told = shown(evaluator, 0.0)
        objects, found = count(judged(judge, told, 0.0, overlap))
        assert (objects["right"], found["right"], found["ignored"]) == by_coco(told, overlap)


def test_of_two_objects_equally_close_the_later_is_taken(judge: Page) -> None:
    truth = [annotation(1, 1, 0, (10, 10, 50, 60)), annotation(2, 1, 0, (50, 10, 90, 60))]
    found = detections([(30, 10, 70, 60), (10, 10, 50, 60)], [0, 0], [0.9, 0.8])
    told = shown(evaluated(ground_truth(truth, [1]), {1: found}), 0.0)
    verdicts = judged(judge, told, 0.0, overlap=0.3)
    assert verdicts == [[["right", "right"], ["right", "right"]]]
    assert by_coco(told, 0.3) == (2, 2, 0)


def count(verdicts: list[list[list[str]]]) -> tuple[Counter[str], Counter[str]]:
    """Count the kinds of objects, and of detections."""
    objects, found = (Counter(kind for image in verdicts for kind in image[i]) for i in (0, 1))
    return objects, found


def by_coco(told: ViewerData, overlap: float) -> tuple[int, int, int]:
    """Count objects that are found, detections that are right, and those that lie in crowds."""
    results = told.data.results
    parts = [
        {"image_id": one.image_id, "category_id": one.category_id, "score": one.mask_score}
        | {"segmentation": results.run_lengths(one)}
        for one in results.detections
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        scorer = COCOeval(told.data.truth, told.data.truth.loadRes(parts), "segm")
        scorer.params.iouThrs = np.array([overlap])
        scorer.evaluate()
    every_size = scorer.params.areaRng[0]
    images = [image for image in scorer.evalImgs if image and image["aRng"] == every_size]
    ignored = sum(int(image["dtIgnore"].sum()) for image in images)
    crowds = [image["gtMatches"][0][image["gtIgnore"].astype(bool)] for image in images]
    objects = sum(int((image["gtMatches"] > 0).sum()) for image in images)
    objects -= sum(int((matched > 0).sum()) for matched in crowds)
    right = sum(int((image["dtMatches"] > 0).sum()) for image in images) - ignored
    return objects, right, ignored


def test_it_opens_with_the_numbers_of_the_tables(page: Page, folder: Path) -> None:
    values = counts(page)
    assert [values[name] for name in ("right", "missed", "false")] == ["3", "3", "5"]
    assert [values[name] for name in ("precision", "recall")] == ["37.5 %", "50.0 %"]
    errors, classes = read_csv(folder / "images.csv"), read_csv(folder / "per_class.csv")
    assert cards(page) == [row["file"] for row in errors] + ["5"]
    told = page.locator(".gallery .tally").all_inner_texts()
    assert [" ".join(text.split()) for text in told] == [
        "1 right 2 missed 4 false",
        "1 right 1 missed 1 false",
        "1 right 0 missed 0 false",
    ]
    assert [(row["missed"], row["false"]) for row in errors] == [("2", "4"), ("1", "1")]
    for row in classes[:2]:
        page.select_option("#class", label=row["class"])
        values = counts(page)
        assert values["right"] == row["right"]
        assert values["recall"] == f"{float(row['recall']):.1f} %"
        assert values["precision"] == f"{float(row['precision']):.1f} %"


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_sliders_act_at_once_and_ask_for_nothing(page: Page) -> None:
    page.wait_for_load_state("networkidle")  # its own pictures
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    icon = page.locator("link[rel=icon]").get_attribute("href") or "?"  # fetched when it pleases
    before, order = counts(page), cards(page)
    slide(page, "score", 80)
    assert page.locator("#score-value").inner_text() == "0.80"
    assert [counts(page)[name] for name in ("right", "missed", "false")] == ["2", "4", "2"]
    slide(page, "score", 50)
    slide(page, "overlap", 80)
    assert [counts(page)[name] for name in ("right", "missed", "false")] == ["2", "4", "6"]
    slide(page, "overlap", 30)
    assert [counts(page)[name] for name in ("right", "missed", "false")] == ["5", "1", "3"]
    assert cards(page) == order  # while a slider moves the images stay where they are
    page.get_by_role("button", name="Back to").click()
    assert counts(page) == before
    assert page.locator("#reset").is_hidden()
    assert [url for url in requests if not url.endswith(icon)] == []


def test_filters_choose_images_and_what_is_drawn(page: Page) -> None:
    drawn = page.locator(".gallery li:visible .shape")
    everything = drawn.count()
    for kind in KINDS:
        button = page.locator(f"#kinds button:has(.swatch.{kind})")
        number = {"right": 3, "missed": 2}.get(kind, 1)
        assert button.locator(".number").inner_text() == str(number)
        button.click()
        assert button.get_attribute("aria-pressed") == "true"
        assert page.locator(f".gallery li:visible .shape.{kind}").count() == number
        assert drawn.count() == number
        assert page.locator(f".gallery li:visible:has(.shape.{kind})").count() == len(cards(page))
        button.click()
    assert drawn.count() == everything
    page.select_option("#class", label="toothbrush")
    assert cards(page) == ["1"]
    assert page.locator("#shown").inner_text() == "1 of 3 images"
    page.select_option("#class", label="all")
    page.select_option("#order", label="file name")
    slide(page, "score", 99)
    page.dispatch_event("#score", "change")
    assert cards(page) == ["1", "2", "5"]


def test_an_image_enlarged(page: Page) -> None:
    first, second, third = cards(page)
    page.locator(".gallery a").first.click()
    title = page.locator("#file")
    expect(title).to_have_text(first)
    expect(title).to_be_focused()
    expect(page.locator("#gallery")).to_be_hidden()
    assert page.locator(".pair .canvas img").count() == 2
    missed = page.locator(".pair .shape.missed").count()
    assert f"{missed + page.locator('.pair .confused.objects').count()} missed" in page.inner_text(
        "figcaption"
    )
    rows = page.locator("#items .row")
    assert rows.count() == page.locator(".pair .shape.detections").count() + missed
    right = page.locator("#items .row:has(.swatch.right)").first
    right.hover()
    assert page.locator(".pair .shape.picked").count() == 2  # with the object that it found
    page.keyboard.press("ArrowRight")
    expect(title).to_have_text(second)
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")  # there is no fourth
    expect(title).to_have_text(third)
    expect(page.locator("#place")).to_have_text("3 of 3")
    page.keyboard.press("ArrowLeft")
    expect(title).to_have_text(second)
    assert rows.count() == 3
    slide(page, "score", 99)
    assert rows.count() == 2  # both missed
    page.keyboard.press("Escape")
    expect(page.locator("#gallery")).to_be_visible()
    expect(page.locator(".gallery a").nth(1)).to_be_focused()
    page.keyboard.press("ArrowLeft")
    expect(page.locator(".gallery a").first).to_be_focused()
    page.keyboard.press("Enter")
    expect(title).to_have_text(first)
    page.go_back()
    expect(page.locator("#gallery")).to_be_visible()


def test_arrow_keys_in_a_slider_move_the_slider(page: Page) -> None:
    page.locator(".gallery a").first.click()
    expect(page.locator("#file")).not_to_be_empty()  # the page follows its address a moment later
    name, value = page.locator("#file").inner_text(), page.locator("#score").input_value()
    page.focus("#score")
    page.keyboard.press("ArrowRight")
    assert page.locator("#score").input_value() == str(int(value) + 1)
    assert page.locator("#file").inner_text() == name


@pytest.fixture(scope="module")
def lenient(browser: Browser) -> Iterator[Browser]:
    """A browser that lets axe read the style sheets beside the page."""
    flags = ["--no-sandbox", "--allow-file-access-from-files"]
    opened = browser.browser_type.launch(executable_path=need_browser(), args=flags)
    yield opened
    opened.close()


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_every_part_fits_and_can_be_used_by_everybody(
    lenient: Browser, folder: Path, scheme: Any, width: int
) -> None:
    size = {"width": width, "height": 740}
    with open_page(lenient, viewport=size, color_scheme=scheme) as page:
        for part in ("images", "image/1", "numbers"):
            page.goto((folder / "index.html").as_uri() + f"#{part}")
            ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
            assert (max(map(int, ground[4:-1].split(","))) < 128) == (scheme == "dark")
            assert page.evaluate("document.documentElement.scrollWidth") == width
            assert grave_violations(page) == [], part


def test_names_that_mean_harm_are_only_text(browser: Browser, tmp_path: Path) -> None:
    coco = ground_truth(TRUTH)
    for image in coco.imgs.values():
        image["file_name"] = EVIL[0]
    page_file = write(tmp_path, evaluated(coco, perfect()), coco, *EVIL, masks=False)
    with open_page(browser) as page:
        page.on("dialog", lambda dialog: pytest.fail(dialog.message))
        page.goto(page_file)
        assert cards(page) == [EVIL[0]] * 3
        assert EVIL[1] in page.locator("#class option").all_inner_texts()
        page.locator(".gallery a").first.click()
        expect(page.locator("#items .row b").first).to_have_text(EVIL[0])
        assert page.locator("script").count() == 6
        assert "Poor mask" not in page.inner_text("#kinds")  # of boxes there are none


def test_long_names_stay_on_their_image(browser: Browser, tmp_path: Path) -> None:
    """Labels of objects left, in the middle and right, of which none is cut off at an edge."""
    boxes = [LEFT, MIDDLE, RIGHT, (76, 60, 84, 90), (90, 70, 158, 110)]
    names = ("a very long name of a class, which no label has room for", NAMES[1], NAMES[2])
    coco = ground_truth([annotation(n, 1, 0, box) for n, box in enumerate(boxes, 1)], [1])
    one = detections(boxes, [0] * len(boxes), [0.9] * len(boxes))
    path = write(tmp_path, evaluated(coco, {1: one}), coco, *names, score_threshold=0.5)
    with open_page(browser) as page:
        page.goto(f"{path}#image/1")
        outside = page.locator(".label").evaluate_all(
            """(labels) => labels.filter((label) => {
                const own = label.getBoundingClientRect();
                const all = label.parentElement.getBoundingClientRect();
                return own.left < all.left - 1 || own.right > all.right + 1;
            }).length"""
        )
        assert page.locator(".label").count() == 2 * len(boxes)
        assert outside == 0


def test_names_in_tables_are_broken_between_words_only(browser: Browser, folder: Path) -> None:
    with open_page(browser, viewport={"width": 320, "height": 740}) as page:
        page.goto((folder / "index.html").as_uri() + "#numbers")
        heights = page.locator("td.text").evaluate_all("(es) => es.map((e) => e.clientHeight)")
        assert heights and max(heights) < 60  # two lines


def test_sliders_are_read_as_they_are_shown(page: Page) -> None:
    for name, value, text in (("score", 80, "0.80"), ("overlap", 50, "0.50")):
        slide(page, name, value)
        assert page.get_attribute(f"#{name}", "aria-valuetext") == text


def test_many_images_open_at_once(browser: Browser, tmp_path: Path) -> None:
    """What is out of sight is neither read nor drawn."""
    ids = range(1, 201)
    coco = ground_truth([annotation(n, n, 0, LEFT) for n in ids], ids)
    one = detections([LEFT, RIGHT], [0, 1], [0.9, 0.8])
    path = write(
        tmp_path,
        evaluated(coco, dict.fromkeys(ids, one)),
        coco,
        max_images=150,
        score_threshold=0.5,
    )
    assert (tmp_path / "viewer" / "data.js").stat().st_size < 400 * len(ids)
    requests: list[str] = []
    with open_page(browser) as page:
        page.on("request", lambda request: requests.append(request.url))
        page.goto(path)
        assert counts(page)["right"] == "200"
        assert page.locator(".gallery li").count() == 150
        assert page.locator("img[loading=lazy]").count() >= 150
        expect(page.locator(".gallery li").first.locator(".shape")).to_have_count(2)
        assert page.locator(".gallery .shape").count() < 200
        assert {url.partition(":")[0] for url in requests} == {"file"}
        assert sum("/small/" in url for url in requests) < 100
        assert not any("/large/" in url for url in requests)
        page.locator(".gallery li").nth(100).scroll_into_view_if_needed()
        expect(page.locator(".gallery li").nth(100).locator(".shape")).to_have_count(2)
        page.evaluate("dispatchEvent(new Event('beforeprint'))")
        expect(page.locator(".gallery .shape")).to_have_count(2 * 150)
        page.wait_for_function("[...document.images].every((e) => e.naturalWidth)")


@pytest.mark.slow
def test_the_picture_of_the_documentation(browser: Browser, tmp_path: Path) -> None:
    """With YOLACT_SCREENSHOTS=docs it is written there."""
    flags = ["--trained_model=yolact_resnet18_shapes", "--max_images=40", "--no_bar"]
    flags += [f"--report={tmp_path}", f"--ap_data_file={tmp_path / 'kept.json'}"]
    eval_script.main(flags)
    picture = Path(SCREENSHOTS or tmp_path) / "report.jpg"
    with open_page(browser, viewport={"width": 1120, "height": 690}) as page:
        page.goto((tmp_path / "index.html").as_uri())
        expect(page.locator(".gallery li").first.locator(".shape").first).to_be_visible()
        seen = "[...document.images].filter((e) => e.getBoundingClientRect().top < innerHeight)"
        page.evaluate(f"Promise.all({seen}.map((e) => e.decode()))")
        page.screenshot(path=picture, type="jpeg", quality=72)
    assert 30_000 < picture.stat().st_size < 150_000
