"""The example of docs/export.md, which has neither PyTorch nor yolact, finds what we find."""

from __future__ import annotations

import ast
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from support.guides import PORTRAIT, ROOT, blocks
from test_scripts import script

from data.images import read_image
from data.shapes.scenes import shapes_split
from yolact import Predictor
from yolact.cli.common import run_command

PAGE = (ROOT / "docs" / "export.md").read_text()
EXAMPLE, OPENVINO = (block.text for block in blocks(PAGE) if block.language == "python")
ALLOWED = {"json", "cv2", "numpy", "onnxruntime"}
MAX_LINES = 30


def test_the_example_is_short_and_needs_little() -> None:
    nodes = list(ast.walk(ast.parse(EXAMPLE)))
    imports = [node for node in nodes if isinstance(node, ast.Import)]
    assert {alias.name for node in imports for alias in node.names} == ALLOWED
    assert not [node for node in nodes if isinstance(node, ast.ImportFrom)]
    assert len(EXAMPLE.splitlines()) <= MAX_LINES


@pytest.mark.slow
@pytest.mark.parametrize("name", ["yolact_lite2_person", "yolact_resnet18_shapes"])
def test_the_example_finds_what_the_predictor_finds(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    monkeypatch.chdir(tmp_path)
    command = ["person.onnx", f"--trained_model={name}"]
    assert run_command(script("export")["main"], command) == 0
    predictor = Predictor.from_checkpoint(name, "cpu", "float32", "plain")
    predictor.model.detection = replace(predictor.model.detection, refit=False)  # as the page says
    counts = []
    for image in pictures(name):
        cv2.imwrite("photo.jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
        names: dict[str, Any] = {}
        exec(EXAMPLE, names)
        compare(names, predictor)
        counts.append(len(names["boxes"]))
        outputs = names["outputs"]
        exec(OPENVINO, names)
        for expected, found in zip(outputs, names["outputs"], strict=True):
            np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())
    assert counts[0] == 0
    assert min(counts[1:]) > 0


def pictures(name: str) -> list[np.ndarray]:
    """An image with nothing in it, then images with something."""
    gray = np.full((60, 90, 3), 128, np.uint8)
    if name.endswith("_shapes"):
        return [gray, *(shapes_split("val").sample(index).image for index in (3, 4, 5))]
    return [gray, read_image(PORTRAIT)]


def compare(names: dict[str, Any], predictor: Predictor) -> None:
    expected = predictor("photo.jpg", score_threshold=0.3, top_k=None)
    assert names["labels"].tolist() == expected.labels.tolist()
    scores = names["scores"][names["index"], names["labels"]]
    np.testing.assert_allclose(scores, expected.scores.numpy(), atol=1e-3)
    np.testing.assert_allclose(names["boxes"], expected.boxes.numpy(), atol=1)
    for found, mask in zip(names["masks"], expected.masks.numpy(), strict=True):
        assert np.sum(found & mask) >= 0.99 * np.sum(found | mask)
