"""eval.py --benchmark: a model is timed, engines are compared."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from support.evaluate import evaluate, main

from yolact.cli.common import run_command
from yolact.engines import exported
from yolact.engines.choose import choose_engine
from yolact.engines.names import Engine
from yolact.runs.provenance import provenance

pytestmark = pytest.mark.usefixtures("in_evaluation_place")


@pytest.mark.parametrize("count", [1, 3])
def test_benchmark_shows_every_stage(count: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate("--benchmark", f"--max_images={count}") == 0
    out = capsys.readouterr().out
    for stage in ("preprocess", "network", "postprocess", "draw", "fps", "p95 ms", "GFLOP"):
        assert stage in out


@pytest.mark.parametrize("dataset", ["coco2017", "gone"])
def test_without_its_dataset_a_model_is_still_timed(
    dataset: str, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    flags = ["--trained_model=tiny.pth", "--device=cpu", "--max_images=4"]
    if dataset == "gone":
        content = torch.load("tiny.pth", weights_only=True)
        torch.save({**content, "config": {**content["config"], "dataset": dataset}}, "moved.pth")
        flags[0] = "--trained_model=moved.pth"
    assert run_command(main, [*flags, "--benchmark"]) == 0
    assert "timed on generated scenes instead" in caplog.text
    assert "network" in capsys.readouterr().out
    assert run_command(main, flags) == 1
    assert "--dataset takes other data" in capsys.readouterr().err.splitlines()[-1]
    assert run_command(main, [*flags, "--benchmark", "--dataset=coco2017"]) == 1


def test_benchmark_compares_engines_on_a_video(capsys: pytest.CaptureFixture[str]) -> None:
    variants = ["--compare=engine=plain", "--compare=engine=eager,precision=float32"]
    flags = ["--video=clip.mp4", "--max_images=4", "--batch_sizes=1,2", "--json=out/speed.json"]
    assert evaluate(*variants, *flags) == 0
    out = capsys.readouterr().out
    assert "tiny.pth: plain, float32" in out
    assert "1.00x" in out
    content = json.loads(Path("out/speed.json").read_text())
    assert [v["label"] for v in content["variants"]] == [
        "tiny.pth: plain, float32",
        "tiny.pth: eager, float32",
    ]
    for variant in content["variants"]:
        assert variant["image"]["runs"] == 2
        assert set(variant["network_ms"]) == {"1", "2"}
        assert len(variant["video_fps"]) == 3
    assert content["network_gflop"] > 0
    assert content["made_by"] == provenance()


def test_benchmark_of_all_leaves_out_what_cannot_be_done(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def choose(device: str, engine: Any, *more: Any) -> Engine:
        if engine == "compile":
            raise ValueError("no compiler")
        return choose_engine(device, engine, *more)

    monkeypatch.setattr(exported, "choose_engine", choose)
    assert evaluate("--benchmark=all", "--max_images=3") == 0
    out = capsys.readouterr().out
    assert out.count("tiny.pth: ") == 5
    assert "compile" not in out


def test_one_comparison_is_with_the_flags_as_given(capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--engine=eager", "--precision=float32", "--compare=engine=plain"]
    assert evaluate(*flags, "--max_images=3") == 0
    rows = [line for line in capsys.readouterr().out.splitlines() if "tiny.pth" in line]
    assert "eager" in rows[0]
    assert "plain" in rows[1]
