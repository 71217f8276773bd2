"""Batches and steps that do not fit into memory: halved, or ended with what to do, nothing lost."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.tiny import SETTINGS, make_dataset, train_flags

import train
from yolact import Predictor, build_model, get_config
from yolact.checkpoint import read_checkpoint
from yolact.cli.common import run_command
from yolact.engines.memory import BatchLimit
from yolact.engines.pytorch import autocast
from yolact.results.thresholds import Thresholds
from yolact.training.optim import gradient_scaler
from yolact.training.options import TrainOptions
from yolact.training.saver import load_scaler

CPU = torch.device("cpu")
FULL = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB. GPU 0 has")


class Room:
    """A function of a batch for which there is room up to a number of items."""

    def __init__(self, most: int) -> None:
        self.most, self.batches = most, list[int]()

    def __call__(self, items: Any) -> list[int]:
        self.batches.append(len(items))
        if len(items) > self.most:
            raise FULL
        return [10 * item for item in items]


@pytest.mark.parametrize(
    ("items", "room", "batches"),
    [
        (0, 4, []),
        (4, 4, [4]),
        (7, 4, [7, 3, 3, 1]),
        (8, 1, [8, 4, 2, *[1] * 8]),
    ],
)
def test_a_batch_is_halved_until_it_fits(
    items: int, room: int, batches: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    run = Room(room)
    assert BatchLimit().run(run, range(items)) == [10 * item for item in range(items)]
    assert run.batches == batches
    halved = sum(batch > room for batch in batches)
    assert len(caplog.messages) == halved
    if halved:
        assert "going on with" in caplog.text


def test_what_did_not_fit_is_not_tried_again() -> None:
    limit, run = BatchLimit(), Room(2)
    limit.run(run, range(4))
    limit.run(run, range(4))
    assert run.batches == [4, 2, 2, 2, 2]


def test_the_limit_of_another_thread_is_not_raised() -> None:
    limit = BatchLimit()

    def run(items: Any) -> list[int]:
        if len(items) == 8:
            limit.most = 1  # found by another thread meanwhile
            raise FULL
        return list(items)

    assert limit.run(run, range(8)) == list(range(8))
    assert limit.most == 1


def test_a_single_image_that_does_not_fit_is_an_error() -> None:
    with pytest.raises(torch.OutOfMemoryError):
        BatchLimit().run(Room(0), range(3))


def test_a_predictor_finds_the_same_in_halves(caplog: pytest.LogCaptureFixture) -> None:
    torch.manual_seed(0)
    model = build_model(get_config("yolact_resnet18").override(*SETTINGS))
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 255, (48, 64, 3), dtype=np.uint8) for _ in range(5)]

    def network(x: torch.Tensor) -> object:
        if len(x) > 2:
            raise FULL
        return model.network(x)

    expected = Predictor(model).segment(images, Thresholds(top_k=5))
    found = Predictor(model, network=network).segment(images, Thresholds(top_k=5))
    assert "out of memory with 5 images at a time; going on with 2" in caplog.text
    for one, other in zip(expected, found, strict=True):
        torch.testing.assert_close(one.boxes, other.boxes)
        assert torch.equal(one.labels, other.labels)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_dataset(tmp_path_factory.mktemp("scenes"))


def test_training_ends_with_what_to_set_and_keeps_what_it_learned(
    dataset: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    step, taken = train.train_step, list[None]()

    def failing(*args: Any) -> Any:
        taken.append(None)
        if len(taken) == 3:
            raise FULL
        return step(*args)

    monkeypatch.setattr(train, "train_step", failing)
    assert run_command(train.main, train_flags(dataset, tmp_path, 5)) == 1
    (line,) = [text for text in capsys.readouterr().err.splitlines() if text.startswith("error")]
    assert line == (
        "error: CUDA out of memory; --accumulate=2 runs a batch in 2 parts; "
        "--precision=bfloat16 and --set model.image_size=400 need less; --resume=interrupt goes on"
    )
    (saved,) = tmp_path.glob("*_interrupt.pth")
    assert read_checkpoint(saved).training["iteration"] == 2


@pytest.mark.parametrize("image", [1, 2, 3])
def test_a_validation_that_does_not_fit_has_its_own_advice(
    dataset: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    image: int,
) -> None:
    look, seen = Predictor.find_all, list[None]()

    def failing(*args: Any) -> Any:
        seen.append(None)
        if len(seen) == image:
            raise FULL
        return look(*args)

    monkeypatch.setattr(Predictor, "find_all", failing)
    assert run_command(train.main, train_flags(dataset, tmp_path, 2, "--validation_size=3")) == 1
    (line,) = [text for text in capsys.readouterr().err.splitlines() if text.startswith("error")]
    assert line == (
        "error: CUDA out of memory; --precision=bfloat16 and --set model.image_size=400 need less; "
        "--resume=interrupt goes on; --validation_size=-1 leaves validations out"
    )
    (saved,) = tmp_path.glob("*_interrupt.pth")
    assert read_checkpoint(saved).training["iteration"] == 2


@pytest.mark.parametrize(
    ("options", "batch", "parts"),
    [({}, 8, 2), ({"accumulate": 2}, 8, 4), ({"batch_alloc": (5, 3)}, 8, 4), ({}, 1, None)],
)
def test_the_advice_fits_the_batch(options: Any, batch: int, parts: int | None) -> None:
    advice = TrainOptions("toy", **options).less_memory(batch)
    assert ("--accumulate" in advice) == (parts is not None)
    assert parts is None or advice.startswith(f"--accumulate={parts} ")


def test_memory_that_numpy_lacks_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    def main(argv: object) -> None:
        raise MemoryError("Unable to allocate 9 TiB")

    assert run_command(main) == 1
    assert capsys.readouterr().err == "error: Unable to allocate 9 TiB\n"


def test_float16_is_refused_on_a_cpu_before_anything_is_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = train_flags(tmp_path / "absent", tmp_path, 5, "--precision=float16")
    assert run_command(train.main, flags) == 2
    error = capsys.readouterr().err
    assert error == "error: --precision=float16: not on a CPU; use bfloat16 or float32\n"


@pytest.mark.parametrize("precision", ["auto", "float32", "bfloat16"])
def test_only_float16_is_scaled(precision: Any) -> None:
    scaler = gradient_scaler(CPU, precision)
    assert not scaler.is_enabled()
    assert scaler.scale(torch.ones(())) == 1
    assert gradient_scaler(CPU, "float16").is_enabled()
    autocast(CPU, precision)


def scaled_session(dataset: Path, folder: Path, *more: str) -> Any:
    """A session on the CPU in float32 whose gradients are scaled as float16's are."""
    flags = train_flags(dataset, folder, 9, "--no_log", *more)
    session = train.set_up(*train.parse_arguments(None, flags))
    session.learner.scaler = gradient_scaler(CPU, "float16")
    return session


def test_a_scaled_step_is_the_plain_one(dataset: Path, tmp_path: Path) -> None:
    states = []
    for scaled in (False, True):
        session = scaled_session(dataset, tmp_path)
        if not scaled:
            session.learner.scaler = gradient_scaler(CPU, "float32")
        _, finite = train.train_step(session, next(iter(session.loader())))
        assert finite
        states.append(session.learner.model.state_dict())
        session.close()
    for name, value in states[0].items():
        torch.testing.assert_close(states[1][name], value, rtol=1e-4, atol=1e-6)


def test_an_overflow_halves_the_scale_and_leaves_the_weights(dataset: Path, tmp_path: Path) -> None:
    session = scaled_session(dataset, tmp_path)
    learner = session.learner
    scale = learner.scaler.get_scale()
    bias = learner.model.get_parameter("network.head.boxes.bias")
    handle = bias.register_hook(lambda gradient: gradient * float("inf"))
    before, batch = copy.deepcopy(learner.model.state_dict()), next(iter(session.loader()))
    _, finite = train.train_step(session, batch)
    assert not finite
    assert learner.scaler.get_scale() == scale / 2
    assert all(torch.equal(before[n], v) for n, v in learner.model.state_dict().items())
    handle.remove()
    assert train.train_step(session, batch)[1]
    path = session.saver.save()
    session.close()
    state = read_checkpoint(path).training["scaler"]
    restored = gradient_scaler(CPU, "float16")
    load_scaler(restored, state)
    assert restored.get_scale() == scale / 2
    assert restored.state_dict()["_growth_tracker"] == 1


@pytest.mark.parametrize(
    "state", [{"scale": float("nan")}, {"scale": 0}, {"scale": "x"}, {"scale": [1]}, {}]
)
def test_a_scale_of_a_strange_file_is_refused(state: Any) -> None:
    with pytest.raises((ValueError, TypeError, KeyError)):
        load_scaler(gradient_scaler(CPU, "float16"), state)
