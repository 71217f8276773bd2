"""Engines: every one of them gives what plain PyTorch gives in float32, in any thread; how fast."""

from __future__ import annotations

import pickle
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from data.images import Image
from data.shapes.clip import shape_clip
from layers.blocks import DeformableConv2d
from layers.structures import Predictions
from yolact import Predictor, load_model
from yolact.engines.choose import onnxruntime_providers
from yolact.engines.graphs import CudaRecorder, GraphedNetwork
from yolact.engines.names import (
    CUDA_PROVIDER,
    TENSORRT_PROVIDER,
    Engine,
    EngineName,
    Precision,
    RunNetwork,
)
from yolact.engines.prepare import prepare, warm_up
from yolact.engines.pytorch import autocast
from yolact.models.segmenter import AnySegmenter
from yolact.results.thresholds import Thresholds
from yolact.timing import synchronize

from .alike import SCORE, TOLERANCES, assert_objects, assert_outputs, precisions
from .clock import longest, random_input, report_times
from .material import needs, needs_cuda, untrained
from .report import NotHere, Report

TRAINED = "yolact_resnet18_shapes"
SMALL = "model.image_size=256"


@cache
def pictures(count: int) -> list[Image]:
    """Return (384, 512, 3) pictures, each of other objects."""
    return [next(shape_clip(1, (384, 512), seed)) for seed in range(count)]


def trained(device: torch.device) -> AnySegmenter:
    """Return the bundled model of generated shapes."""
    return load_model(TRAINED, device=str(device))


def exact(model: AnySegmenter, x: Tensor) -> Predictions:
    """Return a network's outputs in float32, without TF32."""
    with torch.no_grad(), autocast(model.device, "float32"):
        outputs: Predictions = model.network(x)
    return outputs


def engine_of(
    model: AnySegmenter, name: EngineName, precision: Precision, warm: bool = True
) -> RunNetwork:
    """Return a model's network, ready to run."""
    run = prepare(model.network, Engine(name, model.device, precision), model.image_size)
    if warm:
        warm_up(run)
    return run


def graphs_of(run: Any) -> GraphedNetwork:
    """Return what records a network; `run` is from `prepare`, for a GPU."""
    found = getattr(run, "run", run)
    assert isinstance(found, GraphedNetwork), type(found)
    return found


def compare_engine(
    model: AnySegmenter, run: RunNetwork, precision: Precision, report: Report, name: str
) -> None:
    """Compare an engine with the model in float32: outputs, and objects of several scenes."""
    exact, other = Predictor(model), Predictor(model, network=run)
    outputs, overlap = TOLERANCES[precision]
    worst, least = 0.0, 1.0
    for image in pictures(4):
        x = model.preprocess([torch.from_numpy(image).permute(2, 0, 1)])
        with torch.no_grad():
            pair = other.run_network(x), exact.run_network(x)
        worst = max(worst, assert_outputs(*pair, outputs))
        found, expected = (p.segment([image], Thresholds(0.3))[0] for p in (other, exact))
        assert (expected.scores >= SCORE).any()
        least = min(least, assert_objects(found, expected, overlap))
    report.number(f"{name}, {precision}: difference of outputs", worst, "")
    report.number(f"{name}, {precision}: least IoU of masks", least, "")


def check_every_engine_and_precision(device: torch.device, report: Report) -> None:
    """Outputs and objects are those of plain PyTorch in float32."""
    model = trained(device)
    plain = engine_of(model, "plain", "float32")
    compare_engine(model, plain, "float32", report, "plain")
    for precision in precisions(device):
        run = engine_of(model, "eager", precision)
        compare_engine(model, run, precision, report, "eager")


def check_deformable_convolutions(device: torch.device, report: Report) -> None:
    """YOLACT++'s own layers are recorded, too."""
    model = untrained("yolact_plus_resnet50", device, SMALL)
    for module in model.modules():
        if isinstance(module, DeformableConv2d):
            torch.nn.init.normal_(module.offset_mask.weight, std=0.02)
    run = engine_of(model, "eager", "float32")
    with torch.no_grad():
        for _ in range(3):
            x = random_input(model)
            assert_outputs(run(x), exact(model, x), TOLERANCES["float32"][0])
    if device.type == "cuda":
        assert graphs_of(run).recorded == 1


def check_graphs_are_recorded(device: torch.device, report: Report) -> None:
    """Single images at their second time, one batch size more, and nothing else."""
    needs_cuda(device)
    model = trained(device)
    run = graphs_of(engine_of(model, "eager", "float16", warm=False))
    counts = []
    for batch in (1, 1, 4, 4, 2, 2, 1, 3):
        x = random_input(model, batch)
        with torch.no_grad():
            assert_outputs(run(x), exact(model, x), TOLERANCES["float16"][0])
        counts.append(run.recorded)
    assert counts == [0, 1, 1, 2, 2, 2, 2, 2], counts


def check_threads(device: torch.device, report: Report) -> None:
    """Four threads that share a predictor get each their own results, on streams of their own."""
    model = trained(device)
    images = pictures(20 if device.type == "cuda" else 4)
    one = Predictor(model, network=engine_of(model, "eager", "float32"))
    expected = [one.segment([image], Thresholds(0.3))[0] for image in images]
    shared = Predictor(model, network=engine_of(model, "eager", "float32", warm=False))

    def look(thread: int) -> None:
        stream = torch.cuda.Stream(device) if device.type == "cuda" and thread % 2 else None
        with torch.cuda.stream(stream):
            for turn in range(len(images)):
                index = (turn + 5 * thread) % len(images)
                (found,) = shared.segment([images[index]], Thresholds(0.3))
                assert_objects(found, expected[index], TOLERANCES["float32"][1])

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(look, range(4)))


def check_several_models(device: torch.device, report: Report) -> None:
    """Three models in turn, each recorded, do not disturb one another."""
    models = [
        trained(device),
        untrained("yolact_resnet18", device, SMALL),
        untrained("yolact_plus_resnet50", device, SMALL),
    ]
    runs = [engine_of(model, "eager", "float32") for model in models]
    for _ in range(5):
        for model, run in zip(models, runs, strict=True):
            x = random_input(model)
            with torch.no_grad():
                assert_outputs(run(x), exact(model, x), TOLERANCES["float32"][0])


def check_outputs_are_not_overwritten(device: torch.device, report: Report) -> None:
    """What a call has returned stays as it is, whatever comes after."""
    model = trained(device)
    run = engine_of(model, "eager", "float32")
    xs = [random_input(model) for _ in range(5)]
    with torch.no_grad():
        kept = [run(x) for x in xs]
        for x, found in zip(xs, kept, strict=True):
            assert_outputs(found, exact(model, x), TOLERANCES["float32"][0])
        kept[0].prototypes.zero_()
        assert float(run(xs[0]).prototypes.abs().max()) > 0


def check_pickled(device: torch.device, report: Report) -> None:
    """A predictor that went through pickle predicts the same."""
    model = trained(device)
    predictor = Predictor(model, network=engine_of(model, "eager", "float32"))
    other = pickle.loads(pickle.dumps(predictor))
    for image in pictures(3):
        found, expected = (p.segment([image], Thresholds(0.3))[0] for p in (other, predictor))
        assert_objects(found, expected, TOLERANCES["float32"][1])


def check_memory_does_not_grow(device: torch.device, report: Report) -> None:
    """Two hundred calls, with batches of several sizes between them."""
    needs_cuda(device)
    model = trained(device)
    run = engine_of(model, "eager", "float16")
    inputs = [random_input(model, batch) for batch in (1, 1, 1, 4, 3)]

    def many(calls: int) -> int:
        with torch.no_grad():
            for call in range(calls):
                run(inputs[call % len(inputs)])
        synchronize(device)
        return torch.cuda.memory_allocated(device)

    before = many(20)
    assert many(200) == before
    report.number("recorded network, 2 shapes: memory", before / 2**20, "MB")


def check_what_cannot_be_recorded_runs(device: torch.device, report: Report) -> None:
    """A network that waits for its device falls back, in a process of its own."""
    needs_cuda(device)
    done = subprocess.run(
        [sys.executable, "-c", _WAITING, str(device)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("the network runs without CUDA graphs: ") == 1, done.stderr
    report.note(done.stderr.strip().splitlines()[-1])


_WAITING = """
import sys, torch
from layers.blocks import DeformableConv2d
from layers.structures import Predictions
from yolact.engines.graphs import CudaRecorder, GraphedNetwork
device = torch.device(sys.argv[1])
def run(x):
    return Predictions(x * float(x.sum()), x, x, x, x)
x = torch.ones((1, 3, 8, 8), device=device)
network = GraphedNetwork(run, run, CudaRecorder(device, True), x)
for value in range(5):
    found = network(x * value).class_logits
    assert float(found.sum()) == 192.0 * value * 192 * value, found
assert torch.cuda.current_stream() == torch.cuda.default_stream()
"""


def check_compiled(device: torch.device, report: Report) -> None:
    """Compiled, recorded, from several threads; twice in one process; nothing compiled anew."""
    needs_cuda(device)
    models = [trained(device), untrained("yolact_plus_resnet50", device, SMALL)]
    start = time.perf_counter()
    kinds: tuple[Precision, ...] = ("float16", "float32")  # random weights overflow in float16
    runs = [engine_of(model, "compile", kind) for model, kind in zip(models, kinds, strict=True)]
    report.number("two small networks compiled and recorded", time.perf_counter() - start, "s")
    compare_engine(models[0], runs[0], "float16", report, "compile")
    graphs = torch._dynamo.utils.counters["stats"]
    before = graphs["unique_graphs"]

    def look(number: int) -> None:
        model, run, kind = models[number % 2], runs[number % 2], kinds[number % 2]
        for turn in range(6):
            x = random_input(model, 1 + turn // 5)  # the last is a batch
            with torch.no_grad():
                assert_outputs(run(x), exact(model, x), TOLERANCES[kind][0])

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(look, range(4)))
    assert graphs["unique_graphs"] == before, "compiled anew"
    assert [graphs_of(run).recorded for run in runs] == [2, 2]  # single images, and batches


def check_onnxruntime(device: torch.device, report: Report) -> None:
    """An exported file gives the same outputs, by CUDA, and by TensorRT where that is."""
    needs("onnxruntime", "onnx", "onnxscript")
    from yolact.engines.onnx_file import write_onnx
    from yolact.engines.onnxruntime import OnnxRuntimeNetwork

    found = onnxruntime_providers()
    if device.type == "cuda" and CUDA_PROVIDER not in found:
        raise NotHere("an onnxruntime with CUDA's provider")
    model = trained(torch.device("cpu"))
    kinds: list[Precision] = ["float32", *(["float16"] if TENSORRT_PROVIDER in found else [])]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.onnx"
        write_onnx(model, "", path)
        model.to(device)
        for kind in kinds:
            run = OnnxRuntimeNetwork(path, Engine("onnxruntime", device, kind))
            compare_engine(model, run, kind, report, "onnxruntime")
            report_times(report, f"{TRAINED}, onnxruntime, {kind}", run, model)


def measure_yolact_base(device: torch.device, report: Report) -> None:
    """Time the network on single images; what recording and cuDNN's trials are worth."""
    run = time_network("yolact_base", device, report)
    note_kernels("yolact_base", run, device, report)


def measure_yolact_resnet50(device: torch.device, report: Report) -> None:
    """Time the network on single images."""
    time_network("yolact_resnet50", device, report)


def measure_yolact_plus_base(device: torch.device, report: Report) -> None:
    """Time the network on single images."""
    run = time_network("yolact_plus_base", device, report)
    note_kernels("yolact_plus_base", run, device, report)


def measure_compiled_yolact_base(device: torch.device, report: Report) -> None:
    """Time the compiled network on single images."""
    time_compiled("yolact_base", device, report)


def measure_compiled_yolact_plus_base(device: torch.device, report: Report) -> None:
    """Time the compiled network on single images."""
    time_compiled("yolact_plus_base", device, report)


def time_network(preset: str, device: torch.device, report: Report) -> RunNetwork:
    """Time a network as built and by each precision; return the fastest one on a GPU."""
    if device.type == "cpu":
        raise NotHere("a GPU")
    model = untrained(preset, device)
    if device.type == "cuda":  # convolutions in TF32, PyTorch's own choice
        report_times(report, f"{preset}, as built, TF32", model.network, model)
    for precision in precisions(device):
        if precision == "bfloat16" and "base" not in preset:
            continue
        start = time.perf_counter()
        run = engine_of(model, "eager", precision)
        synchronize(device)
        name = f"{preset}, eager, {precision}"
        report.number(f"{name}: made ready in", time.perf_counter() - start, "s")
        report_times(report, name, run, model)
        if precision == "float16" and device.type == "cuda":
            graphs = graphs_of(run)
            assert graphs.recorded == 1, "not recorded"
            report_times(report, f"{name}, not recorded", graphs.unrecorded, model)
            untried = GraphedNetwork(
                graphs.unrecorded,
                graphs.unrecorded,
                CudaRecorder(device, False),
                random_input(model),
            )
            untried.warm_up()
            report_times(report, f"{name}, without cuDNN's trials", untried, model)
            fastest = run
    return fastest if device.type == "cuda" else run


def note_kernels(preset: str, run: RunNetwork, device: torch.device, report: Report) -> None:
    """Note which kernels of a network take longest, on a card."""
    if device.type == "cuda":
        x = graphs_of(run).example
        with torch.no_grad():
            report.note(f"{preset}, float16\n{longest(device, lambda: run(x))}")


def time_compiled(preset: str, device: torch.device, report: Report) -> None:
    """Time a network through `torch.compile`."""
    needs_cuda(device)
    model = untrained(preset, device)
    start = time.perf_counter()
    run = engine_of(model, "compile", "float16")
    synchronize(device)
    name = f"{preset}, compile, float16"
    report.number(f"{name}: made ready in", time.perf_counter() - start, "s")
    assert graphs_of(run).recorded == 1, "not recorded"
    report_times(report, name, run, model)
