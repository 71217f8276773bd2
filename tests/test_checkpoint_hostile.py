"""Checkpoints of strangers that would take all memory, or wait for ever."""

import base64
import copy
import io
import os
import pickle
import pickletools
import zipfile
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch

from data.files import check_archive
from yolact import get_config
from yolact.checkpoint import FORMAT, read_checkpoint
from yolact.engines.exported import _decode_state
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


def shared(content: bytes, copies: int) -> bytes:
    """Let further entries of an archive share the bytes of its largest one."""
    stream = io.BytesIO(content)
    with zipfile.ZipFile(stream, "a") as archive:
        largest = max(archive.infolist(), key=lambda entry: entry.file_size)
        for number in range(copies):
            entry = copy.copy(largest)
            entry.filename = f"{largest.filename}{number}"
            archive.filelist.append(entry)
        archive._didModify = True
    return stream.getvalue()


def test_entries_that_share_their_bytes_are_refused(tmp_path: Path) -> None:
    """A thousand of them would take a thousand times the memory."""
    path = tmp_path / "model.pth"
    torch.save({"weight": torch.zeros(10**5)}, path)
    path.write_bytes(shared(path.read_bytes(), 3))
    with pytest.raises(ValueError, match="larger than the file"):
        read_checkpoint(path)


@pytest.mark.parametrize("kind", ["plain", "packed", "shared"])
def test_archives_in_exported_files_are_checked_likewise(kind: str) -> None:
    stream = io.BytesIO()
    save = np.savez_compressed if kind == "packed" else np.savez
    save(stream, weight=np.zeros(10**5, np.float32))
    content = shared(stream.getvalue(), 3) if kind == "shared" else stream.getvalue()
    refusal = pytest.raises(ValueError, match="is compressed|larger than the file")
    with nullcontext() if kind == "plain" else refusal:
        assert _decode_state(base64.b64encode(content).decode())["weight"].shape == (10**5,)


def test_a_pipe_is_no_checkpoint(tmp_path: Path) -> None:
    if not hasattr(os, "mkfifo"):
        pytest.skip("pipes are of Unix")
    os.mkfifo(tmp_path / "model.pth")
    with pytest.raises(ValueError, match="not a regular file"):
        read_checkpoint(tmp_path / "model.pth")


def test_tensors_that_the_old_format_leaves_out_are_refused(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    content = {"weight": torch.zeros(7, dtype=torch.float16)}
    torch.save(content, buffer, _use_new_zipfile_serialization=False)
    raw = buffer.getvalue()
    buffer.seek(0)
    for _ in range(3):  # magic number, protocol, system
        pickle.load(buffer)
    start = buffer.tell()
    list(pickletools.genops(buffer))
    body = raw[start : buffer.tell()].replace(b"K\x07", b"\x8a\x05" + (2**32).to_bytes(5, "little"))
    path = tmp_path / "a.pth"
    path.write_bytes(raw[:start] + body + pickle.dumps([], protocol=2))  # no storage follows
    with pytest.raises(ValueError, match="a.pth: .*its tensors are larger than the file"):
        read_checkpoint(path)
    path.write_bytes(raw)
    assert read_checkpoint(path).model["weight"].tolist() == [0] * 7


def test_attributes_of_tensors_are_refused(tmp_path: Path) -> None:
    tensor = torch.zeros(3)
    tensor.numel = 5  # type: ignore[assignment,method-assign]
    torch.save({"weight": tensor}, tmp_path / "a.pth")
    with pytest.raises(ValueError, match="a.pth: .*a tensor in it has attributes"):
        read_checkpoint(tmp_path / "a.pth")


def test_a_tensor_that_holds_itself_is_read_once(tmp_path: Path) -> None:
    nested: list[object] = []
    nested.append(nested)
    torch.save({"weight": torch.zeros(3), "more": nested}, tmp_path / "a.pth")
    with pytest.raises(ValueError, match="holds no weights by name: 'more' is none"):
        read_checkpoint(tmp_path / "a.pth")


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("harm", ["", "before", "after", "offset", "between", "comment"])
def test_an_archive_has_one_directory_at_its_end(large: bool, harm: str) -> None:
    """Others would be read by PyTorch and by Python's own reader at different places."""
    buffer = io.BytesIO()
    if large:
        torch.save({"weight": torch.zeros(3)}, buffer)
    else:
        np.savez(buffer, weight=np.zeros(3))
    content = bytearray(buffer.getvalue())
    end = len(content) - 22
    if harm == "before":
        content[:0] = b"PK\3\4" + bytes(96)
    elif harm == "after":
        content += bytes(30)
    elif harm == "offset":
        content[end + 16 : end + 20] = (7).to_bytes(4, "little")
    elif harm == "between":
        content[end:end] = bytes(40)
    elif harm == "comment":
        content[end + 20] = 4
        content += b"abcd"
    with (
        pytest.raises(ValueError, match="its directory is not at its end")
        if harm
        else nullcontext()
    ):
        check_archive(io.BytesIO(content))


def test_settings_that_would_take_all_memory_together(tmp_path: Path) -> None:
    model = {**get_config("yolact_resnet18").to_dict()["model"]}
    row = [1.0] * 100_000
    for name, change in {
        "model.anchor_ratios: expected at most 1,000": {"anchor_ratios": [1.0] * 200_000},
        "model.anchor_scales: expected at most": {"anchor_scales": [row] * 100_000},
        "too many for so many anchors": {
            "num_classes": 10_000,
            "head_channels": 2048,
            "class_names": [],
        },
    }.items():
        config = {**get_config("yolact_resnet18").to_dict(), "model": {**model, **change}}
        content = {"format": FORMAT, "config": config, "model": {"weight": torch.zeros(1)}}
        torch.save(content, tmp_path / "a.pth")
        with pytest.raises(ValueError, match=f"a.pth: .*{name}"):
            read_checkpoint(tmp_path / "a.pth")
