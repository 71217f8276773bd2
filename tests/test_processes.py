"""A predictor in other processes: pickled, spawned, forked."""

from __future__ import annotations

import multiprocessing
import pickle
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.tiny import SETTINGS

from yolact import Detections, Predictor, build_model, get_config
from yolact.engines.exported import metadata, write_openvino
from yolact.engines.names import Engine, EngineName, Precision
from yolact.engines.openvino import convert_cached
from yolact.engines.prepare import prepare

Job = Callable[[Sequence[Predictor], int, Connection], None]
CPU = torch.device("cpu")
CONFIG = get_config("yolact_resnet18").override(*SETTINGS, "detect.score_threshold=0.0")
IMAGE = np.random.default_rng(0).integers(0, 256, (48, 80, 3), dtype=np.uint8)
PATIENCE = 120.0  # seconds, for a machine that is busy
ENGINES: list[EngineName] = ["plain", "eager", "openvino"]


def make_predictor(engine: EngineName, precision: Precision = "float32") -> Predictor:
    torch.manual_seed(0)
    model = build_model(CONFIG).eval()
    network = prepare(model.network, Engine(engine, CPU, precision), model.image_size)
    return Predictor(model, network=network)


def assert_same(found: Detections, expected: Detections) -> None:
    assert len(found) == len(expected) > 0
    for name in ("boxes", "scores", "labels", "masks"):
        assert torch.equal(getattr(found, name), getattr(expected, name)), name


@pytest.fixture(scope="module")
def predictors() -> dict[str, Predictor]:
    return {engine: make_predictor(engine) for engine in ENGINES}


@pytest.mark.parametrize("engine", ENGINES)
def test_a_pickled_predictor_finds_the_same(
    predictors: dict[str, Predictor], engine: EngineName
) -> None:
    again = pickle.loads(pickle.dumps(predictors[engine]))
    assert_same(again(IMAGE, 0.0, 20), predictors[engine](IMAGE, 0.0, 20))


@pytest.mark.parametrize(
    ("engine", "precision"),
    [
        ("eager", "bfloat16"),
        pytest.param("compile", "float32", marks=pytest.mark.slow),
    ],
)
def test_so_does_one_that_is_prepared_otherwise(engine: EngineName, precision: Precision) -> None:
    predictor = make_predictor(engine, precision)
    again = pickle.loads(pickle.dumps(predictor))
    assert_same(again(IMAGE, 0.0, 20), predictor(IMAGE, 0.0, 20))


def test_a_predictor_of_its_model_alone_is_pickled() -> None:
    predictor = Predictor(build_model(CONFIG))
    assert_same(pickle.loads(pickle.dumps(predictor))(IMAGE, 0.0), predictor(IMAGE, 0.0))


def test_an_exported_file_need_not_last(tmp_path: Path) -> None:
    model, file = build_model(CONFIG).eval(), tmp_path / "m.xml"
    write_openvino(convert_cached(model.network, model.image_size), metadata(model, CONFIG), file)
    predictor = Predictor.from_checkpoint(file, precision="float32")
    pickled = pickle.dumps(predictor)
    file.unlink()
    assert_same(pickle.loads(pickled)(IMAGE, 0.0), predictor(IMAGE, 0.0))


def test_four_threads_share_one_that_was_pickled(predictors: dict[str, Predictor]) -> None:
    predictor = predictors["openvino"]
    expected = predictor(IMAGE, 0.0, 5)
    many: Predictor = pickle.loads(pickle.dumps(predictor.for_many()))
    assert many.workers == predictor.for_many().workers
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(lambda _: many(IMAGE, 0.0, 5), range(8)):
            torch.testing.assert_close(found.boxes, expected.boxes, atol=1e-2, rtol=0)


def predict(predictors: Sequence[Predictor], threads: int, answer: Connection) -> None:
    """Send the scores that each predictor finds, or the error, as a process of its own."""
    torch.set_num_threads(threads)
    for predictor in predictors:
        try:
            answer.send(predictor(IMAGE, 0.0, 5).scores.tolist())
        except RuntimeError as error:
            answer.send(str(error))


def predict_forked(predictors: Sequence[Predictor], threads: int, answer: Connection) -> None:
    """Send the scores that each predictor finds, and what processes forked from this one find."""
    torch.set_num_threads(threads)
    answer.send([predictor(IMAGE, 0.0, 5).scores.tolist() for predictor in predictors])
    answer.send([in_process("fork", predictors, number) for number in (1, threads)])
    pool = partial(predict_unpickled, pickle.dumps(predictors))
    answer.send([in_process("fork", predictors, number, pool) for number in (1, threads)])


def predict_unpickled(pickled: bytes, _: object, threads: int, answer: Connection) -> None:
    """Do as `predict` with predictors that are unpickled here, as a pool of processes does."""
    torch.set_num_threads(threads)
    if threads > 1:
        with pytest.raises(RuntimeError, match="this process was forked"):
            Predictor.from_checkpoint("none.pth")
    predict(pickle.loads(pickled), threads, answer)


def in_process(
    method: str,
    predictors: Sequence[Predictor],
    threads: int = 1,
    job: Job = predict,
    count: int = 0,
) -> list[Any]:
    """Do a job in a process, and return its answers, by default one for each predictor."""
    context = multiprocessing.get_context(method)
    here, there = context.Pipe()
    process = context.Process(target=job, args=(predictors, threads, there))
    # Where the process dies before it has read its arguments, `start` waits for ever.
    start = threading.Thread(target=process.start, daemon=True)
    start.start()
    start.join(PATIENCE)
    assert not start.is_alive(), "the process does not read its arguments"
    there.close()  # so that its death is noticed
    try:
        answers: list[Any] = []
        while len(answers) < (count or len(predictors)):
            assert here.poll(PATIENCE), "the process waits for ever"
            answers.append(here.recv())
        return answers
    finally:
        process.kill()
        process.join()


def test_a_spawned_process_takes_predictors(predictors: dict[str, Predictor]) -> None:
    several = list(predictors.values())
    expected = [predictor(IMAGE, 0.0, 5).scores.tolist() for predictor in several]
    for found, scores in zip(in_process("spawn", several), expected, strict=True):
        assert found == pytest.approx(scores, abs=1e-4)


FORKS = "fork" in multiprocessing.get_all_start_methods()


@pytest.mark.skipif(not FORKS, reason="nothing forks here")
def test_a_forked_process_never_waits_for_threads(predictors: dict[str, Predictor]) -> None:
    """It is forked from a new process, where no other library has threads."""
    both = [predictors["openvino"], predictors["eager"]]
    expected, *answers = in_process("spawn", both, threads=2, job=predict_forked, count=3)
    (inherited, _), (unpickled, _) = answers
    assert "forked after a predictor was made" in str(inherited[0])
    assert inherited[1] == pytest.approx(expected[1], abs=1e-4)
    assert np.array(unpickled) == pytest.approx(np.array(expected), abs=1e-4)
    for _, two in answers:
        for refused in two:
            assert "multiprocessing.get_context('spawn')" in str(refused)
