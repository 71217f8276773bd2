"""The same seed on the same machine gives the same result."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from support.tiny import make_dataset, train_flags

import eval as evaluation
import train
from yolact.checkpoint import read_checkpoint
from yolact.cli.common import run_command


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_dataset(tmp_path_factory.mktemp("scenes"))


def test_same_seed_same_weights(dataset: Path, tmp_path: Path) -> None:
    """With random choices in augmentation, copies, sizes and masks to train; in any process."""
    more = ["--set=augment.copy_paste=0.5", "--set=train.multi_scale=0.3"]
    more += ["--set=loss.masks_to_train=5", "--set=train.warmup_iterations=0"]
    runs = []
    for name, flags in (
        ("alone", ["--num_workers=0"]),
        ("two", ["--num_workers=2"]),
        ("other", ["--num_workers=0", "--set=train.seed=1"]),
    ):
        torch.manual_seed(len(runs))  # what was drawn before a run does not matter
        flags = train_flags(dataset, tmp_path / name, 2, *more, *flags)
        assert run_command(train.main, flags) == 0
        runs.append(read_checkpoint(next((tmp_path / name).glob("*_2.pth"))))
    alone, two, other = ({**run.model, **optimiser(run.training)} for run in runs)
    assert all(torch.equal(alone[name], two[name]) for name in alone)
    assert not all(torch.equal(alone[name], other[name]) for name in alone)


def optimiser(
    training: dict[str, dict[str, dict[int, dict[str, torch.Tensor]]]],
) -> dict[str, torch.Tensor]:
    """What it has gathered, by the number of each parameter."""
    states = training["optimizer"]["state"]
    return {f"{number}": state["momentum_buffer"] for number, state in states.items()}


def test_same_evaluation_same_detections(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    flags = ["--engine=eager", "--shuffle", "--seed=3", "--max_images=2"]
    given = ["--trained_model=yolact_resnet18_shapes", f"--dataset={dataset}", "--device=cpu"]
    for name in "ab":
        kept = f"--ap_data_file={name}.json"
        assert run_command(evaluation.main, [*given, *flags, kept]) == 0
    first, second = (Path(f"{name}.json").read_bytes() for name in "ab")
    assert first == second
    assert b'"detections": [[' in first
