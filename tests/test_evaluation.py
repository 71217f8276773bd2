import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from pycocotools import mask as mask_utils
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from support.coco_rectangles import (
    CATEGORY_IDS,
    HW,
    LARGE,
    NAMES,
    SMALL,
    TRUTH,
    annotation,
    detections,
    evaluated,
    ground_truth,
    perfect,
    random_detections,
)

from data.classes import Categories
from data.sample import Sample
from yolact.evaluation.coco import CocoEvaluator, eval_order, evaluate
from yolact.evaluation.metrics import (
    COCO_NUMBERS,
    OVERLAPS,
    CocoMetrics,
    format_coco_summary,
    format_per_class,
    format_table,
    plain_metrics,
)
from yolact.results.detections import Detections


def scored(coco: COCO, found: dict[int, Detections]) -> CocoMetrics:
    return evaluated(coco, found).summarize()


def reference(coco: COCO, found: dict[int, Detections], kind: str) -> COCOeval:
    """Score by pycocotools alone, from full-size masks."""
    entries = []
    for image_id, one in found.items():
        masks = one.masks.numpy().astype(np.uint8)
        for k, (x1, y1, x2, y2) in enumerate(one.boxes.double().tolist()):
            entry: dict[str, Any] = {
                "image_id": image_id,
                "category_id": CATEGORY_IDS[int(one.labels[k])],
            }
            if kind == "bbox":
                entry |= {"bbox": [x1, y1, x2 - x1, y2 - y1], "score": float(one.box_scores[k])}
            else:
                rle = mask_utils.encode(np.asfortranarray(masks[k]))
                entry |= {"segmentation": rle, "score": float(one.scores[k])}
            entries.append(entry)
    scorer = COCOeval(coco, coco.loadRes(entries), kind)
    scorer.params.imgIds = list(found)
    scorer.evaluate()
    scorer.accumulate()
    scorer.summarize()
    return scorer


def numbers(values: dict[Any, float]) -> list[float]:
    return list(values.values())


def test_nothing_added_is_undefined(capsys: pytest.CaptureFixture[str]) -> None:
    metrics = scored(ground_truth(TRUTH), {})
    assert all(map(math.isnan, numbers(metrics.box.overlaps) + numbers(metrics.mask.per_class)))
    assert "  box |     - |     - |" in format_table(metrics)
    assert format_coco_summary(metrics).count("= -") == 24
    assert capsys.readouterr().out == ""


def test_no_ground_truth_is_undefined() -> None:
    metrics = scored(ground_truth([]), perfect())
    assert all(map(math.isnan, numbers(metrics.mask.overlaps) + numbers(metrics.mask.coco)))


def test_no_detections_score_zero() -> None:
    metrics = scored(ground_truth(TRUTH), {1: detections(), 2: detections()})
    assert numbers(metrics.box.overlaps) == numbers(metrics.mask.overlaps) == [0.0] * 11
    assert metrics.mask.coco["AR100"] == 0


def test_perfect_detections_score_a_hundred() -> None:
    metrics = scored(ground_truth(TRUTH), perfect())
    assert list(metrics.box.overlaps) == list(OVERLAPS)
    for scores in (metrics.box, metrics.mask):
        assert numbers(scores.overlaps) == pytest.approx([100.0] * 11)
    assert metrics.mask.coco == pytest.approx(dict.fromkeys(COCO_NUMBERS, 100.0))
    assert metrics.mask.per_class[0] == pytest.approx(100)
    assert math.isnan(metrics.mask.per_class[2])


def test_only_added_images_count() -> None:
    coco = ground_truth(TRUTH)
    one, two = scored(coco, {1: perfect()[1]}), scored(coco, {1: perfect()[1], 2: detections()})
    assert one.mask.overlaps["all"] == pytest.approx(100)
    assert two.mask.overlaps["all"] == pytest.approx(75, abs=1)


@pytest.mark.parametrize("seed", range(4))
def test_equal_to_pycocotools(seed: int) -> None:
    found = random_detections(seed)
    metrics = scored(ground_truth(TRUTH), found)
    for kind, scores in (("bbox", metrics.box), ("segm", metrics.mask)):
        overlaps, coco_numbers, per_class = scores.overlaps, scores.coco, scores.per_class
        scorer = reference(ground_truth(TRUTH), found, kind)
        precision = scorer.eval["precision"][:, :, :, 0, 2]
        by_overlap = [100 * row[row > -1].mean() for row in precision]
        assert numbers(coco_numbers) == pytest.approx([100 * s for s in scorer.stats], abs=1e-9)
        assert numbers(overlaps) == pytest.approx([np.mean(by_overlap), *by_overlap], abs=1e-9)
        assert per_class[1] == pytest.approx(100 * precision[:, :, 1].mean(), abs=1e-9)
        assert 1 < overlaps["all"] < 99


def many_objects() -> tuple[COCO, Detections]:
    """200 squares of 3 x 3 pixels of one class in one image, all found."""
    boxes = [(x, y, x + 3, y + 3) for y in range(0, 50, 5) for x in range(0, 100, 5)]
    truth = [annotation(number, 1, 0, box) for number, box in enumerate(boxes, start=1)]
    scores = np.linspace(0.99, 0.5, 200).tolist()
    return ground_truth(truth), detections(boxes, [0] * 200, scores)


@pytest.mark.parametrize(
    ("limit", "recall"), [(1, 0.5), (10, 5), (100, 50), (200, 100), (1000, 100)]
)
def test_as_many_count_as_the_limit_says(limit: int, recall: float) -> None:
    coco, found = many_objects()
    evaluator = CocoEvaluator(coco, CATEGORY_IDS, limit=limit)
    evaluator.add(1, found)
    metrics = evaluator.summarize()
    for scores in (metrics.box, metrics.mask):
        assert len(scores.coco) == 12
        assert list(scores.coco.values())[8] == pytest.approx(recall)
        assert scores.coco["AP"] == scores.overlaps["all"] == pytest.approx(recall, abs=1)
        assert scores.coco["AR10"] == pytest.approx(min(recall, 5))
        assert ("AR100" in scores.coco) == (limit == 100)
    text = format_coco_summary(metrics)
    assert text.count(f"maxDets={limit:3} ]") >= 2 * 10
    assert list(plain_metrics(metrics, NAMES)["box"]) == list(metrics.box.coco)


def test_boxes_and_masks_are_ranked_by_their_own_scores() -> None:
    truth = ground_truth([annotation(1, 1, 0, SMALL)])
    right_then_wrong = [SMALL, LARGE]
    metrics = scored(truth, {1: detections(right_then_wrong, [0, 0], [0.9, 0.1], [0.1, 0.9])})
    assert metrics.mask.overlaps["all"] == pytest.approx(100)
    assert metrics.box.overlaps["all"] == pytest.approx(50)


def test_boxes_are_not_rounded_for_the_metric() -> None:
    truth = ground_truth([annotation(1, 1, 0, (0, 0, 100, 100))])
    one = detections([(0, 0, 100, 100)], [0], [0.9])
    one = replace(one, boxes=torch.tensor([[0.0, 0.0, 94.96, 100.0]]))  # IoU < .95 until rounded
    assert scored(truth, {1: one}).box.overlaps["95"] == 0


def test_annotations_that_pycocotools_trips_over() -> None:
    bare = annotation(0, 1, 0, SMALL)  # id 0 is "not found" to pycocotools
    del bare["area"], bare["iscrowd"], bare["segmentation"]
    no_box = annotation(0, 2, 0, LARGE)  # and an id that occurs twice
    del no_box["bbox"], no_box["area"]
    coco = ground_truth([bare, no_box])
    before = json.dumps(coco.dataset)
    metrics = scored(coco, perfect())
    assert metrics.box.per_class[0] == pytest.approx(100)
    assert metrics.mask.per_class[0] == pytest.approx(100)
    assert json.dumps(coco.dataset) == before


def test_non_finite_detections_are_dropped() -> None:
    one = perfect()[1]
    one.boxes[1] = math.nan
    evaluator = evaluated(ground_truth(TRUTH), {1: one})
    assert [result.category_id for result in evaluator.results.detections] == [3]


@pytest.mark.parametrize(
    ("image_id", "one", "message"),
    [
        (9, detections(), "image 9 is not in the ground truth"),
        (1, detections(), "image 1 was added before"),
        (
            2,
            replace(detections(), image_hw=(160, 120)),
            "is 120 x 160 pixels, but its ground truth has masks of 160 x 120",
        ),
        (2, detections([SMALL], [3], [0.5]), "labels 3 to 3, but there are 3 categories"),
    ],
)
def test_add_refuses(image_id: int, one: Detections, message: str) -> None:
    evaluator = evaluated(ground_truth(TRUTH), {1: detections()})
    with pytest.raises(ValueError, match=message):
        evaluator.add(image_id, one)
    assert list(evaluator.results.images) == [1]


def test_tables() -> None:
    metrics = scored(ground_truth(TRUTH), {**perfect(), 2: detections()})
    table = format_table(metrics).splitlines()
    columns = ["all", *(f".{percent}" for percent in range(50, 100, 5))]
    assert table[0] == "       |" + "".join(f"  {column}  |" for column in columns)
    assert table[1] == "-------+" * 12
    assert table[2].startswith("   box | 75.25 | 75.25 |")
    assert table[3].startswith("  mask | 75.25 |")
    assert len({len(line) for line in table}) == 1
    rows = [line.split() for line in format_per_class(metrics, NAMES).splitlines()]
    assert rows == [
        ["class", "box", "mask"],
        ["dog", "100.00", "100.00"],
        ["cat", "50.50", "50.50"],
        ["toothbrush", "-", "-"],
    ]


@pytest.mark.parametrize("masks", [True, False])
def test_plain_metrics_are_strict_json(masks: bool) -> None:
    metrics = scored(ground_truth(TRUTH), perfect())
    plain = json.loads(json.dumps(plain_metrics(metrics, NAMES, masks), allow_nan=False))
    assert list(plain["box"]) == list(COCO_NUMBERS)
    assert (plain["mask"] is None) == (not masks)
    cat, _, toothbrush = plain["per_class"]
    assert cat["box"] == pytest.approx(100)
    assert toothbrush == {"name": "toothbrush", "box": None} | ({"mask": None} if masks else {})


def test_a_summary_is_kept_until_something_is_added() -> None:
    evaluator = evaluated(ground_truth(TRUTH), {1: perfect()[1]})
    first = evaluator.summarize()
    assert evaluator.summarize() is first
    evaluator.add(2, detections())
    assert evaluator.summarize().mask.overlaps["all"] < first.mask.overlaps["all"]


def test_summary_reads_as_pycocotools_prints_it(capsys: pytest.CaptureFixture[str]) -> None:
    found = random_detections(0)
    coco = ground_truth(TRUTH)
    lines = format_coco_summary(scored(coco, found)).splitlines()
    capsys.readouterr()
    reference(coco, found, "segm")
    assert lines[14:] == capsys.readouterr().out.splitlines()[-12:]


@pytest.mark.parametrize(
    ("ids", "options", "expected"),
    [
        ([], {}, []),
        ([], {"shuffle": True}, []),
        ([7], {}, [0]),
        ([9, 8, 7], {"no_sort": True}, [0, 1, 2]),
        ([139, 285, 632, 724, 776], {}, [3, 4, 0, 1, 2]),  # must never change
    ],
)
def test_eval_order(ids: list[int], options: dict[str, bool], expected: list[int]) -> None:
    assert eval_order(ids, **options) == expected


def test_eval_order_is_a_permutation_of_the_ids() -> None:
    ids = [*range(1000), 2**40 + 1, -3]
    order = eval_order(ids)
    assert sorted(order) == list(range(len(ids)))
    backwards = eval_order(ids[::-1])
    assert [ids[i] for i in order] == [ids[::-1][i] for i in backwards]
    shuffled = eval_order(ids, shuffle=True, seed=1)
    assert sorted(shuffled) == sorted(order)
    assert (
        shuffled == eval_order(ids, shuffle=True, seed=1) != eval_order(ids, shuffle=True, seed=2)
    )


class TinyDataset:
    """Three images; the value of their pixels is the image id."""

    def __init__(self) -> None:
        self.coco = ground_truth(TRUTH)
        self.image_ids = (1, 2, 5)
        self.categories = Categories(NAMES, CATEGORY_IDS)

    def __len__(self) -> int:
        return 3

    def sample(self, index: int) -> Sample:
        image_id = self.image_ids[index]
        return Sample(
            image=np.full((*HW, 3), image_id, dtype=np.uint8),
            boxes=np.zeros((0, 4), dtype=np.float32),
            labels=np.zeros(0, dtype=np.int64),
            is_crowd=np.zeros(0, dtype=np.bool_),
            segmentations=(),
            image_id=image_id,
        )


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("count", [0, 2, 3])
def test_evaluate(count: int, workers: int, capsys: pytest.CaptureFixture[str]) -> None:
    answers = perfect()
    seen = []

    def predict(image: np.ndarray) -> Detections:
        assert not torch.is_grad_enabled()
        return answers[int(image[0, 0, 0])]

    evaluator = evaluate(
        predict,
        TinyDataset(),
        progress=count > 0,
        order=eval_order((1, 2, 5), no_sort=True)[:count],
        workers=workers,
        on_image=lambda image, found: seen.append((image[0, 0, 0], len(found))),
    )
    assert list(evaluator.results.images) == [1, 2, 5][:count]
    assert seen == [(number, len(answers[number])) for number in (1, 2, 5)[:count]]
    if count:
        assert evaluator.summarize().mask.overlaps["all"] == pytest.approx(100)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert ("evaluate" in captured.err) == (count > 0)


def test_an_image_that_cannot_be_read_is_told_and_left_out(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class OneBroken(TinyDataset):
        def sample(self, index: int) -> Sample:
            if index == 1:
                raise ValueError("b.jpg: not a known image format")
            return super().sample(index)

    answers = perfect()
    evaluator = evaluate(lambda image: answers[int(image[0, 0, 0])], OneBroken(), progress=False)
    assert sorted(evaluator.results.images) == [1, 5]
    assert evaluator.summarize().mask.overlaps["all"] == pytest.approx(100)
    assert "left out: b.jpg" in caplog.text
