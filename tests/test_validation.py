"""Validation while training: when, on which images, and what it leaves as it was."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from threading import Event

import pytest
from support.coco_rectangles import TRUTH, evaluated, ground_truth, perfect, random_detections
from support.tiny import make_dataset, train_flags

import train
from data.shapes.scenes import ShapeScenes
from yolact import Config, Detections, distributed
from yolact.checkpoint import read_checkpoint
from yolact.cli.train_flags import parse_arguments
from yolact.training import validation
from yolact.training.interrupt import Stopped, save_on_error
from yolact.training.record import RunFiles
from yolact.training.setup import Session, set_up
from yolact.training.state import Progress
from yolact.training.validation import (
    images_to_validate,
    validate,
    validation_due,
    validation_missed,
    warn_of_crowded_images,
    with_best_threshold,
)


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Session:
    """Of ten images, four a step, for 100 steps."""
    folder = make_dataset(tmp_path_factory.mktemp("scenes"), train=10, val=2)
    more = ["--batch_size=4", "--validation_size=2", "--no_log"]
    more += ["--set=train.ema_decay=0.9"]
    return set_up(*parse_arguments(None, train_flags(folder, folder / "kept", 100, *more)))


def options_changed(session: Session, **changes: object) -> Session:
    return replace(session, options=replace(session.options, **changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("epochs", "due"),
    [
        (-1, []),
        (0, []),
        (1, [3, 5, 8, 10, 13, 15, 18, 20]),  # the steps that complete 10, 20, 30 ... images
        (2, [5, 10, 15, 20]),
        (None, [5, 10, 15, 20]),  # every second epoch, since that is at most 20 times in all
    ],
)
def test_when(session: Session, epochs: int | None, due: list[int]) -> None:
    session = options_changed(session, validation_epoch=epochs)
    found = []
    for iteration in range(1, 21):
        session.learner.progress.iteration = iteration
        if validation_due(session):
            found.append(iteration)
    session.learner.progress.iteration = 0
    assert found == due


def test_small_data_is_validated_at_most_20_times(session: Session) -> None:
    session = options_changed(session, validation_epoch=None)
    train = session.learner.config.override("train.max_iterations=1000")
    before, session.learner.config = session.learner.config, train
    count = 0
    for iteration in range(1, 1001):
        session.learner.progress.iteration = iteration
        count += validation_due(session)
    session.learner.config, session.learner.progress.iteration = before, 0
    assert count == 20


@pytest.mark.parametrize(("count", "world"), [(0, 1), (0, 2), (1, 2), (5, 1), (5, 2), (9, 3)])
def test_processes_share_the_images(
    monkeypatch: pytest.MonkeyPatch, count: int, world: int
) -> None:
    scenes = ShapeScenes(7, 64)
    alone = images_to_validate(scenes, count)
    assert len(alone) == len(set(alone)) == min(count, 7)
    monkeypatch.setattr(distributed, "world_size", lambda: world)
    shares = []
    for rank in range(world):
        monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
        shares.append(images_to_validate(scenes, count))
    assert sorted(sum(shares, [])) == sorted(alone)
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@pytest.mark.parametrize("averaged", [True, False])
def test_a_validation_leaves_the_model_in_training(session: Session, averaged: bool) -> None:
    learner = session.learner if averaged else replace(session.learner, average=None)
    session = replace(session, learner=learner)
    metrics = validate(session, Event())
    assert metrics is not None
    assert learner.model.training
    assert learner.evaluated_model.training == (not averaged)
    assert session.evaluator is not None
    assert len(session.evaluator.results.images) == 2
    assert learner.progress.validated == learner.progress.iteration
    learner.progress.validated = -1
    stop = Event()
    stop.set()
    with pytest.raises(Stopped):
        validate(session, stop)
    assert learner.model.training
    assert learner.progress.validated == -1


@pytest.mark.parametrize(
    ("found", "score"), [({}, 0.2), ({5: random_detections(0)[5]}, 0.2), (perfect(), 0.69)]
)
def test_the_score_of_the_best_f1_is_that_from_which_objects_are_shown(
    found: dict[int, Detections], score: float
) -> None:
    config = Config("mine", score_threshold=0.2)
    metrics = evaluated(ground_truth(TRUTH), found).summarize()
    assert with_best_threshold(config, metrics.mask) == replace(config, score_threshold=score)


def test_without_outlines_boxes_decide() -> None:
    entries = [{**entry, "segmentation": []} for entry in TRUTH]
    metrics = evaluated(ground_truth(entries), perfect()).summarize()
    scores = validation.main_scores(metrics)
    assert scores is metrics.box
    assert scores.overlaps["all"] > 0
    assert with_best_threshold(Config("mine"), scores).score_threshold == 0.69
    whole = evaluated(ground_truth(TRUTH), perfect()).summarize()
    assert validation.main_scores(whole) is whole.mask


def test_the_checkpoint_holds_the_score_of_its_validation(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, learner = session.learner.config, session.learner
    learner.progress.best_ap = -1.0
    scores = iter((0.3, 0.4))

    def measured(config: Config, _: object) -> Config:
        return replace(config, score_threshold=next(scores))

    monkeypatch.setattr(validation, "with_best_threshold", measured)
    first = session.saver.save()
    validate(session, Event())
    learner.progress.best_ap = 100.0  # the next one is worse
    validate(session, Event())
    assert session.saver.save(again=True) == first == session.saver.save()
    stored = [
        read_checkpoint(path).preset().score_threshold for path in (session.saver.best, first)
    ]
    assert stored == [0.3, 0.4]
    learner.config = before


@pytest.mark.parametrize("part", ["saver.save_best", "log.validation"])
def test_a_full_disk_does_not_lose_the_table(
    session: Session,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    part: str,
) -> None:
    def full(*args: object, **more: object) -> None:
        raise OSError("no space left on device")

    owner, name = part.split(".")
    monkeypatch.setattr(getattr(session, owner), name, full)
    with pytest.raises(OSError, match="no space"):
        validate(session, Event())
    assert capsys.readouterr().out.count("mask |") == 1


@pytest.mark.parametrize("ends", ["at the last step", "early"])
def test_the_files_of_a_run_are_closed(
    session: Session, monkeypatch: pytest.MonkeyPatch, ends: str
) -> None:
    closed: list[bool] = []
    files = RunFiles(session.options.folder)
    monkeypatch.setattr(files, "close", lambda: closed.append(True))

    def diverge(*args: object) -> None:
        raise FloatingPointError("diverged")

    monkeypatch.setattr(train, "train_step", diverge)
    monkeypatch.setattr(train, "print_results", lambda *args: None)
    monkeypatch.setattr(session.saver, "save", lambda: None)
    last = 1 if ends == "early" else 0
    config = session.learner.config.override(f"train.max_iterations={last}")
    learner = replace(session.learner, config=config)
    short = replace(session, files=files, learner=learner, val_data=None)
    expected = pytest.raises(FloatingPointError) if ends == "early" else nullcontext()
    with expected:
        train.train(short)
    assert closed == [True]


@pytest.mark.parametrize(
    ("error", "iteration", "wanted", "saved"),
    [
        (Stopped(), 3, True, True),
        (RuntimeError("no memory"), 3, True, True),
        (Stopped(), 0, True, False),  # nothing was learned
        (Stopped(), 3, False, False),
        (FloatingPointError("diverged"), 3, True, False),
        (KeyboardInterrupt(), 3, True, False),  # in the middle of a step
    ],
)
def test_what_is_saved_when_a_run_ends_early(
    session: Session, error: BaseException, iteration: int, wanted: bool, saved: bool
) -> None:
    saver = session.saver
    for old in saver.folder.glob("*_interrupt.pth"):
        old.unlink()
    session.learner.progress.iteration = iteration
    with pytest.raises(type(error)), save_on_error(saver, wanted, Event()):
        raise error
    session.learner.progress.iteration = 0
    assert bool(list(saver.folder.glob("*_interrupt.pth"))) == saved


@pytest.mark.parametrize(
    ("asked", "ends"), [(False, ChildProcessError), (True, Stopped)], ids=["killed", "stopped"]
)
def test_a_signal_to_all_processes_of_a_run_stops_it(
    session: Session, asked: bool, ends: type[BaseException]
) -> None:
    stop = Event()
    with pytest.raises(ends), save_on_error(session.saver, False, stop):
        if asked:
            stop.set()
        raise RuntimeError("DataLoader worker (pid 17) is killed by signal: Terminated.")


@pytest.mark.parametrize(
    ("iteration", "validated", "missed"),
    [(0, -1, False), (4, -1, False), (5, -1, True), (5, 3, True), (5, 5, False)],
)
def test_a_validation_that_was_broken_off_is_made_up_for(
    session: Session, iteration: int, validated: int, missed: bool
) -> None:
    learner = replace(session.learner, progress=Progress(iteration, validated=validated))
    assert validation_missed(replace(session, learner=learner)) == missed


def test_no_images_no_validation(session: Session) -> None:
    without = replace(session, val_data=None)
    assert validate(without, Event()) is None
    assert not validation_due(without)
    assert not validation_missed(without)


@pytest.mark.parametrize(
    ("max_detections", "told"), [(100, False), (1, True)], ids=["all are found", "too few"]
)
def test_more_objects_than_can_be_found_are_told(
    session: Session, caplog: pytest.LogCaptureFixture, max_detections: int, told: bool
) -> None:
    before = session.learner.config
    session.learner.config = before.override(f"detect.max_detections={max_detections}")
    warn_of_crowded_images(session)
    warn_of_crowded_images(replace(session, val_data=None))
    session.learner.config = before
    assert ("more than 1 objects" in caplog.text) == told
    assert ("; raise detect.max_detections and detect.top_k (--set)" in caplog.text) == told
