"""Which device, precision and engine are chosen."""

from contextlib import nullcontext

import pytest
import torch
from support.tiny import SETTINGS

from yolact import Predictor, build_model, get_config
from yolact.engines import choose as engine_module
from yolact.engines.choose import choose_engine, choose_precision, pick_device
from yolact.engines.names import Engine, EngineName, Precision
from yolact.engines.prepare import prepare
from yolact.engines.pytorch import autocast

CPU = torch.device("cpu")


def machine(monkeypatch: pytest.MonkeyPatch, cuda: int = 0, mps: bool = False) -> None:
    """Pretend to have so many GPUs."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)


@pytest.mark.parametrize(
    ("cuda", "mps", "name", "expected"),
    [
        (0, False, "auto", "cpu"),
        (0, False, "cpu", "cpu"),
        (0, True, "auto", "mps"),
        (0, True, "mps", "mps"),
        (1, False, "auto", "cuda"),
        (2, True, "auto", "cuda"),
        (2, True, "cpu", "cpu"),
        (2, False, "cuda", "cuda"),
        (2, False, "cuda:0", "cuda:0"),
        (2, False, "cuda:1", "cuda:1"),
    ],
)
def test_pick_device(
    monkeypatch: pytest.MonkeyPatch, cuda: int, mps: bool, name: str, expected: str
) -> None:
    machine(monkeypatch, cuda, mps)
    assert pick_device(name) == torch.device(expected)


@pytest.mark.parametrize(
    ("cuda", "name", "choices"),
    [
        (0, "", "auto, cpu"),
        (0, "cuda", "auto, cpu"),
        (0, "cuda:0", "auto, cpu"),
        (0, "mps", "auto, cpu"),
        (0, "gpu", "auto, cpu"),
        (0, "CPU", "auto, cpu"),
        (0, "cpu:1", "auto, cpu"),
        (0, "cpu:", "auto, cpu"),
        (0, "meta", "auto, cpu"),
        (2, "cuda:", "auto, cuda, cpu"),
        (2, "cuda:2", "auto, cuda, cpu"),
        (2, "cuda:-1", "auto, cuda, cpu"),
        (2, "cuda:one", "auto, cuda, cpu"),
        (2, "cuda:\u00b2", "auto, cuda, cpu"),  # isdigit, but no number
        (2, "auto:0", "auto, cuda, cpu"),
    ],
)
def test_devices_that_are_not_there(
    monkeypatch: pytest.MonkeyPatch, cuda: int, name: str, choices: str
) -> None:
    machine(monkeypatch, cuda)
    with pytest.raises(
        ValueError, match=f"device='{name}': not on this machine; there is {choices}$"
    ):
        pick_device(name)


@pytest.mark.parametrize("precision", ["auto", "float32"])
def test_full_precision_on_the_cpu_is_no_context(precision: Precision) -> None:
    assert isinstance(autocast(CPU, precision), nullcontext)


def test_tf32_is_off_in_float32_and_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """The switch is the process's: the last of several threads to leave restores it."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    cuda = torch.device("cuda")
    with autocast(cuda, "auto"):
        assert torch.backends.cudnn.allow_tf32
    first, second = autocast(cuda, "float32"), autocast(cuda, "float32")
    assert torch.backends.cudnn.allow_tf32  # chosen, not entered
    with first:
        assert not torch.backends.cudnn.allow_tf32
    assert torch.backends.cudnn.allow_tf32
    third = autocast(cuda, "float32")
    second.__enter__()
    third.__enter__()
    second.__exit__(None, None, None)
    assert not torch.backends.cudnn.allow_tf32
    third.__exit__(None, None, None)
    assert torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    with pytest.raises(KeyError), autocast(cuda, "float32"):
        raise KeyError
    assert not torch.backends.cudnn.allow_tf32


def test_plain_is_float32_without_tf32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    cuda, states = torch.device("cuda"), []

    class Network(torch.nn.Module):
        def forward(self, x: int) -> int:
            states.append(torch.backends.cudnn.allow_tf32)
            return x

    assert prepare(Network(), Engine("plain", cuda, "float32"), 64)(5) == 5
    assert (states, torch.backends.cudnn.allow_tf32) == ([False], True)


@pytest.mark.parametrize("fast", [False, True])
def test_auto_is_what_is_fast_here(monkeypatch: pytest.MonkeyPatch, fast: bool) -> None:
    """In a predictor of a model as in one of a checkpoint; left out, it is float32."""
    monkeypatch.setattr(engine_module, "is_fast", lambda _, half: fast and half == "bfloat16")
    model = build_model(get_config("yolact_resnet18").override(*SETTINGS))
    x = torch.zeros(1, 3, 64, 64)
    with torch.no_grad():
        measured = Predictor(model, precision="auto").run_network(x).class_logits.dtype
        assert measured == (torch.bfloat16 if fast else torch.float32)
        assert Predictor(model).run_network(x).class_logits.dtype == torch.float32
    with pytest.raises(ValueError, match="precision='float16': not on a CPU"):
        Predictor(model, precision="float16")


@pytest.mark.parametrize(
    ("speeds", "chosen"),
    [
        ({"float32": 1.0, "bfloat16": 1.0}, "float32"),
        ({"float32": 1.0, "bfloat16": 1.6}, "bfloat16"),
        ({"float32": 50.0, "bfloat16": 600.0, "float16": 650.0}, "bfloat16"),
        ({"float32": 8.0, "bfloat16": 2.0, "float16": 24.0}, "float16"),  # a GPU without bfloat16
        ({"float32": 8.0, "bfloat16": 2.0, "float16": 8.0}, "float32"),
    ],
)
@pytest.mark.filterwarnings("ignore:CUDA is not available")
def test_auto_is_the_half_precision_that_pays(
    monkeypatch: pytest.MonkeyPatch, speeds: dict[str, float], chosen: str
) -> None:
    monkeypatch.setattr(engine_module, "matmul_speeds", lambda _: speeds)
    assert choose_precision(torch.device("cuda"), "auto") == chosen
    assert choose_precision(torch.device("mps"), "auto") == "float32"


@pytest.mark.parametrize(
    ("precision", "dtype"),
    [("auto", torch.float32), ("float32", torch.float32), ("bfloat16", torch.bfloat16)],
)
def test_autocast_on_the_cpu(precision: Precision, dtype: torch.dtype) -> None:
    with autocast(CPU, precision):
        assert torch.nn.functional.linear(torch.ones(1, 2), torch.ones(3, 2)).dtype == dtype


def test_half_precision_needs_a_gpu() -> None:
    with pytest.raises(
        ValueError, match="precision='float16': not on a CPU; use bfloat16 or float32"
    ):
        autocast(CPU, "float16")


@pytest.mark.parametrize("precision", ["", "half", "float64", "FLOAT32"])
def test_unknown_precision(precision: Precision) -> None:
    with pytest.raises(ValueError, match="expected auto, float32, bfloat16, float16"):
        autocast(CPU, precision)


@pytest.mark.parametrize(
    ("device", "engine", "precision", "chosen"),
    [
        ("cpu", "auto", "float32", ("openvino", "float32")),
        ("cpu", "auto", "auto", ("openvino", "bfloat16")),
        ("cpu", "eager", "auto", ("eager", "bfloat16")),
        ("cpu", "compile", "float32", ("compile", "float32")),
        ("cpu", "plain", "auto", ("plain", "float32")),
        ("auto", "plain", "float32", ("plain", "float32")),
    ],
)
def test_choice(
    monkeypatch: pytest.MonkeyPatch,
    device: str,
    engine: EngineName,
    precision: Precision,
    chosen: tuple[str, str],
) -> None:
    machine(monkeypatch)
    monkeypatch.setattr(engine_module, "is_fast", lambda *_: True)
    decision = choose_engine(device, engine, precision)
    assert (decision.name, decision.precision) == chosen
    assert decision.device == CPU
    assert str(decision).startswith(", ".join(chosen))


def test_without_a_fast_type_or_openvino_the_choice_is_plain_pytorch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    machine(monkeypatch)
    same = {"float32": 1.0, "bfloat16": 1.0}
    monkeypatch.setattr(engine_module, "matmul_speeds", lambda _: same)
    monkeypatch.setattr(engine_module, "has_openvino", lambda: False)
    decision = choose_engine("auto", "auto", "auto")
    assert (decision.name, decision.precision) == ("eager", "float32")
    with pytest.raises(ValueError, match="not installed, or broken; pip install openvino"):
        choose_engine("cpu", "openvino")


@pytest.mark.parametrize(
    ("cuda", "device", "engine", "precision", "message"),
    [
        (
            0,
            "cpu",
            "fast",
            "auto",
            "engine='fast': expected auto, plain, eager, compile, openvino, ",
        ),
        (1, "cuda", "openvino", "auto", "runs on the CPU, not on cuda; choose device cpu"),
        (0, "cpu", "plain", "bfloat16", "precision='bfloat16': engine 'plain' is float32"),
        (0, "cpu", "eager", "float16", "not on a CPU"),
        (0, "cuda", "auto", "auto", "not on this machine"),
    ],
)
def test_impossible_choices(
    monkeypatch: pytest.MonkeyPatch,
    cuda: int,
    device: str,
    engine: EngineName,
    precision: Precision,
    message: str,
) -> None:
    machine(monkeypatch, cuda)
    with pytest.raises(ValueError, match=message):
        choose_engine(device, engine, precision)
