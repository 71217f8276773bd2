import json
import math
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from pycocotools import mask as mask_utils
from pycocotools.coco import COCO
from support.coco_rectangles import (
    CATEGORY_IDS,
    HW,
    MEDIUM,
    NAMES,
    TRUTH,
    bitmap,
    detections,
    evaluated,
    ground_truth,
    perfect,
    random_detections,
)

from yolact.evaluation.coco import CocoEvaluator
from yolact.evaluation.result_files import (
    CocoResults,
    load_results,
    merge_results,
    save_results,
    write_coco_json,
    write_web_json,
)
from yolact.evaluation.result_origin import Origin, digest_of
from yolact.results.detections import Detections

ORIGIN = Origin(
    weights="weights/mine.pth",
    digest="12ab" * 16,
    dataset="/data/mine",
    masks="cropped",
    score_threshold=0.0,
    engine="openvino",
    precision="float32",
    settings={"model.image_size": 550, "detect.nms": "fast", "model.class_names": ["a", "b"]},
)


@pytest.mark.parametrize("found", [{}, {5: detections()}, random_detections(3)])
def test_saved_results_score_the_same(tmp_path: Path, found: dict[int, Detections]) -> None:
    coco = ground_truth(TRUTH)
    evaluator = evaluated(coco, found)
    path = tmp_path / "results" / "ap_data.json"
    save_results(path, evaluator.results, ORIGIN)
    assert load_results(path, ORIGIN) == evaluator.results
    resumed = CocoEvaluator(coco, CATEGORY_IDS, load_results(path, ORIGIN))
    ours, theirs = resumed.summarize(), evaluator.summarize()
    for kind in ("box", "mask"):
        np.testing.assert_equal(vars(getattr(ours, kind)), vars(getattr(theirs, kind)))
    assert [file.name for file in path.parent.iterdir()] == ["ap_data.json"]


def test_saved_results_of_another_data_set_are_refused(tmp_path: Path) -> None:
    save_results(tmp_path / "r.json", evaluated(ground_truth(TRUTH), perfect()).results, ORIGIN)
    results = load_results(tmp_path / "r.json", ORIGIN)
    with pytest.raises(ValueError, match="image 1 is not"):
        CocoEvaluator(ground_truth([], images=[77]), CATEGORY_IDS, results)
    with pytest.raises(ValueError, match=r"categories \[7\]"):
        CocoEvaluator(ground_truth(TRUTH), [3, 90], results)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{}",
        b"[]",
        b"null",
        b"\xff\xfe\x00",
        b"[" * 100_000,
        pickle.dumps({"box": []}),
        b'{"format": "yolact results 2"}',
        b'{"format": "yolact results 2", "origin": {}, "images": [], "detections": []}',
    ],
)
def test_broken_results_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "ap_data.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="ap_data.json is"):
        load_results(path, ORIGIN)


def test_results_may_be_called_like_the_pickles_of_2019(tmp_path: Path) -> None:
    path = tmp_path / "ap_data.pkl"
    save_results(path, CocoResults({3: (5, 7)}, []), ORIGIN)
    assert load_results(path, ORIGIN).images == {3: (5, 7)}


def test_pickles_are_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "ap_data.pkl").write_bytes(pickle.dumps([], protocol=0))
    with pytest.raises(ValueError, match="is a pickle, which can run any code"):
        load_results(tmp_path / "ap_data.pkl", ORIGIN)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ((0,), 99),  # an image that is not listed
        ((0,), [1]),
        ((1,), 3.5),
        ((1,), True),
        ((2,), [1, 2, 3]),
        ((2, 0), None),
        ((2, 0), math.nan),
        ((3,), "0.5"),
        ((4,), math.inf),
        ((5,), ""),
        ((5,), 5),
        ((5,), "\u00e9"),
        ((5,), "~"),
        ((5,), "o" * 20),  # a number without end
        ((5,), "oooooooo0"),  # a number beyond all sizes
        ((5,), "00"),  # too few pixels
        ((5,), "PPPP4oooo0"),
        ((), []),
        ((), "abc"),
    ],
)
def test_broken_detections_are_refused(
    tmp_path: Path, place: tuple[int, ...], value: object
) -> None:
    path = tmp_path / "ap_data.json"
    save_results(path, evaluated(ground_truth(TRUTH), perfect()).results, ORIGIN)
    content = json.loads(path.read_text())
    *outer, last = (0, *place)
    part = content["detections"]
    for index in outer:
        part = part[index]
    part[last] = value
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="is not a file of saved results, or is broken"):
        load_results(path, ORIGIN)


@pytest.mark.parametrize("seed", range(3))
def test_flipped_characters_never_reach_pycocotools(tmp_path: Path, seed: int) -> None:
    """Each change of a mask is refused, or is another mask of the same size."""
    rng = np.random.default_rng(seed)
    path = tmp_path / "ap_data.json"
    evaluator = evaluated(ground_truth(TRUTH), random_detections(seed))
    save_results(path, evaluator.results, ORIGIN)
    content = json.loads(path.read_text())
    for row in content["detections"][:40]:
        counts = row[5]
        place = rng.integers(len(counts))
        row[5] = counts[:place] + chr(rng.integers(48, 112)) + counts[place + 1 :]
        path.write_text(json.dumps({**content, "detections": [row]}))
        try:
            (result,) = load_results(path, ORIGIN).detections
        except ValueError:
            continue
        decoded = mask_utils.decode({"size": list(HW), "counts": result.mask_counts})
        assert decoded.shape == HW


def test_coco_files(tmp_path: Path) -> None:
    one = replace(perfect()[1], boxes=torch.tensor([[10.04, 10.06, 30.0, 30.0], [40, 40, 90, 90]]))
    one = replace(one, box_scores=torch.tensor([0.5, 0.25]))
    evaluator = evaluated(ground_truth(TRUTH), {1: one, 5: detections()})
    write_coco_json(tmp_path / "box.json", tmp_path / "a" / "mask.json", evaluator.results)
    boxes = json.loads((tmp_path / "box.json").read_text())
    masks = json.loads((tmp_path / "a" / "mask.json").read_text())
    assert boxes[0] == {
        "image_id": 1,
        "category_id": 3,
        "bbox": [10.0, 10.1, 20.0, 19.9],
        "score": 0.5,
    }
    assert set(masks[0]) == {"image_id", "category_id", "segmentation", "score"}
    assert masks[1]["score"] == pytest.approx(0.8)
    assert (mask_utils.decode(masks[1]["segmentation"]) == bitmap(MEDIUM)).all()


def test_web_file(tmp_path: Path) -> None:
    evaluator = evaluated(ground_truth(TRUTH), perfect())
    path = tmp_path / "web" / "dets" / "tiny.json"
    names = dict(zip(CATEGORY_IDS, NAMES, strict=True))
    write_web_json(path, evaluator.results, names, {"name": "tiny"})
    content = json.loads(path.read_text())
    assert content["info"] == {"Config": {"name": "tiny"}}
    assert [(i["image_id"], len(i["dets"])) for i in content["images"]] == [(1, 2), (2, 1), (5, 0)]
    first = content["images"][0]["dets"][0]
    assert set(first) == {"score", "bbox", "category", "mask"}
    assert (first["category"], first["bbox"]) == ("cat", [10.0, 10.0, 20.0, 20.0])


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "web.json"
    path.write_text("old")
    evaluator = evaluated(ground_truth(TRUTH), {})
    with pytest.raises(TypeError):
        write_web_json(path, evaluator.results, {}, {"name": object()})
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


IMAGES = (4, 2, 11, 7, 1, 30, 5)  # not in the order of their ids


def many_images(seed: int) -> tuple[COCO, dict[int, Detections]]:
    truth = [
        {**part, "id": 10 * image_id + number, "image_id": image_id}
        for image_id in IMAGES
        for number, part in enumerate(TRUTH, start=1)
    ]
    found = {image_id: random_detections(seed + image_id)[1] for image_id in IMAGES}
    return ground_truth(truth, IMAGES), found


@pytest.mark.parametrize(
    "shares",
    [
        [[0, 1, 2, 3, 4, 5, 6]],
        [[0, 2, 4, 6], [1, 3, 5]],
        [[0, 2, 4, 6], [1, 3, 5, 0]],  # padded to equal length
        [[5], [6, 4, 3, 2, 1, 0]],
        [[], [3, 0, 2, 1, 6, 5, 4]],
        [[0, 3, 6], [1, 4, 0], [2, 5, 1]],
        [[6, 1], [], [2, 0, 3, 4, 5]],
    ],
)
def test_merged_results_score_exactly_as_those_of_one_process(shares: list[list[int]]) -> None:
    coco, found = many_images(sum(map(len, shares)))
    parts = [
        evaluated(coco, {IMAGES[index]: found[IMAGES[index]] for index in share}).results
        for share in shares
    ]
    whole = evaluated(coco, found)
    merged = CocoEvaluator(coco, CATEGORY_IDS, merge_results(parts))
    assert list(merged.results.images) == sorted(IMAGES)
    for kind in ("box", "mask"):
        scores = [getattr(evaluator.summarize(), kind) for evaluator in (merged, whole)]
        for values in ("overlaps", "coco", "per_class"):
            ours, theirs = (getattr(each, values) for each in scores)
            assert repr(ours) == repr(theirs)  # to the last bit, NaN included
    assert 1 < whole.summarize().mask.overlaps["all"] < 99


def test_the_order_within_an_image_matters() -> None:
    """Why it is kept: detections of equal score are ranked as they come."""
    coco, found = many_images(0)
    backwards = {image_id: one[list(range(len(one)))[::-1]] for image_id, one in found.items()}
    scores = [evaluated(coco, each).summarize().mask.overlaps["all"] for each in (found, backwards)]
    assert scores[0] != scores[1]


def test_nothing_merged_is_nothing() -> None:
    assert merge_results([]) == merge_results([CocoResults(), CocoResults()]) == CocoResults()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, None),
        ({"weights": "elsewhere/mine.pth"}, None),  # the same weights in another place
        ({"engine": "auto", "precision": "auto"}, None),
        ({"engine": "eager"}, None),
        ({"masks": "none"}, None),  # boxes are the same
        ({"digest": "34" * 32}, "--trained_model=weights/mine.pth (SHA-256 12ab12ab12ab), not "),
        ({"tiles": "320, overlap 0.2"}, "--tile=none, not 320, overlap 0.2"),
        ({"images": "56" * 32}, "images of --dataset=SHA-256 , not SHA-256 5656565656565656"),
        ({"dataset": "/data/other"}, "--dataset=/data/mine, not /data/other"),
        ({"masks": "whole"}, "masks=cropped, not whole"),
        ({"score_threshold": 0.3}, "--score_threshold=0.0, not 0.3"),
        ({"precision": "bfloat16"}, "--precision=float32, not bfloat16"),
        ({"settings": {**ORIGIN.settings, "detect.nms": "greedy"}}, "--set detect.nms=fast, not"),
        ({"settings": {**ORIGIN.settings, "model.new": 3}}, "--set model.new=None, not 3"),
        ({"settings": {"detect.nms": "fast"}}, "--set model.image_size=550, not None"),
    ],
)
def test_results_of_another_origin_are_refused(
    tmp_path: Path, changes: dict[str, object], said: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    path, results = tmp_path / "r.json", evaluated(ground_truth(TRUTH), perfect()).results
    save_results(path, results, ORIGIN)
    other = replace(ORIGIN, **changes)
    if said is None:
        assert load_results(path, other) == results
        assert "3 images, by openvino in float32" in caplog.text
        return
    with pytest.raises(ValueError, match="evaluate once more without --resume") as caught:
        load_results(path, other)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


LONG = [f"class number {number}" for number in range(80)]


@pytest.mark.parametrize(
    ("ours", "theirs", "said"),
    [
        ([], ["a"], "=[], not ['a']"),
        (["a", "b"], ["a", "c"], "=['a', 'b'], not ['a', 'c']"),
        (LONG, [*LONG[:-1], "ring"], "[79]=class number 79, not ring"),
        (LONG, LONG[:-1], "[79]=class number 79, not nothing"),
        ([*LONG, None], LONG, "[80]=None, not nothing"),
        ([LONG, LONG], [LONG, LONG[::-1]], "[1][0]=class number 0, not class number 79"),
        (None, LONG, "=None, not ['class number 0', 'class number 1', 'cl..."),
    ],
)
def test_late_differences_are_told(ours: object, theirs: object, said: str) -> None:
    origins = [replace(ORIGIN, settings={"model.class_names": value}) for value in (ours, theirs)]
    assert origins[0].differences(origins[1]) == [f"--set model.class_names{said}"]
    folders = [replace(ORIGIN, dataset=f"/{'long/' * 20}{end}") for end in ("a", "b")]
    assert folders[0].differences(folders[1])[0].endswith("long/a, not " + folders[1].dataset)


def test_boxes_alone_cannot_be_scored_as_masks(tmp_path: Path) -> None:
    save_results(tmp_path / "r.json", CocoResults(), replace(ORIGIN, masks="none"))
    with pytest.raises(ValueError, match="masks=none, not cropped"):
        load_results(tmp_path / "r.json", ORIGIN)


@pytest.mark.parametrize(
    ("name", "value"),
    [("digest", 5), ("settings", []), ("score_threshold", "0"), ("more", 1), ("weights", None)],
)
def test_an_origin_that_makes_no_sense_is_refused(tmp_path: Path, name: str, value: object) -> None:
    path = tmp_path / "r.json"
    save_results(path, CocoResults(), ORIGIN)
    content = json.loads(path.read_text())
    content["origin"][name] = value
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="origin of its detections"):
        load_results(path, ORIGIN)


def test_results_without_an_origin_are_refused_and_why(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    path.write_text('{"format": "yolact results 1", "images": [], "detections": []}')
    with pytest.raises(ValueError, match=r"r\.json is of an earlier version, which did not note"):
        load_results(path, ORIGIN)


def test_the_digest_is_of_all_that_a_model_is_stored_in(tmp_path: Path) -> None:
    weights, network = tmp_path / "m.pth", tmp_path / "m.xml"
    weights.write_bytes(b"abc")
    network.write_bytes(b"abc")
    known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # of "abc"
    assert digest_of(weights) == digest_of(network) == known
    (tmp_path / "m.bin").write_bytes(b"def")
    assert digest_of(weights) == known
    assert digest_of(network) != known


def test_results_that_were_never_stored(tmp_path: Path) -> None:
    for path in (tmp_path / "none.json", tmp_path):
        with pytest.raises(FileNotFoundError, match="no stored results at .*without --resume"):
            load_results(path, ORIGIN)


@pytest.mark.parametrize("name", ["a\nb", "\x1b[31m", "\ud800"])
@pytest.mark.parametrize("part", ["dataset", "weights", "masks"])
def test_a_stored_origin_is_told_in_one_line(tmp_path: Path, part: str, name: str) -> None:
    path = tmp_path / "r.json"
    stored = replace(ORIGIN, **{part: name}, digest="of another file")
    save_results(path, CocoResults(), stored)
    with pytest.raises(ValueError, match=r"holds what was found by") as error:
        load_results(path, ORIGIN)
    assert str(error.value).isprintable()
