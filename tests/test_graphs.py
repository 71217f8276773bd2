"""Recorded networks, by a recorder that works on the CPU."""

import logging
import pickle
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from support.tiny import SETTINGS
from support.tiny_mask_rcnn import build as build_mask_rcnn
from support.tiny_mask_rcnn import picture
from torch import Tensor, nn

from layers.structures import Predictions
from yolact import Predictor, build_model, get_config
from yolact.engines import pytorch as pytorch_engine
from yolact.engines.graphs import (
    CudaRecorder,
    FixedAnchors,
    GraphedNetwork,
    _benchmark,
    recorder_for,
)
from yolact.engines.names import Engine, Precision
from yolact.engines.prepare import prepare, warm_up

CPU = torch.device("cpu")
EXAMPLE = torch.zeros(1, 3, 64, 64)


class CpuRecorder:
    """Replays as a GPU does: from the same input memory into the same output memory."""

    def __init__(self, fails: str = "") -> None:
        self.fails, self.recorded, self.replayed, self.inside = fails, 0, 0, 0

    def record(self, function: Callable[[], Any]) -> tuple[Any, Callable[[], object]]:
        if self.fails:
            raise RuntimeError(self.fails)
        self.recorded += 1
        outputs = function()

        def replay() -> None:
            time.sleep(1e-3)
            assert self.inside == 1  # replays of several threads would mix
            self.replayed += 1
            for old, new in zip(outputs, function(), strict=True):
                if old is not None:
                    old.copy_(new)

        return outputs, replay

    @contextmanager
    def turn(self) -> Iterator[None]:
        self.inside += 1
        yield
        self.inside -= 1


def twice(x: Tensor) -> Predictions:
    return Predictions(2 * x, x + 1, x, x, x, None)


def graphed(recorder: CpuRecorder, run: Callable[[Any], Any] = twice) -> GraphedNetwork:
    return GraphedNetwork(run, run, recorder, EXAMPLE)


def test_no_images() -> None:
    run = graphed(CpuRecorder())
    for _ in range(3):
        assert run(torch.zeros(0, 3, 64, 64)).class_logits.shape == (0, 3, 64, 64)


def test_a_shape_is_recorded_when_it_comes_again() -> None:
    recorder = CpuRecorder()
    run, seen = graphed(recorder), []
    for batch in (1, 1, 1, 8, 3, 8, 2, 2, 1):  # 3 and 2 come too seldom, or too late
        outputs = run(torch.full((batch, 3, 8, 8), float(batch)))
        assert (outputs[0] == 2 * batch).all()
        assert outputs.semantic_logits is None
        seen.append((recorder.recorded, recorder.replayed))
    assert seen == [(0, 0), (1, 1), (1, 2), (1, 2), (1, 2), (2, 3), (2, 3), (2, 3), (2, 4)]


def test_batches_are_recorded_without_being_compiled() -> None:
    recorder, calls = CpuRecorder(), []

    def compiled(x: Tensor) -> Predictions:
        calls.append(len(x))
        return twice(x)

    run = GraphedNetwork(compiled, twice, recorder, EXAMPLE)
    for batch in (1, 1, 8, 8, 1, 8):
        assert (run(torch.ones(batch, 3, 64, 64)).class_logits == 2).all()
    assert recorder.recorded == 2
    assert set(calls) == {1}


def test_warm_up_records_single_images() -> None:
    recorder = CpuRecorder()
    run = graphed(recorder)
    warm_up(run)
    assert recorder.recorded == 1
    run(EXAMPLE)
    assert recorder.recorded == 1


def test_outputs_are_the_callers_own() -> None:
    run = graphed(CpuRecorder())
    run.warm_up()
    first = run(EXAMPLE + 1)
    first.box_deltas.zero_()
    second = run(EXAMPLE + 2)
    assert (first.class_logits == 2).all()
    assert (second.class_logits == 4).all()
    assert (second.box_deltas == 3).all()


@pytest.mark.parametrize("inside", [True, False])
def test_recorded_in_one_mode_and_used_in_the_other(inside: bool) -> None:
    run = graphed(CpuRecorder())
    with torch.inference_mode(inside):
        run.warm_up()
    with torch.inference_mode(not inside):
        assert (run(EXAMPLE + 1).class_logits == 2).all()


def test_threads_get_their_own_results() -> None:
    together = threading.Barrier(4)

    def call(number: int) -> bool:
        if number < 4:
            together.wait()
        return bool((run(EXAMPLE + number).class_logits == 2 * number).all())

    run = graphed(CpuRecorder())
    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(call, range(80)))


@pytest.mark.parametrize("reason", ["out of memory\nand more", ""])
def test_what_cannot_be_recorded_runs_and_is_told_once(
    caplog: pytest.LogCaptureFixture, reason: str
) -> None:
    run = graphed(CpuRecorder(fails=reason or "RuntimeError"))
    with caplog.at_level(logging.WARNING):
        for value in range(4):
            for batch in (1, 2):
                x = torch.full((batch, 3, 8, 8), float(value))
                assert (run(x).class_logits == 2 * value).all()
    told = reason.partition("\n")[0] or "RuntimeError"
    assert caplog.messages == [f"the network runs without CUDA graphs: {told}"]


def test_a_batch_too_large_to_be_recorded_forbids_no_smaller_one() -> None:
    class Small(CpuRecorder):
        def record(self, function: Callable[[], Any]) -> tuple[Any, Callable[[], object]]:
            if len(function()[0]) > 1:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return super().record(function)

    run = graphed(Small())
    for batch in (4, 4, 4, 1, 1, 1):
        run(torch.zeros(batch, 3, 8, 8))
    assert run.recorded == 1


def test_errors_of_the_network_are_no_faults_of_recording(
    caplog: pytest.LogCaptureFixture,
) -> None:
    run = graphed(CpuRecorder())
    for _ in range(2):
        with pytest.raises(TypeError):
            run([1])  # what is no tensor is never recorded
    assert not caplog.messages


@pytest.fixture
def recorders(monkeypatch: pytest.MonkeyPatch) -> list[CpuRecorder]:
    """Let engines on the CPU record, and tell by what."""
    made: list[CpuRecorder] = []

    def recorder(device: torch.device, precision: Precision) -> CpuRecorder:
        made.append(CpuRecorder())
        return made[-1]

    monkeypatch.setattr(pytorch_engine, "recorder_for", recorder)
    return made


def network(seed: int = 0, *settings: str) -> nn.Module:
    torch.manual_seed(seed)
    config = get_config("yolact_resnet18").override(*SETTINGS, *settings)
    return build_model(config).eval().network


def assert_close(found: Predictions, expected: Predictions) -> None:
    for a, b in zip(found[:5], expected[:5], strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-3)


def test_what_finds_in_two_stages_is_not_recorded(recorders: list[CpuRecorder]) -> None:
    model = build_mask_rcnn()
    expected, engine = Predictor(model)([picture(30, 50)]), Engine("eager", CPU, "float32")
    predictor = Predictor(model, network=prepare(model.network, engine, model.image_size))
    predictor.warm_up()
    for _ in range(3):
        (found,) = predictor([picture(30, 50)])
        torch.testing.assert_close(found.boxes, expected[0].boxes)
    assert not any(recorder.recorded for recorder in recorders)


DEFORMABLE = ("model.backbone=resnet50", "model.deformable_interval=1")


@pytest.mark.parametrize("settings", [(), DEFORMABLE], ids=["plain", "deformable"])
def test_a_recorded_network_predicts_the_same(
    recorders: list[CpuRecorder], settings: tuple[str, ...]
) -> None:
    plain = network(0, *settings)
    run = prepare(plain, Engine("eager", CPU, "float32"), 64)
    with torch.no_grad():
        for batch in (1, 2, 1, 2, 3, 1):
            x = torch.randn(batch, 3, 64, 64)
            assert_close(run(x), plain(x))
    assert sum(recorder.replayed for recorder in recorders) == 3


def test_other_sizes(recorders: list[CpuRecorder]) -> None:
    plain = network()
    run = prepare(plain, Engine("eager", CPU, "float32"), 64)
    with torch.no_grad():
        for side in (64, 96, 64, 96, 128, 64):
            x = torch.randn(1, 3, side, side)
            assert_close(run(x), plain(x))


def test_several_models_in_one_process(recorders: list[CpuRecorder]) -> None:
    plain = [network(seed) for seed in range(3)]
    runs = [prepare(each, Engine("eager", CPU, "float32"), 64) for each in plain]
    with torch.no_grad():
        for _ in range(3):
            x = torch.randn(1, 3, 64, 64)
            for each, run in zip(plain, runs, strict=True):
                assert_close(run(x), each(x))


def test_pickled(recorders: list[CpuRecorder]) -> None:
    plain = network()
    run = prepare(plain, Engine("eager", CPU, "float32"), 64)
    warm_up(run)
    other = pickle.loads(pickle.dumps(run))
    with torch.no_grad():
        for _ in range(3):
            assert_close(other(EXAMPLE), plain(EXAMPLE))
    recorder = CudaRecorder(torch.device("cuda:1"), True)
    assert pickle.loads(pickle.dumps(recorder)).__reduce__() == recorder.__reduce__()


def test_a_predictor_warms_up(recorders: list[CpuRecorder]) -> None:
    model = build_model(get_config("yolact_resnet18").override(*SETTINGS))
    run = prepare(model.eval().network, Engine("eager", CPU, "float32"), 64)
    predictor = Predictor(model, network=run)
    predictor.warm_up()
    assert [recorder.recorded for recorder in recorders if recorder.recorded] == [1]


@pytest.mark.slow
def test_a_compiled_network_is_recorded(recorders: list[CpuRecorder]) -> None:
    """Compiled once, for single images; other shapes are recorded, or run, as they are."""
    counters = torch._dynamo.utils.counters
    plain = network()
    run = prepare(plain, Engine("compile", CPU, "float32"), 64)
    warm_up(run)
    before = counters["stats"]["unique_graphs"]
    with torch.no_grad():
        for batch in (1, 2, 1, 2, 3):
            x = torch.randn(batch, 3, 64, 64)
            assert_close(run(x), plain(x))
    assert counters["stats"]["unique_graphs"] == before
    assert sum(recorder.replayed for recorder in recorders) == 4


@pytest.mark.parametrize("name", ["cpu", "mps", "meta"])
def test_nothing_records_elsewhere(name: str) -> None:
    assert recorder_for(torch.device(name), "float32") is None


@pytest.mark.parametrize(("precision", "tries"), [("float32", False), ("float16", True)])
def test_float32_keeps_its_rounding(precision: Precision, tries: bool) -> None:
    cuda = torch.device("cuda")
    recorder = recorder_for(cuda, precision)
    assert isinstance(recorder, CudaRecorder)
    assert recorder.__reduce__()[1] == (cuda, tries)


@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize("chosen", [False, True])
def test_the_trial_of_algorithms_ends_with_the_recording(
    monkeypatch: pytest.MonkeyPatch, before: bool, chosen: bool
) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", before)
    with pytest.raises(KeyError), _benchmark(chosen):
        assert torch.backends.cudnn.benchmark == (before or chosen)
        raise KeyError
    assert torch.backends.cudnn.benchmark == before


def test_fixed_anchors_are_those_of_the_generator() -> None:
    """And stay where they are, for a recording reads them there."""
    generator: Any = network().anchors
    fixed, places = FixedAnchors(generator), set()
    for sides in ((8, 4), (6, 3), (8, 4)):
        features = [torch.zeros(1, 1, side, side) for side in sides]
        features += [torch.zeros(1, 1, 1, 1)] * (len(generator.sizes) - 2)
        torch.testing.assert_close(fixed(features), generator(features))
        fixed(features).zero_()  # the caller's own
        assert fixed.anchors is not None
        places.add(fixed.anchors.data_ptr())
    assert len(places) == 1
    assert not fixed.state_dict()
