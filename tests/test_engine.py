import copy
import os
import stat
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import openvino
import pytest
import torch
from support.tiny import SETTINGS

from layers.blocks import DeformableConv2d
from yolact import build_model, get_config
from yolact.engines import openvino as openvino_engine
from yolact.engines.names import Engine, EngineName
from yolact.engines.openvino import convert, convert_cached
from yolact.engines.prepare import for_many, prepare, warm_up

CPU = torch.device("cpu")


def make_network(backbone: str) -> torch.nn.Module:
    torch.manual_seed(0)
    deformable = ("model.backbone=resnet50", "model.deformable_interval=1")
    chosen = deformable if backbone == "deformable" else (f"model.backbone={backbone}",)
    model = build_model(get_config("yolact_resnet18").override(*SETTINGS, *chosen))
    for module in model.modules():
        if isinstance(module, DeformableConv2d):
            torch.nn.init.normal_(module.offset_mask.weight, std=0.02)
        if isinstance(module, torch.nn.BatchNorm2d):  # folding must get all four right
            for tensor, low in ((module.weight, 0.5), (module.bias, -0.5)):
                torch.nn.init.uniform_(tensor, low, low + 1)
            module.running_mean.uniform_(-0.5, 0.5)
            module.running_var.uniform_(0.5, 1.5)
    return model.eval().network


@pytest.fixture(scope="module")
def network() -> torch.nn.Module:
    return make_network("resnet18")


@pytest.mark.parametrize("name", ["plain", "eager", "openvino"])
@pytest.mark.parametrize(
    "backbone", ["resnet18", "mobilenet_v2", "mobilenet_v3_large", "darknet53", "deformable"]
)
def test_every_engine_predicts_the_same(backbone: str, name: EngineName) -> None:
    network, x = make_network(backbone), torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected = network(x)
        found = prepare(network, Engine(name, CPU, "float32"), 64)(x)
    for a, b in zip(expected[:5], found[:5], strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-3)


def test_another_way_to_compute_is_converted_anew(
    network: torch.nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cache knows the source: an edited forward gives another key for the same weights."""
    before = openvino_engine._fingerprint(network, 64)
    source = tmp_path / "edited.py"
    source.write_text("# edited")
    real = openvino_engine.inspect.getfile
    monkeypatch.setattr(
        openvino_engine.inspect,
        "getfile",
        lambda kind: str(source) if kind.__name__ == "ProtoNet" else real(kind),
    )
    assert openvino_engine._fingerprint(network, 64) != before


@pytest.mark.parametrize(
    ("part", "setting", "value"),
    [
        ("fpn", "relu_levels", 5),
        ("fpn", "p6_source", "c5"),
        ("protonet", "align_corners", True),
    ],
)
def test_what_weights_do_not_tell_is_converted_anew(part: str, setting: str, value: object) -> None:
    network = make_network("resnet18")
    before = openvino_engine._fingerprint(network, 64)
    setattr(network.get_submodule(part), setting, value)
    assert openvino_engine._fingerprint(network, 64) != before


@pytest.mark.parametrize("name", ["eager", "openvino"])
def test_bfloat16_is_close(network: torch.nn.Module, name: EngineName) -> None:
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected = network(x)
        found = prepare(network, Engine(name, CPU, "bfloat16"), 64)(x)
    for a, b in zip(expected[:4], found[:4], strict=True):
        assert 0 < float((a - b.float()).abs().mean()) < 0.05 * float(a.abs().mean() + 0.1)


@pytest.mark.slow
def test_compiled_predicts_the_same(network: torch.nn.Module) -> None:
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        expected = network(x)
        found = prepare(network, Engine("compile", CPU, "float32"), 64)(x)
    for a, b in zip(expected[:5], found[:5], strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-3)


def test_prepared_network_does_not_follow_later_training(network: torch.nn.Module) -> None:
    mine, x = copy.deepcopy(network), torch.randn(1, 3, 64, 64)
    run = prepare(mine, Engine("eager", CPU, "float32"), 64)
    with torch.no_grad():
        before = run(x).prototypes.clone()
        for parameter in mine.parameters():
            parameter.add_(1)
        torch.testing.assert_close(run(x).prototypes, before)


def test_conversion_is_made_once_and_survives_a_broken_cache(
    network: torch.nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    made: list[int] = []
    real = openvino_engine.convert

    def convert(network: torch.nn.Module, image_size: int) -> Any:
        made.append(image_size)
        return real(network, image_size)

    monkeypatch.setattr(openvino_engine, "convert", convert)
    for _ in range(2):
        convert_cached(network, 64)
    assert made == [64]
    (cached,) = (tmp_path / "yolact" / "openvino").iterdir()
    (cached / "network.xml").write_text("<broken")
    convert_cached(network, 64)
    assert made == [64, 64]
    other = copy.deepcopy(network)
    next(other.parameters()).data.add_(1)
    convert_cached(other, 64)
    assert made == [64, 64, 64]


def test_without_a_home_nobody_else_can_fill_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(_: object = None) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", none)
    folder = openvino_engine.cache_folder()
    assert folder == openvino_engine.cache_folder()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_cache_keeps_the_latest_and_needs_no_writable_folder(
    network: torch.nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(openvino_engine, "_KEPT", 2)
    mine, used = copy.deepcopy(network), []
    for turn in range(3):
        next(mine.parameters()).data.add_(1)
        convert_cached(mine, 64)
        used.append(tmp_path / "yolact" / "openvino" / openvino_engine._fingerprint(mine, 64))
        assert set(used[-1].parent.iterdir()) == set(used[-2:])
        os.utime(used[-1], (times := time.time() + turn - 100, times))  # seconds apart
    file = tmp_path / "file"
    file.write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(file))
    assert convert_cached(mine, 64).inputs


FIRST_CALLS = """
import sys, threading
from pathlib import Path
import numpy as np
from yolact.engines.openvino import _core, read_network
compiled = _core().compile_model(read_network(Path(sys.argv[1])), "CPU")
requests = [compiled.create_infer_request() for _ in range(4)]
together = threading.Barrier(4)
def call(request):
    together.wait()
    request.infer([np.zeros((1, 3, 64, 64), np.float32)])
threads = [threading.Thread(target=call, args=(request,)) for request in requests]
sys.setswitchinterval(1e-6)
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
"""


@pytest.mark.slow
def test_first_calls_from_several_threads_do_not_lock(
    network: torch.nn.Module, tmp_path: Path
) -> None:
    file = tmp_path / "network.xml"
    openvino.save_model(convert(network, 64), file)
    subprocess.run([sys.executable, "-c", FIRST_CALLS, str(file)], check=True, timeout=60)


def test_other_engines_have_one_worker(network: torch.nn.Module) -> None:
    run = prepare(network, Engine("eager", CPU, "float32"), 64)
    assert for_many(run) == (run, 1)


@pytest.mark.parametrize("many", [False, True])
def test_threads_do_not_share_results(network: torch.nn.Module, many: bool) -> None:
    run = prepare(network, Engine("openvino", CPU, "float32"), 64)
    if many:
        run, workers = for_many(run)
        assert workers >= 1
    xs = torch.randn(8, 1, 3, 64, 64)
    with torch.no_grad():
        expected = [network(x).prototypes for x in xs]
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda x: run(x).prototypes.clone(), xs))
    for a, b in zip(expected, found, strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-3)


def test_a_network_is_compiled_once_for_its_use(
    network: torch.nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For a video only the variant for many images, for single ones only the other."""
    core, goals = openvino_engine._core(), []

    class Core:
        def __getattr__(self, name: str) -> Any:
            return getattr(core, name)

        def compile_model(self, model: Any, device: str, settings: dict[str, Any]) -> Any:
            goals.append(settings["PERFORMANCE_HINT"])
            return core.compile_model(model, device, settings)

    monkeypatch.setattr(openvino_engine, "_core", Core)
    run = prepare(network, Engine("openvino", CPU, "float32"), 64)
    assert goals == []
    many, workers = for_many(run)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(many, torch.zeros(8, 1, 3, 64, 64)))
    assert (workers >= 1, for_many(run)[0], goals) == (True, many, ["THROUGHPUT"])
    warm_up(run)
    assert goals == ["THROUGHPUT", "LATENCY"]
    run(torch.zeros(1, 3, 64, 64))
    warm_up(prepare(network, Engine("eager", CPU, "float32"), 64))  # nothing is left to do
    assert goals == ["THROUGHPUT", "LATENCY"]
