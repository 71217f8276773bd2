"""Checkpoints of strangers that would take all memory, or wait for ever."""

import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from yolact import get_config
from yolact.checkpoint import read_checkpoint
from yolact.models.backbones.from_timm import pretrained_state


def expanded() -> object:
    return torch.zeros(1).expand(100_000, 5000)


def sparse() -> object:
    return torch.zeros(3, 3).to_sparse()


def quantised() -> object:
    return torch.quantize_per_tensor(torch.zeros(3), 1.0, 0, torch.qint8)


def complex_numbers() -> object:
    return torch.zeros(3, dtype=torch.complex64)


def without_values() -> object:
    return torch.zeros(3, device="meta")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("make", [expanded, sparse, quantised, complex_numbers, without_values])
@pytest.mark.parametrize("own", [True, False])
def test_tensors_that_are_no_plain_weights_are_refused(
    tmp_path: Path, make: Callable[[], object], own: bool
) -> None:
    """Of less than two kilobytes, the first would become two gigabytes."""
    config, state = get_config("yolact_resnet18").to_dict(), {"weight": make()}
    content = {"format": "yolact-checkpoint-1", "config": config, "model": state}
    torch.save(content if own else state, tmp_path / "model.pth")
    with pytest.raises(ValueError, match="holds no weights by name|not a readable"):
        read_checkpoint(tmp_path / "model.pth")


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2])
def test_archives_that_unpack_to_gigabytes_are_refused(tmp_path: Path, method: int) -> None:
    torch.save({"weight": torch.zeros(10**6)}, tmp_path / "plain.pth")
    with (
        zipfile.ZipFile(tmp_path / "plain.pth") as plain,
        zipfile.ZipFile(tmp_path / "packed.pth", "w", method) as packed,
    ):
        for entry in plain.namelist():
            packed.writestr(entry, plain.read(entry))
    assert (tmp_path / "packed.pth").stat().st_size < 10**5
    with pytest.raises(ValueError, match="is compressed"):
        read_checkpoint(tmp_path / "packed.pth")
    with pytest.raises(ValueError, match="--backbone_weights=.*is compressed"):
        pretrained_state("timm/resnet10t", tmp_path / "packed.pth")


def test_a_pipe_is_no_checkpoint(tmp_path: Path) -> None:
    if not hasattr(os, "mkfifo"):
        pytest.skip("pipes are of Unix")
    os.mkfifo(tmp_path / "model.pth")
    with pytest.raises(ValueError, match="not a regular file"):
        read_checkpoint(tmp_path / "model.pth")
