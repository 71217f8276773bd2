"""Exported .onnx files through ONNX Runtime."""

import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.tiny import SETTINGS

from yolact import Predictor, build_model, get_config
from yolact.engines import choose, exported
from yolact.engines.exported import engine_for_file, metadata, read_trained
from yolact.engines.names import CUDA_PROVIDER, TENSORRT_PROVIDER, Engine, Precision

onnx = pytest.importorskip("onnx")
runtime = pytest.importorskip("yolact.engines.onnxruntime")

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
CONFIG = get_config("yolact_resnet18").override(*SETTINGS).with_classes(("a", "b", "c"))
# Name -> shape for an image; of four anchors, four classes with the background, two prototypes.
PARTS = {
    "class_logits": (4, 4),
    "box_deltas": (4, 4),
    "coefficients": (4, 2),
    "prototypes": (2, 16, 16),
}
ANCHORS = np.array([[x, y, 0.5, 0.5] for x in (0.3, 0.7) for y in (0.3, 0.7)], np.float32)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a network whose outputs are the first numbers of its input, in order."""
    helper, number = onnx.helper, onnx.TensorProto
    nodes, held, outputs, start = [helper.make_node("Flatten", ["images"], ["flat"])], [], [], 0
    for name, shape in PARTS.items():
        size = int(np.prod(shape))
        for suffix, values in (("from", [start]), ("to", [start + size]), ("axis", [1])):
            held.append(helper.make_tensor(f"{name}_{suffix}", number.INT64, [1], values))
        held.append(helper.make_tensor(f"{name}_as", number.INT64, [len(shape) + 1], [0, *shape]))
        bounds = [f"{name}_{suffix}" for suffix in ("from", "to", "axis")]
        nodes.append(helper.make_node("Slice", ["flat", *bounds], [f"{name}_flat"]))
        nodes.append(helper.make_node("Reshape", [f"{name}_flat", f"{name}_as"], [name]))
        outputs.append(helper.make_tensor_value_info(name, number.FLOAT, ["batch", *shape]))
        start += size
    held.append(onnx.numpy_helper.from_array(ANCHORS, "fixed"))
    nodes.append(helper.make_node("Identity", ["fixed"], ["anchors"]))
    outputs.append(helper.make_tensor_value_info("anchors", number.FLOAT, ANCHORS.shape))
    images = helper.make_tensor_value_info("images", number.FLOAT, ["batch", 3, 64, 64])
    graph = helper.make_graph(nodes, "parts", [images], outputs, held)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    text = metadata(build_model(CONFIG).eval(), CONFIG)
    onnx.helper.set_model_props(model, {exported.KEY: text})
    path = tmp_path_factory.mktemp("onnx") / "parts.onnx"
    onnx.save(model, path)
    return path


@pytest.fixture
def network(file: Path) -> Any:
    return runtime.OnnxRuntimeNetwork(file, Engine("onnxruntime", CPU, "float32"))


def assert_parts(network: Any, x: torch.Tensor) -> None:
    found, start = network(x), 0
    for name, shape in PARTS.items():
        size = int(np.prod(shape))
        expected = x.flatten(1)[:, start : start + size].reshape(-1, *shape)
        torch.testing.assert_close(getattr(found, name), expected, atol=0, rtol=0)
        start += size
    np.testing.assert_array_equal(found.anchors, ANCHORS)


@pytest.mark.parametrize("batch", [1, 3])
def test_outputs(network: Any, batch: int) -> None:
    x = torch.randn(batch, 3, 64, 64)
    assert_parts(network, x)
    assert_parts(network, x.contiguous(memory_format=torch.channels_last))


def test_outputs_of_a_network_for_any_input_size(tmp_path: Path) -> None:
    """How large they are, such a file does not say: here as large as the input."""
    helper, number = onnx.helper, onnx.TensorProto
    names, shape = [*PARTS, "anchors"], ["batch", 3, "height", "width"]
    nodes = [helper.make_node("Identity", ["images"], [name]) for name in names]
    images, *outputs = [
        helper.make_tensor_value_info(name, number.FLOAT, shape) for name in ("images", *names)
    ]
    graph = helper.make_graph(nodes, "open", [images], outputs)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, tmp_path / "open.onnx")
    engine = Engine("onnxruntime", CPU, "float32")
    network = runtime.OnnxRuntimeNetwork(tmp_path / "open.onnx", engine)
    first, second = torch.randn(2, 3, 32, 48), torch.randn(1, 3, 64, 64)
    found = network(first)
    assert torch.equal(network(second).class_logits, second)
    assert torch.equal(found.prototypes, first)  # no output is used twice


def test_outputs_are_the_callers_own(network: Any) -> None:
    x = torch.randn(1, 3, 64, 64)
    first = network(x)
    kept = first.prototypes.clone()
    network(x + 1)
    assert torch.equal(first.prototypes, kept)


def test_threads_and_pickle(network: Any) -> None:
    other = pickle.loads(pickle.dumps(network))
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda x: assert_parts(other, x), torch.randn(16, 1, 3, 64, 64)))


def test_the_same_detections_as_by_openvino(file: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (48, 80, 3), dtype=np.uint8)
    both = [
        Predictor.from_checkpoint(file, "cpu", "float32", engine)(image, 0.0, 20)
        for engine in ("openvino", "onnxruntime")
    ]
    assert len(both[0]) > 0
    torch.testing.assert_close(both[0].boxes, both[1].boxes)
    np.testing.assert_array_equal(both[0].masks, both[1].masks)


def test_without_openvino(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exported, "has_openvino", lambda: False)
    assert read_trained(file).preset().num_classes == 3
    assert engine_for_file(file, CONFIG, "auto", "auto", "auto").name == "onnxruntime"
    broken = file.with_name("broken.onnx")
    broken.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(ValueError, match="not a model exported by yolact export"):
        read_trained(broken)


@pytest.mark.parametrize(
    ("name", "cuda", "device", "found", "chosen"),
    [
        ("a.onnx", False, "auto", (), ("openvino", "cpu", "float32")),
        ("a.onnx", True, "auto", ("CPU",), ("openvino", "cpu", "float32")),
        ("a.xml", True, "auto", (CUDA_PROVIDER,), ("openvino", "cpu", "float32")),
        ("a.onnx", True, "cpu", (CUDA_PROVIDER,), ("openvino", "cpu", "float32")),
        ("a.onnx", True, "auto", (CUDA_PROVIDER,), ("onnxruntime", "cuda", "float32")),
        (
            "a.onnx",
            True,
            "cuda",
            (TENSORRT_PROVIDER, CUDA_PROVIDER),
            ("onnxruntime", "cuda", "float16"),
        ),
    ],
)
def test_who_runs_a_file(
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    cuda: bool,
    device: str,
    found: tuple[str, ...],
    chosen: tuple[str, str, Precision],
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: int(cuda))
    monkeypatch.setattr(choose, "is_fast", lambda *_: False)
    for module in (choose, exported):
        monkeypatch.setattr(module, "onnxruntime_providers", lambda: found)
    engine = engine_for_file(Path(name), CONFIG, device, "auto", "auto")
    assert (engine.name, str(engine.device), engine.precision) == chosen


@pytest.mark.parametrize(
    ("name", "device", "precision", "found", "message"),
    [
        ("a.pth", "cpu", "auto", ("CPU",), "runs .onnx files"),
        ("a.onnx", "cpu", "auto", (), "not installed; pip install onnxruntime"),
        ("a.onnx", "cuda", "auto", ("CPU",), "pip install onnxruntime-gpu for CUDA, or choose dev"),
        ("a.onnx", "cuda", "float16", (CUDA_PROVIDER,), "float16 needs TensorRT"),
        ("a.onnx", "cpu", "bfloat16", ("CPU",), "is float32 in onnxruntime"),
    ],
)
def test_refusals(
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    device: str,
    precision: Precision,
    found: tuple[str, ...],
    message: str,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(choose, "onnxruntime_providers", lambda: found)
    with pytest.raises(ValueError, match=message):
        engine_for_file(Path(name), CONFIG, device, "onnxruntime", precision)


def test_providers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 2)
    (file := tmp_path / "model.onnx").write_bytes(b"weights")

    def names(device: torch.device, precision: Precision) -> list[str]:
        return [name for name, _ in runtime.providers(file, device, precision)]

    assert names(CPU, "float32") == ["CPUExecutionProvider"]
    assert names(CUDA, "float32") == [CUDA_PROVIDER]
    assert names(CUDA, "float16") == [TENSORRT_PROVIDER, CUDA_PROVIDER]
    for name, card in (("cuda:1", "1"), ("cuda", "2")):
        (_, options), *_ = runtime.providers(file, torch.device(name), "float32")
        assert options == {"device_id": card, "use_tf32": "0"}


def test_tensorrt_keeps_nothing_for_other_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    folders = []
    for weights in (b"old", b"new", b"old"):
        (file := tmp_path / "model.onnx").write_bytes(weights)
        (_, options), *_ = runtime.providers(file, CUDA, "float16")
        folders.append(options["trt_engine_cache_path"])
    assert folders[0] == folders[2] != folders[1]


def test_a_provider_that_does_not_load(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ONNX Runtime would go on with the CPU."""
    fallback = [(CUDA_PROVIDER, {}), ("CPUExecutionProvider", {})]
    opened = runtime.open_session
    monkeypatch.setattr(runtime, "providers", lambda *_: fallback)
    monkeypatch.setattr(runtime, "open_session", lambda path, _: opened(path))
    with pytest.raises(ValueError, match="CUDAExecutionProvider does not load"):
        runtime.OnnxRuntimeNetwork(file, Engine("onnxruntime", CUDA, "float32"))
