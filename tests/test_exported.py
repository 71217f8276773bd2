"""Exported files: written, checked, read back, run; and refused when they are not ours."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.tiny import SETTINGS, make_dataset
from test_scripts import script

from yolact import Predictor, build_model, get_config
from yolact.checkpoint import save_checkpoint
from yolact.cli.common import run_command
from yolact.config import Config
from yolact.engines.exported import metadata, read_trained, write_openvino
from yolact.engines.names import Engine
from yolact.engines.openvino import convert, read_network

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
        pytest.param("deep/er/m.onnx", [], marks=pytest.mark.slow),
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
    expected = Predictor.from_checkpoint(checkpoint, "cpu", "float32", "plain")(IMAGE, 0.0, 20)
    predictor = Predictor.from_checkpoint(path, precision="float32")
    found = predictor(IMAGE, 0.0, 20)
    assert found.class_names == ("a", "b", "c")
    assert len(found) == len(expected) > 0
    tolerance = 0.5 if flags else 1e-2
    torch.testing.assert_close(found.boxes, expected.boxes, atol=tolerance, rtol=0)
    assert len(predictor([IMAGE, IMAGE, IMAGE], 0.0, 5)) == 3


def test_a_file_that_differs_is_not_written(checkpoint: Path, tmp_path: Path) -> None:
    path = tmp_path / "m.xml"
    path.write_text("what was there")
    export = script("export")
    export["main"].__globals__["TOLERANCE"] = -1.0
    assert run_command(export["main"], [str(path), f"--trained_model={checkpoint}"]) == 1
    assert path.read_text() == "what was there"
    assert list(tmp_path.iterdir()) == [path]


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
        (["m.xml", "--trained_model=missing.pth"], 1, "no such checkpoint file"),
    ],
)
def test_refused(
    flags: list[str], code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(script("export")["main"], flags) == code
    assert message in capsys.readouterr().err


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
