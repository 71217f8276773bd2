import os
import pickletools
import signal
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from yolact import Yolact, get_config
from yolact.checkpoint import Checkpoint, read_checkpoint
from yolact.training.interrupt import stop_requested
from yolact.training.log import Console
from yolact.training.optim import AveragedWeights
from yolact.training.saver import Saver, restore
from yolact.training.state import Learner, Progress

CONFIG = replace(get_config("yolact_resnet18"), name="toy").override("train.batch_size=4")


@pytest.fixture
def saver(tmp_path: Path) -> Saver:
    """Of a model with one layer."""
    return make_saver(tmp_path)


def make_saver(
    folder: Path, keep_latest: bool = False, interval: int = 100_000, averaged: bool = False
) -> Saver:
    model: Any = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    average = AveragedWeights(model, 0.9) if averaged else None
    learner = Learner(CONFIG, model, optimizer, images_per_epoch=10, average=average)
    return Saver(folder, "toy", learner, keep_latest, interval)


def names(folder: Path) -> list[str]:
    return sorted(path.name.removesuffix(".pth") for path in folder.iterdir())


@pytest.mark.parametrize(("iteration", "epoch"), [(0, 0), (1, 0), (2, 0), (3, 1), (5, 2), (25, 10)])
def test_epochs_completed(saver: Saver, iteration: int, epoch: int) -> None:
    saver.learner.progress.iteration = iteration  # four of ten images each
    assert saver.learner.epoch == epoch


@pytest.mark.parametrize(
    ("keep_latest", "interval", "kept"),
    [
        (False, 20, ["toy_12_30", "toy_16_40", "toy_20_50", "toy_4_10", "toy_8_20"]),
        (True, 0, ["toy_20_50"]),
        (True, 100, ["toy_20_50"]),
        (True, 20, ["toy_16_40", "toy_20_50", "toy_8_20"]),
    ],
)
def test_keep_latest(tmp_path: Path, keep_latest: bool, interval: int, kept: list[str]) -> None:
    saver = make_saver(tmp_path, keep_latest, interval)
    for iteration in (10, 20, 30, 40, 50):
        saver.learner.progress.iteration = iteration
        path = saver.save()
        assert path.is_file()
    assert names(tmp_path) == kept


def test_keep_latest_leaves_other_files(tmp_path: Path) -> None:
    others = ["other_1_5", "toy_best", "toy_1_5_interrupt"]
    for name in others:
        (tmp_path / f"{name}.pth").touch()
    saver = make_saver(tmp_path, keep_latest=True)
    for iteration in (10, 20):
        saver.learner.progress.iteration = iteration
        saver.save()
    assert names(tmp_path) == sorted([*others, "toy_8_20"])


def test_saving_twice_at_one_iteration_keeps_the_file(tmp_path: Path) -> None:
    saver = make_saver(tmp_path, keep_latest=True)
    saver.learner.progress.iteration = 10
    saver.save()
    saver.save()
    assert names(tmp_path) == ["toy_4_10"]


def test_best(saver: Saver) -> None:
    weights = []
    for iteration, mask_ap in ((1, 0.0), (2, 20.0), (3, 10.0), (4, 20.0), (5, 20.5)):
        saver.learner.progress.iteration = iteration
        saver.save_best(mask_ap)
        checkpoint = read_checkpoint(saver.folder / "toy_best.pth")
        weights.append((checkpoint.training["iteration"], checkpoint.training["best_ap"]))
    assert weights == [(1, 0.0), (2, 20.0), (2, 20.0), (2, 20.0), (5, 20.5)]
    assert names(saver.folder) == ["toy_best"]


@pytest.mark.parametrize("mask_ap", [-1.0, float("nan")])
def test_no_result_is_not_the_best(saver: Saver, mask_ap: float) -> None:
    saver.save_best(mask_ap)
    assert names(saver.folder) == []


def test_an_interrupted_checkpoint_replaces_older_ones(saver: Saver) -> None:
    for iteration in (10, 20):
        saver.learner.progress.iteration = iteration
        saver.save()
        saver.save_interrupted()
    saver.save_interrupted()
    assert names(saver.folder) == ["toy_4_10", "toy_8_20", "toy_8_20_interrupt"]


def step(saver: Saver) -> None:
    learner, x = saver.learner, torch.randn(3, 2)
    learner.optimizer.zero_grad()
    learner.model.get_submodule("")(x).square().mean().backward()
    learner.optimizer.step()
    if learner.average is not None:
        learner.average.update_parameters(learner.model)
    learner.progress.iteration += 1


@pytest.mark.parametrize("averaged", [False, True])
def test_a_restored_run_goes_on_as_if_never_stopped(tmp_path: Path, averaged: bool) -> None:
    torch.manual_seed(0)
    first = make_saver(tmp_path, averaged=averaged)
    step(first)
    path = first.save()
    step(first)

    second = make_saver(tmp_path, averaged=averaged)
    checkpoint = read_checkpoint(path)
    for model in {second.learner.model, second.learner.evaluated_model}:
        model.load_state_dict(checkpoint.model)
    torch.manual_seed(99)
    restore(checkpoint, second.learner)
    assert second.learner.progress == Progress(1, -1.0)
    step(second)
    for one, two in (
        (first.learner.model, second.learner.model),
        (first.learner.evaluated_model, second.learner.evaluated_model),
    ):
        assert all(map(torch.equal, one.parameters(), two.parameters()))
    assert second.learner.progress == first.learner.progress


def test_a_resumed_run_takes_new_settings_of_the_optimizer(tmp_path: Path) -> None:
    first = make_saver(tmp_path)
    step(first)
    path = first.save()
    second = make_saver(tmp_path)
    (group,) = second.learner.optimizer.param_groups
    group["weight_decay"] = 0.25
    restore(read_checkpoint(path), second.learner)
    (group,) = second.learner.optimizer.param_groups
    assert group["weight_decay"] == 0.25
    assert second.learner.optimizer.state


def test_a_checkpoint_holds_the_average_and_beside_it_the_weights(tmp_path: Path) -> None:
    saver = make_saver(tmp_path, averaged=True)
    for _ in range(3):
        step(saver)
    checkpoint = read_checkpoint(saver.save())
    learner = saver.learner
    assert torch.equal(checkpoint.model["weight"], learner.evaluated_model.get_parameter("weight"))
    kept = checkpoint.training["weights"]["weight"]
    assert torch.equal(kept, learner.model.get_parameter("weight"))
    assert not torch.equal(kept, checkpoint.model["weight"])


@pytest.mark.parametrize(
    ("training", "name", "start", "expected"),
    [
        ({}, "model.pth", -1, Progress(0, -1.0)),
        ({}, "yolact_base_54_800000.pth", -1, Progress(800_000, -1.0)),
        ({}, "toy_1_30_interrupt.pth", -1, Progress(30, -1.0)),
        ({}, "yolact_base_54_800000.pth", 0, Progress(0, -1.0)),
        ({}, "yolact_base_54_800000.pth", 12, Progress(12, -1.0)),
        ({"iteration": 5, "best_ap": 30.5}, "toy_1_4.pth", -1, Progress(5, 30.5)),
        ({"iteration": 5, "best_ap": 30.5}, "toy_1_4.pth", 7, Progress(7, 30.5)),
        (vars(Progress(9, 30.5, 8, 7, 2)), "toy_1_4.pth", -1, Progress(9, 30.5, 8, 7, 2)),
        ({"iteration": 5, "best_ap": 30.5}, "toy_1_4.pth", 0, Progress(0, -1.0)),
    ],
)
def test_where_a_run_goes_on(
    saver: Saver, training: dict[str, Any], name: str, start: int, expected: Progress
) -> None:
    checkpoint = Checkpoint(Path(name), {}, official=not training, training=training)
    saver.learner.progress = Progress(max(start, 0))
    restore(checkpoint, saver.learner, start)
    assert saver.learner.progress == expected


@pytest.mark.parametrize(
    ("setting", "best"),
    [("dataset=coco2017", 30.5), ("dataset=mine", -1.0), ("data.crowd=objects", -1.0)],
)
def test_the_best_ap_is_of_the_same_images(
    saver: Saver, setting: str, best: float, caplog: pytest.LogCaptureFixture
) -> None:
    state = {"iteration": 5, "best_ap": 30.5, "validated": 5, "stale": 2}
    saver.learner.config = CONFIG.override(setting)
    restore(Checkpoint(Path("toy_1_5.pth"), {}, False, CONFIG, state), saver.learner)
    progress = saver.learner.progress
    assert progress.best_ap == best
    assert (progress.validated, progress.stale) == ((5, 2) if best > 0 else (-1, 0))
    assert ("30.5, is of other images (coco2017): the next" in caplog.text) == (best < 0)


def gathered(value: object) -> dict[str, Any]:
    return {"state": {0: {"momentum_buffer": value}}, "param_groups": [{"params": [0, 1]}]}


@pytest.mark.parametrize(
    "training",
    [
        {"optimizer": {}},
        {"optimizer": 3},
        {"optimizer": {"state": {}, "param_groups": []}},
        {"optimizer": {"state": {}, "param_groups": [{"params": [0]}]}},
        {"optimizer": gathered(torch.zeros(7))},
        {"optimizer": gathered(torch.zeros(1, dtype=torch.float16).expand(2**30))},
        {"optimizer": gathered("text")},
        {"random": torch.zeros(3)},
        {"random": "seed"},
        {"iteration": "many"},
        {"iteration": float("inf")},
        {"iteration": float("nan")},
        {"iteration": -5},
        {"validated": 1e300},
        {"stale": -1},
        {"best_ap": None},
        {"weights": {}},
        {"weights": 3},
    ],
)
def test_a_state_that_does_not_fit(saver: Saver, training: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="toy_1_4.pth: cannot resume from it"):
        restore(Checkpoint(Path("toy_1_4.pth"), {}, False, training=training), saver.learner)


def test_console_line_of_the_original() -> None:
    console = Console(832_000, Yolact.loss_letters)
    console.update({"box": 3.808, "confidence": 2.416, "mask": 4.821, "semantic": 0.049}, 0.478)
    assert console.line(2, 2930) == (
        "[  2]    2930 || B: 3.808 | C: 2.416 | M: 4.821 | S: 0.049 | T: 11.094 "
        "|| ETA: 4 days, 14:04:55 || timer: 0.478"
    )


def test_console_averages() -> None:
    console = Console(100, Yolact.loss_letters)
    for value in (1.0, 2.0, float("nan"), 6.0):
        console.update({"box": value, "mask_iou": 1.0}, value)
    line = console.line(0, 90)
    assert line == "[  0]      90 || B: 3.000 | I: 1.000 | T: 4.000 || ETA: 0:00:30 || timer: 3.000"


@pytest.fixture
def handlers() -> Iterator[None]:
    """Check that the handlers are put back, and put them back in any case."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.getsignal(number) for number in numbers}
    yield
    after = {number: signal.getsignal(number) for number in numbers}
    for number, handler in before.items():
        signal.signal(number, handler)
    assert after == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_only_asks(handlers: None, number: signal.Signals) -> None:
    with stop_requested() as stop:
        assert not stop.is_set()
        os.kill(os.getpid(), number)
        assert stop.wait(5)


@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM])
def test_a_second_ctrl_c_stops_at_once(handlers: None, first: signal.Signals) -> None:
    with pytest.raises(KeyboardInterrupt), stop_requested() as stop:
        os.kill(os.getpid(), first)
        assert stop.wait(5)
        os.kill(os.getpid(), signal.SIGINT)
        threading.Event().wait(5)


def test_handlers_return_after_an_error(handlers: None) -> None:
    with pytest.raises(RuntimeError, match="loss"), stop_requested():
        raise RuntimeError("loss")


def test_other_threads_do_without(handlers: None) -> None:
    seen: list[bool] = []

    def work() -> None:
        with stop_requested() as stop:
            seen.append(stop.is_set())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(5)
    assert seen == [False]


def test_a_checkpoint_names_no_class_of_ours(tmp_path: Path) -> None:
    """Pickled class paths would differ between a checkout and the wheel."""
    with zipfile.ZipFile(make_saver(tmp_path, averaged=True).save()) as archive:
        (pickled,) = (name for name in archive.namelist() if name.endswith("data.pkl"))
        opcodes = pickletools.genops(archive.read(pickled))
        classes = {str(value) for opcode, value, _ in opcodes if opcode.name == "GLOBAL"}
    assert {name.split(".")[0].split(" ")[0] for name in classes} == {"collections", "torch"}
