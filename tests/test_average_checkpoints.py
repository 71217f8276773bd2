"""Averages of two checkpoints."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from support.tiny import SETTINGS

from yolact import build_model, get_config
from yolact.checkpoint import read_checkpoint, save_checkpoint
from yolact.cli.main import main


def write(path: Path, value: float, *settings: str) -> Path:
    """Write a network whose every weight, and whose seed, is one value."""
    settings = *SETTINGS, f"train.seed={round(value)}", *settings
    config = get_config("yolact_resnet18").override(*settings)
    model = build_model(config)
    for tensor in model.state_dict().values():
        tensor.fill_(value)
    save_checkpoint(path, model, config, {"iteration": 7})
    return path


@pytest.mark.parametrize(
    ("flags", "expected"),
    [((), 2.0), (("--share=0.25",), 2.5), (("--share=1",), 1.0), (("--share=0", "--half"), 3.0)],
)
def test_weights_are_averaged(tmp_path: Path, flags: tuple[str, ...], expected: float) -> None:
    own, other = write(tmp_path / "own.pth", 1.0), write(tmp_path / "other.pth", 3.0)
    target = tmp_path / "out.pth"
    assert main(["convert", str(own), str(target), f"--average={other}", *flags]) == 0
    checkpoint = read_checkpoint(target)
    assert checkpoint.training == {}  # of neither
    assert checkpoint.made_by["seed"] == (3 if expected > 2 else 1)  # of the larger share
    found = checkpoint.model
    assert found.keys() == read_checkpoint(own).model.keys()
    for name, value in found.items():
        if value.is_floating_point():
            torch.testing.assert_close(value.float(), torch.full_like(value.float(), expected))
        else:
            assert (value == 3).all(), name  # counters are the other file's
    assert (read_checkpoint(own).model["network.fpn.lateral.0.weight"] == 1).all()


@pytest.mark.parametrize(
    ("settings", "flags", "code", "message"),
    [
        ((), ("--share=1.5",), 2, "--share=1.5: expected a number from 0 to 1"),
        ((), ("--average=", "--share=0.3"), 2, "--share=0.3 is of an average: give --average"),
        ((), ("--private",), 2, "--private is for the hub: "),
        ((), ("--share=nan",), 2, "--share=nan: expected a number from 0 to 1"),
        (("model.fpn_channels=8",), (), 1, "other.pth"),
        (("model.pixel_mean=1,2,3",), (), 1, "its model has pixel_mean=(1.0, 2.0, 3.0), not"),
        (("model.anchor_ratios=1,2,3",), (), 1, "its model has anchor_ratios=(1.0, 2.0, 3.0)"),
    ],
)
def test_what_cannot_be_averaged(
    tmp_path: Path,
    settings: tuple[str, ...],
    flags: tuple[str, ...],
    code: int,
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    own, other = write(tmp_path / "own.pth", 1.0), write(tmp_path / "other.pth", 3.0, *settings)
    target = tmp_path / "out.pth"
    try:
        found = main(["convert", str(own), str(target), f"--average={other}", *flags])
    except SystemExit as end:
        found = end.code
    assert found == code
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
    assert not target.exists()
