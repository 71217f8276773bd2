"""Exported files: written, checked, read back, run; and refused when they are not ours."""

from __future__ import annotations

import base64
import io
import os
import re
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.tiny import SETTINGS, make_dataset
from test_scripts import script
from torch import Tensor

from data.files import MAX_BYTES
from yolact import Predictor, build_model, get_config
from yolact.checkpoint import save_checkpoint
from yolact.cli.common import run_command
from yolact.config import Config
from yolact.engines.exported import metadata, read_trained, write_openvino
from yolact.engines.names import Engine
from yolact.engines.onnx_file import check_opset
from yolact.engines.openvino import (
    OUTPUTS,
    InferenceGraph,
    OpenVinoNetwork,
    convert,
    read_network,
)
from yolact.evaluation.result_origin import digest_of

IMAGE = np.random.default_rng(0).integers(0, 256, (48, 80, 3), dtype=np.uint8)
RESCORING = ("model.image_size=256", "model.mask_rescoring=True")


def tiny_config(*more: str) -> Config:
    return get_config("yolact_resnet18").override(*SETTINGS, "detect.score_threshold=0.0", *more)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "tiny.pth"
    config = tiny_config().with_classes(("a", "b", "c"))
    save_checkpoint(path, build_model(config), config)
    return path


@pytest.mark.parametrize(
    ("name", "flags"),
    [
        ("m.xml", []),
        ("m.xml", ["--half"]),
        ("m.xml", ["--dynamic"]),
        pytest.param("deep/er/m.onnx", ["--dynamic", "--opset=17"], marks=pytest.mark.slow),
    ],
)
def test_exported_file_detects_the_same(
    checkpoint: Path,
    tmp_path: Path,
    name: str,
    flags: list[str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    if name.endswith(".onnx"):
        pytest.importorskip("onnxscript")
    path = tmp_path / name
    command = [str(path), f"--trained_model={checkpoint}", *flags]
    assert run_command(script("export")["main"], command) == 0
    assert capsys.readouterr().out.split()[-1] == str(path)
    state = torch.get_rng_state()
    expected = Predictor.from_checkpoint(checkpoint, "cpu", "float32", "plain")(IMAGE, 0.0, 20)
    predictor = Predictor.from_checkpoint(path, precision="float32")
    found = predictor(IMAGE, 0.0, 20)
    assert torch.equal(torch.get_rng_state(), state)
    assert found.class_names == ("a", "b", "c")
    assert len(found) == len(expected) > 0
    tolerance = 0.5 if "--half" in flags else 1e-2
    torch.testing.assert_close(found.boxes, expected.boxes, atol=tolerance, rtol=0)
    assert len(predictor([IMAGE, IMAGE, IMAGE], 0.0, 5)) == 3


def test_another_size_is_that_of_the_configuration(checkpoint: Path, tmp_path: Path) -> None:
    path = tmp_path / "m.xml"
    command = [str(path), f"--trained_model={checkpoint}", "--image_size=100"]
    assert run_command(script("export")["main"], command) == 0
    read = read_trained(checkpoint)
    config = read.preset().override("model.image_size=100")
    plain = Engine("plain", torch.device("cpu"), "float32")
    expected = Predictor.from_parts(read, config, plain)(IMAGE, 0.0, 20)
    found = Predictor.from_checkpoint(path, precision="float32")(IMAGE, 0.0, 20)
    assert len(found) == len(expected) > 0
    torch.testing.assert_close(found.boxes, expected.boxes, atol=1e-2, rtol=0)


@pytest.mark.parametrize(
    "settings",
    [
        [],
        pytest.param(
            ["model.backbone=resnet50", "model.deformable_interval=3"], marks=pytest.mark.slow
        ),
    ],
)
def test_a_dynamic_network_is_at_each_size_the_one_built_for_it(settings: list[str]) -> None:
    torch.manual_seed(0)
    config = tiny_config(*settings)
    model = build_model(config).eval()
    dynamic = OpenVinoNetwork(convert(model.network, 64, dynamic=True), "float32")
    for side in (32, 101):
        built = build_model(config.override(f"model.image_size={side}")).eval()
        built.load_state_dict(model.state_dict())
        assert_same_outputs(built.network, dynamic, (side, side))
    assert_same_outputs(InferenceGraph(model.network, 64), dynamic, (33, 160))


def assert_same_outputs(
    expected: Callable[[Tensor], Sequence[Tensor]], network: OpenVinoNetwork, hw: tuple[int, int]
) -> None:
    x = torch.randn((2, 3, *hw), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        pairs = zip(OUTPUTS, expected(x), network(x), strict=False)
    for name, a, b in pairs:
        torch.testing.assert_close(b, a, atol=1e-4 * float(a.abs().max()), rtol=0, msg=name)


def test_anchors_of_a_wide_input_keep_their_pixels() -> None:
    graph = InferenceGraph(build_model(tiny_config()).eval().network, 64)
    anchors = graph(torch.zeros(1, 3, 64, 64))[-1]
    wide = graph(torch.zeros(1, 3, 64, 256))[-1]
    assert wide[:, 0].min() == anchors[:, 0].min() / 4  # half a cell of 32 instead of 8
    torch.testing.assert_close(wide[:, 2].unique(), anchors[:, 2].unique() / 4)
    torch.testing.assert_close(wide[:, 3].unique(), anchors[:, 3].unique())


@pytest.mark.parametrize("is_held", [False, True])  # as Windows does with what a model reads
def test_a_file_that_differs_is_not_written(
    is_held: bool,
    checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def refuse(path: object, **_: object) -> None:
        raise PermissionError(13, "The process cannot access the file", str(path))

    path = tmp_path / "m.xml"
    path.write_text("what was there")
    export = script("export")
    export["main"].__globals__["TOLERANCE"] = -1.0
    with monkeypatch.context() as patch:
        if is_held:
            patch.setattr("os.unlink", refuse)
        assert run_command(export["main"], [str(path), f"--trained_model={checkpoint}"]) == 1
    assert "m.xml is not written: it differs from PyTorch" in capsys.readouterr().err
    assert path.read_text() == "what was there"
    assert is_held or list(tmp_path.iterdir()) == [path]


def test_a_network_that_gives_no_numbers_is_not_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = build_model(tiny_config())
    model.network.protonet.project.bias.data[0] = torch.nan
    save_checkpoint(tmp_path / "broken.pth", model, tiny_config())
    command = [str(tmp_path / "m.xml"), f"--trained_model={tmp_path / 'broken.pth'}"]
    assert run_command(script("export")["main"], command) == 1
    assert "m.xml is not written: it differs from PyTorch by nan" in capsys.readouterr().err
    assert not (tmp_path / "m.xml").exists()


def test_plus_preset_carries_its_rescorer(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = tiny_config(*RESCORING)
    model, path = build_model(config).eval(), tmp_path / "plus.xml"
    write_openvino(convert(model.network, 256), metadata(model, config), path)
    expected = Predictor(model)(IMAGE, 0.0, 10)
    found = Predictor.from_checkpoint(path, precision="float32")(IMAGE, 0.0, 10)
    torch.testing.assert_close(found.scores, expected.scores, atol=1e-4, rtol=1e-3)


def test_file_without_the_weights_of_its_rescorer_is_refused(tmp_path: Path) -> None:
    model = build_model(tiny_config("model.image_size=256")).eval()
    text = metadata(model, tiny_config(*RESCORING))
    write_openvino(convert(model.network, 256), text, tmp_path / "m.xml")
    with pytest.raises(ValueError, match=r"m\.xml: lacks the weights of the mask rescorer"):
        Predictor.from_checkpoint(tmp_path / "m.xml", precision="float32")


@pytest.mark.slow
def test_quantised_file_runs_and_tells_its_cost(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("nncf")
    data = make_dataset(tmp_path / "data")
    trained, path = tmp_path / "eight.pth", tmp_path / "int8.xml"
    config = tiny_config(f"dataset={data}")
    from data.classes import SHAPE_CLASSES

    config = config.with_classes(SHAPE_CLASSES.names)
    save_checkpoint(trained, build_model(config), config)
    assert (
        run_command(script("export")["main"], [str(path), f"--trained_model={trained}", "--int8"])
        == 0
    )
    out = capsys.readouterr().out
    assert "float32: box AP" in out
    assert "int8: box AP" in out
    names = {op.get_type_name() for op in read_network(path).get_ops()}
    assert "FakeQuantize" in names
    assert len(Predictor.from_checkpoint(path)(IMAGE, 0.0, 5)) == 5


@pytest.mark.parametrize(
    ("flags", "code", "message"),
    [
        (["m.txt"], 2, "expected a file that ends in .xml or .onnx"),
        (["m.onnx", "--half"], 2, "name an .xml file"),
        (["m.onnx", "--int8"], 2, "name an .xml file"),
        (["m.xml", "--dataset=mine"], 2, "--dataset is for --int8"),
        (["m.onnx", "--max_images=3"], 2, "--max_images is for --int8"),
        (["m.xml", "--int8", "--calibration_images=0"], 2, "expected at least 1"),
        (["m.xml", "--opset=18"], 2, "--opset is for ONNX: name an .onnx file"),
        (["m.onnx", "--opset=15"], 2, "--opset=15: expected 16 to "),
        (["m.onnx", "--opset=99"], 2, "--opset=99: expected 16 to "),
        (
            ["m.xml", "--image_size=16"],
            2,
            "--image_size: model.image_size=16: expected 32 to 8192",
        ),
        (["m.xml", "--image_size=wide"], 2, "--image_size=wide: expected a whole number"),
        (["m.xml", "--trained_model=missing.pth"], 1, "no such checkpoint file"),
    ],
)
def test_refused(
    flags: list[str], code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if any(flag.startswith("--opset") for flag in flags):
        pytest.importorskip("onnx")
    try:
        result = run_command(script("export")["main"], flags)
    except SystemExit as ended:  # by argparse
        result = int(ended.code or 0)
    assert result == code
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("m.xml", ["model.architecture=mask_rcnn"], "only YOLACT can be exported"),
        ("m.onnx", ["model.deformable_interval=1"], "name an .xml file"),
        ("m.xml", ["model.deformable_interval=1"], None),
        ("m.onnx", ["model.backbone=timm/tf_efficientnet_lite0"], "exporter does not finish"),
        ("m.xml", ["model.backbone=timm/tf_efficientnet_lite0"], None),
        ("m.onnx", [], None),
    ],
)
def test_models_without_a_form_of_this_kind(
    name: str, settings: list[str], message: str | None
) -> None:
    refuse = partial(script("export")["refuse_model"], checkpoint=Path("w.pth"), output=Path(name))
    model = get_config("yolact_resnet18").override(*settings).model
    with pytest.raises(ValueError, match=message) if message else nullcontext():
        refuse(model, dynamic=True)
    if "exporter" in str(message):
        refuse(model, dynamic=False)


@pytest.mark.parametrize(
    ("asked", "problem"),
    [
        (None, None),
        (18, None),
        (17, "opset=17: this network could only be written in 18"),
        (None, "opset=18: does not fit this network"),
    ],
)
def test_an_operator_set_that_was_not_reached(asked: int | None, problem: str | None) -> None:
    """PyTorch's exporter keeps the operators of 18 where it cannot convert them."""
    helper = pytest.importorskip("onnx").helper
    x, y = (helper.make_tensor_value_info(name, 1, [2]) for name in "xy")
    wrong = {"speed": 2} if problem and asked is None else {}
    nodes = [helper.make_node("Relu", ["x"], ["y"], **wrong)]
    graph = helper.make_graph(nodes, "graph", [x], [y])
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    with pytest.raises(ValueError, match=problem) if problem else nullcontext():
        check_opset(proto, asked)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.xml", b""),
        ("a.xml", b"<net></net>"),
        ("a.xml", b"\x00\xff" * 50),
        ("a.onnx", b""),
        ("a.onnx", b"hello"),
    ],
)
def test_foreign_files_are_refused(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match="not a model exported by yolact export"):
        read_trained(tmp_path / name)


def test_a_rescorer_that_unpacks_to_gigabytes_is_refused(tmp_path: Path) -> None:
    network = convert(build_model(tiny_config()).eval().network, 64)
    ours, packed = metadata(build_model(tiny_config()), tiny_config()), io.BytesIO()
    np.savez_compressed(packed, weight=np.zeros(10**6))
    text = base64.b64encode(packed.getvalue()).decode()
    text = re.sub(r'"rescorer": "[^"]*"', f'"rescorer": "{text}"', ours)
    write_openvino(network, text, tmp_path / "m.xml")
    with pytest.raises(ValueError, match="is compressed"):
        read_trained(tmp_path / "m.xml")


@pytest.mark.skipif(sys.platform == "win32", reason="no pipes")
def test_a_pipe_for_weights_is_not_waited_for(tmp_path: Path) -> None:
    network = convert(build_model(tiny_config()).eval().network, 64)
    write_openvino(network, "{}", tmp_path / "m.xml")
    (tmp_path / "m.bin").unlink()
    os.mkfifo(tmp_path / "m.bin")
    with pytest.raises(ValueError, match="not a regular file"):
        read_trained(tmp_path / "m.xml")
    with pytest.raises(OSError, match="not a regular file"):
        digest_of(tmp_path / "m.xml")


@pytest.mark.parametrize("name", ["a.xml", "a.onnx"])
def test_a_file_larger_than_any_network_is_refused(tmp_path: Path, name: str) -> None:
    with (tmp_path / name).open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    with pytest.raises(ValueError, match="more than 4,294,967,296 bytes"):
        read_trained(tmp_path / name)


def test_foreign_metadata_is_refused(tmp_path: Path) -> None:
    network = convert(build_model(tiny_config()).eval().network, 64)
    ours = metadata(build_model(tiny_config()), tiny_config())
    broken = re.sub(r'"rescorer": "[^"]*"', '"rescorer": "UEsDBAAA"', ours)
    deep = "[" * 100_000
    for text in ("", "{}", '{"format": "yolact-export-2"}', "[]", "nonsense", broken, deep):
        write_openvino(network, text, tmp_path / "m.xml")
        with pytest.raises(ValueError, match="not a model exported"):
            read_trained(tmp_path / "m.xml")


@pytest.mark.parametrize(
    ("network", "described", "dynamic"),
    [
        ((), (), False),
        ((), (), True),
        (("model.image_size=96",), (), False),
        ((), ("model.image_size=96",), False),
        (("two", "classes"), (), False),
    ],
)
def test_a_network_of_another_interface_is_refused(
    tmp_path: Path, network: Sequence[str], described: Sequence[str], dynamic: bool
) -> None:
    def config_of(settings: Sequence[str]) -> Config:
        config = tiny_config(*(s for s in settings if "image_size" in s))
        return config.with_classes(("a", "b") if len(settings) == 2 else ("a", "b", "c"))

    inside, said = config_of(network), config_of(described)
    graph = convert(build_model(inside).eval().network, inside.model.image_size, dynamic)
    write_openvino(graph, metadata(build_model(said), said), tmp_path / "m.xml")
    trained = read_trained(tmp_path / "m.xml")
    engine = Engine("openvino", torch.device("cpu"), "float32")
    refused = pytest.raises(ValueError, match="does not fit its metadata; export the model anew")
    with refused if network or described else nullcontext():
        predictor = Predictor.from_parts(trained, said, engine)
        assert predictor(IMAGE) is not None


@pytest.mark.parametrize("drop", [0, 4])
def test_a_network_without_an_output_is_refused(tmp_path: Path, drop: int) -> None:
    config = tiny_config()
    graph = convert(build_model(config).eval().network, 64)
    graph.remove_result(graph.get_results()[drop])
    write_openvino(graph, metadata(build_model(config), config), tmp_path / "m.xml")
    engine = Engine("openvino", torch.device("cpu"), "float32")
    with pytest.raises(ValueError, match="does not fit its metadata"):
        Predictor.from_parts(read_trained(tmp_path / "m.xml"), config, engine)


@pytest.mark.parametrize(
    ("change", "engine"), [("model.image_size=96", "openvino"), ("dataset=x", "eager")]
)
def test_exported_model_cannot_be_changed(
    checkpoint: Path, tmp_path: Path, change: str, engine: Any
) -> None:
    read = read_trained(checkpoint)
    config = read.preset()
    model = build_model(config).eval()
    write_openvino(convert(model.network, 64), metadata(model, config), tmp_path / "m.xml")
    exported = read_trained(tmp_path / "m.xml")
    with pytest.raises(ValueError, match="runs as it is, through openvino"):
        Predictor.from_parts(
            exported, config.override(change), Engine(engine, torch.device("cpu"), "float32")
        )
