"""What is said when a validation finds nothing, each cause provoked."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from threading import Event

import pytest
from support.coco_rectangles import TRUTH, detections, evaluated, ground_truth, perfect
from support.tiny import make_dataset, train_flags

import train
from yolact.cli.common import run_command
from yolact.cli.train_flags import parse_arguments
from yolact.models.yolact import Yolact
from yolact.training.diagnosis import LossTrend, Signs, diagnosis, finds_nothing
from yolact.training.setup import Session, set_up
from yolact.training.validation import validate

GOOD = Signs(
    images=5,
    detections=0,
    objects=12,
    misnamed=(),
    unlearned=(),
    met=0.9,
    iteration=500,
    warmup=100,
    rate=1e-3,
    skipped=0,
    total=(12.0, 4.0),
    mask=(6.0, 2.0),
    best_score=0.2,
    prototypes=3.0,
    dataset="my_data",
)


@pytest.mark.parametrize(
    ("changes", "lines"),
    [
        ({}, ["no cause stands out"]),
        ({"total": None, "mask": None, "best_score": None, "prototypes": None}, ["no cause"]),
        ({"objects": 0}, ["classes: there is no object to find"]),
        ({"unlearned": ("cat", "dog")}, ["classes: no training object is a cat, dog: call them"]),
        ({"detections": 9, "misnamed": (("cat", "dog"),) * 5}, ["no cause stands out"]),
        (
            {"detections": 9, "misnamed": (("a", "b"), ("cat", "dog"), *[("cat", "dog")] * 4)},
            ["classes: 6 of 12 objects are found, but called differently, such as cat called dog"],
        ),
        ({"met": 0.49}, ["anchors: 49% of the training objects meet one: yolact anchors my_data"]),
        ({"rate": 0.0}, ["learning rate: 0 moves no weight: raise it (--lr)"]),
        ({"skipped": 3}, ["learning rate: 0.001 is too high, it diverges, 3 steps skipped: lower"]),
        ({"total": (4.0, 7.0)}, ["learning rate: 0.001 is too high, the loss went from 4 to 7"]),
        ({"total": (4.0, 4.01)}, ["learning rate: at 0.001 the loss stands still at 4.01: raise"]),
        ({"iteration": 100}, ["learning rate: 0.001, rising until step 100: wait"]),
        ({"prototypes": 0.0}, ["masks: every prototype is 0 everywhere"]),
        ({"mask": (5.0, 5.05)}, ["masks: their loss stands still at 5.05: begin again"]),
        ({"mask": (0.0, 0.0)}, ["no cause stands out"]),  # boxes alone: there is none
        ({"best_score": 0.012}, ["background: everything is taken for it, the highest score"]),
        (
            {"met": 0.1, "best_score": 0.01, "objects": 0},
            ["classes: ", "anchors: 10%", "background: "],
        ),
    ],
)
def test_causes(changes: dict[str, object], lines: list[str]) -> None:
    head, *said = diagnosis(replace(GOOD, **changes))  # type: ignore[arg-type]
    assert head.startswith("nothing is found after ")
    assert len(said) == len(lines)
    for line, expected in zip(said, lines, strict=True):
        assert line.startswith(f"  {expected}")


def test_what_is_seen() -> None:
    assert "no detection in 5 images scores above 0.05" in diagnosis(GOOD)[0]
    one = diagnosis(replace(GOOD, images=1, iteration=1, warmup=0))[0]
    assert one.startswith("nothing is found after 1 step: no detection in 1 image scores above")
    seen = diagnosis(replace(GOOD, detections=7))[0]
    assert "none of 7 detections covers an object of its class by half" in seen


def test_the_trend_of_losses() -> None:
    trend = LossTrend()
    assert trend.change() is None
    for step in range(19):
        trend.add({"mask": float(step), "box": 1.0})
    assert trend.change() is None
    for step in range(19, 40):
        trend.add({"mask": float(step), "box": 1.0})
    assert trend.change("mask") == (4.5, 34.5)
    assert trend.change() == (5.5, 35.5)


def test_when_nothing_is_found() -> None:
    truth = ground_truth(TRUTH)
    nothing = {image: detections() for image in (1, 2, 5)}
    wrong = {**nothing, 1: detections([(0, 0, 5, 5)], [0], [0.9])}
    faint = {**nothing, 1: perfect()[1]}
    faint[1] = replace(faint[1], scores=faint[1].scores / 30, box_scores=faint[1].box_scores / 30)
    for found, expected in ((nothing, True), (wrong, True), (faint, True), (perfect(), False)):
        assert finds_nothing(evaluated(truth, found).summarize()) == expected


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Session]:
    folder = make_dataset(tmp_path_factory.mktemp("scenes"), train=6, val=2)

    def start(*flags: str, dataset: Path = folder) -> Session:
        more = ["--validation_size=2", "--no_log", *flags]
        return set_up(*parse_arguments(None, train_flags(dataset, folder / "kept", 100, *more)))

    return start


def said_of(session: Session, caplog: pytest.LogCaptureFixture) -> str:
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        validate(session, Event())
    session.close()
    return "\n".join(record.message for record in caplog.records)


def silenced(session: Session) -> Yolact:
    """Let the network take everything for background."""
    model = session.learner.model
    assert isinstance(model, Yolact)
    bias = model.network.head.classes.bias
    assert bias is not None
    bias.data.view(-1, len(model.class_names) + 1)[:, 0] = 50
    return model


def test_everything_is_background(
    started: Callable[..., Session], caplog: pytest.LogCaptureFixture
) -> None:
    session = started("--lr=1e-9", "--set=train.warmup_iterations=0")
    silenced(session)
    text = said_of(session, caplog)
    assert "no detection in 2 images scores above 0.05" in text
    assert "  background: everything is taken for it, the highest score anywhere is " in text
    assert "  learning rate: 1e-09 moves no weight: raise it (--lr)" in text
    assert "masks:" not in text
    assert session.diagnosed
    assert "nothing is found" not in said_of(session, caplog)  # said once


@pytest.mark.parametrize("schedule", ["cosine", "steps"])
def test_the_end_of_a_schedule_is_no_low_learning_rate(
    started: Callable[..., Session], schedule: str, caplog: pytest.LogCaptureFixture
) -> None:
    session = started(f"--set=train.schedule={schedule}", "--set=train.gamma=1e-7")
    silenced(session)
    session.learner.progress.iteration = 100
    text = said_of(session, caplog)
    assert "nothing is found after 100 steps" in text
    assert "moves no weight" not in text


def test_silent_prototypes(
    started: Callable[..., Session], caplog: pytest.LogCaptureFixture
) -> None:
    session = started()
    model = silenced(session)
    bias = model.network.protonet.project.bias
    assert bias is not None
    bias.data.fill_(-1e6)
    assert "  masks: every prototype is 0 everywhere" in said_of(session, caplog)


def test_anchors_that_meet_nothing(
    started: Callable[..., Session], caplog: pytest.LogCaptureFixture
) -> None:
    session = started("--set=model.anchor_scales=((500,),(600,),(700,),(800,),(900,))")
    silenced(session)
    assert "  anchors: 0% of the training objects meet one: yolact anchors " in said_of(
        session, caplog
    )


def test_classes_that_were_never_trained(
    started: Callable[..., Session], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = make_dataset(tmp_path, train=6, val=2)
    for split, label in (("train", 1), ("val", 2)):
        file = folder / "annotations" / f"instances_{split}.json"
        content = json.loads(file.read_text())
        for entry in content["annotations"]:
            entry["category_id"] = label
        file.write_text(json.dumps(content))
    session = started(dataset=folder)
    silenced(session)
    assert "  classes: no training object is a square: call them alike" in said_of(session, caplog)


def test_a_run_says_it_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = make_dataset(tmp_path / "data", train=6, val=2)
    flags = train_flags(folder, tmp_path, 4, "--lr=1e-12", "--set=train.warmup_iterations=0")
    flags = [flag for flag in flags if flag != "--validation_size=-1"]
    flags += ["--set=detect.score_threshold=1.0", "--validation_epoch=2"]  # nothing can be found
    with caplog.at_level(logging.WARNING):
        assert run_command(train.main, flags) == 0
    assert caplog.text.count("nothing is found after 2 steps: no detection in 2 images") == 1
    assert caplog.text.count("nothing is found") == 1
    assert "moves no weight: raise it (--lr)" in caplog.text
