import errno
import os
import pickle
from pathlib import Path
from typing import Any, BinaryIO

import pytest
import torch
from torch import Tensor, nn

from yolact import Config, Yolact, build_model, get_config, load_model
from yolact import checkpoint as module
from yolact.checkpoint import (
    FORMAT,
    Checkpoint,
    config_from_name,
    load_matching_weights,
    load_weights,
    read_checkpoint,
    save_checkpoint,
    write_atomically,
)
from yolact.formats.official import clean_official, to_official
from yolact.runs.names import checkpoint_path, find_checkpoints

SMALL = get_config("yolact_resnet18").override(
    "model.image_size=64",
    "model.fpn_channels=8",
    "model.prototype_channels=8",
    "model.head_channels=8",
    "model.num_prototypes=4",
    "model.anchor_scales=((8,),(16,),(32,),(64,),(128,))",
    "model.class_names=ant,bee,cat",
)


@pytest.fixture(scope="module")
def model() -> Yolact:
    """A small model; no test changes it."""
    torch.manual_seed(0)
    return build_model(SMALL)


def assert_same(first: nn.Module, second: nn.Module, atol: float = 0.0) -> None:
    a, b = first.state_dict(), second.state_dict()
    assert list(a) == list(b)
    for name, tensor in a.items():
        assert b[name].dtype == tensor.dtype
        torch.testing.assert_close(b[name], tensor, rtol=0, atol=atol, msg=name)


def test_loading_draws_no_random_numbers(model: Yolact, tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "a.pth", model, SMALL)
    state = torch.get_rng_state()
    load_model(tmp_path / "a.pth")
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(("half", "atol"), [(False, 0.0), (True, 1e-3)])
def test_round_trip(model: Yolact, tmp_path: Path, half: bool, atol: float) -> None:
    path = tmp_path / "new" / "any name.pth"
    save_checkpoint(path, model, SMALL, {"iteration": 7}, half=half)
    assert torch.float16 not in {tensor.dtype for tensor in read_checkpoint(path).model.values()}
    checkpoint = read_checkpoint(path)
    assert (checkpoint.official, checkpoint.config) == (False, SMALL)
    assert checkpoint.training == {"iteration": 7}
    loaded = load_model(path)
    assert not loaded.training
    assert loaded.class_names == ("ant", "bee", "cat")
    assert_same(model, loaded, atol)
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_half_is_half_the_size(model: Yolact, tmp_path: Path) -> None:
    for half in (False, True):
        save_checkpoint(tmp_path / f"{half}.pth", model, SMALL, half=half)
    sizes = [(tmp_path / f"{half}.pth").stat().st_size for half in (False, True)]
    assert 0.45 < sizes[1] / sizes[0] < 0.55


def official_file(path: Path, model: Yolact, **extra: Tensor) -> Path:
    torch.save({**to_official(model.state_dict()), **extra}, path)
    return path


def test_official_file_with_stale_keys(
    model: Yolact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "get_config", lambda name: SMALL)
    stale = {
        "backbone.layer1.0.conv1.weight": torch.zeros(1),
        "fpn.downsample_layers.2.weight": torch.zeros(1),
        "fpn.downsample_layers.10.bias": torch.zeros(1),
    }
    path = official_file(tmp_path / "yolact_resnet18_54_800000.pth", model, **stale)
    assert read_checkpoint(path).official
    assert_same(model, load_model(path))


def test_clean_official() -> None:
    assert clean_official({}) == {}
    kept = [
        "backbone.layers.0.0.conv1.weight",
        "backbone.conv1.weight",
        "fpn.downsample_layers.0.weight",
        "fpn.downsample_layers.1.bias",
        "semantic_seg_conv.weight",
    ]
    stale = ["backbone.layer4.0.bn1.bias", "fpn.downsample_layers.2.bias"]
    names = [f"module.{name}" for name in kept + stale]
    assert list(clean_official(dict.fromkeys(names, torch.zeros(1)))) == kept


def test_data_parallel_prefix(model: Yolact, tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    state = to_official(model.state_dict())
    torch.save({f"module.{name}": tensor for name, tensor in state.items()}, path)
    assert_same(model, load_model(path, config=SMALL))


def test_state_dict_entry_of_other_frameworks(model: Yolact, tmp_path: Path) -> None:
    state = to_official(model.state_dict())
    torch.save({"state_dict": state, "meta": {"epoch": 3}}, tmp_path / "model.pth")
    checkpoint = read_checkpoint(tmp_path / "model.pth")
    assert checkpoint.official
    assert list(checkpoint.model) == list(state)


@pytest.mark.parametrize(
    ("file_name", "preset"),
    [
        ("yolact_base_54_800000.pth", "yolact_base"),
        ("yolact_im700_54_800000.pth", "yolact_im700"),
        ("yolact_darknet53_54_800000.pth", "yolact_darknet53"),
        ("yolact_resnet50_54_800000.pth", "yolact_resnet50"),
        ("yolact_resnet50_pascal_7_120000.pth", "yolact_resnet50_pascal"),
        ("yolact_plus_base_54_800000.pth", "yolact_plus_base"),
        ("yolact_plus_resnet50_54_800000.pth", "yolact_plus_resnet50"),
        ("yolact_base_0_10_interrupt.pth", "yolact_base"),
        ("yolact_base.pth", "yolact_base"),
        ("yolact_base_best.pth", "yolact_base"),
    ],
)
def test_preset_of_a_file_name(file_name: str, preset: str) -> None:
    assert config_from_name(Path("weights") / file_name).name == preset


@pytest.mark.parametrize(
    "name", ["model.pth", "my_yolact_base_1_2.pth", "yolact.pth", "yolact_base2.pth"]
)
def test_file_names_that_tell_nothing(name: str) -> None:
    with pytest.raises(ValueError, match=rf"{name}: cannot tell.*--config"):
        config_from_name(Path(name))


def test_unknown_name_lists_the_released_models() -> None:
    with pytest.raises(FileNotFoundError, match="yolact_bse: .*yolact_base.*yolact_plus_resnet50"):
        load_model("yolact_bse")


class Bomb:
    """Runs code when it is unpickled without care."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def write_bomb(path: Path) -> None:
    torch.save({"network.x": torch.zeros(1), "bomb": Bomb(path.parent / "exploded")}, path)


def write_pickled_bomb(path: Path) -> None:
    path.write_bytes(pickle.dumps(Bomb(path.parent / "exploded")))


MODEL = {"weight": torch.zeros(2)}
CONTENTS: dict[str, object] = {
    "number": 3,
    "list": [torch.zeros(2)],
    "no weights": {},
    "no tensors": {"weight": 1},
    "numbered tensors": {1: torch.zeros(2)},
    "no config": {"format": FORMAT, "model": MODEL},
    "no model": {"format": FORMAT, "config": SMALL.to_dict()},
    "settings of the future": {"format": FORMAT, "model": MODEL, "config": {"name": "x", "y": 1}},
    "config is text": {"format": FORMAT, "model": MODEL, "config": "yolact_base"},
    "training is a number": {
        "format": FORMAT, "model": MODEL, "config": SMALL.to_dict(), "training": 3,
    },
}  # fmt: skip
WRITERS: dict[str, Any] = {
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("<!DOCTYPE html>\n<p>404 Not found</p>\n" * 9),
    "zeros": lambda path: path.write_bytes(bytes(999)),
    "bomb": write_bomb,
    "pickled bomb": write_pickled_bomb,
    **{name: lambda path, x=x: torch.save(x, path) for name, x in CONTENTS.items()},
}


@pytest.mark.parametrize("kind", WRITERS)
def test_files_that_are_no_checkpoint(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "yolact_base_1_2.pth"
    WRITERS[kind](path)
    with pytest.raises(ValueError) as caught:
        load_model(path)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    assert [p.name for p in tmp_path.iterdir()] == [path.name]  # no code ran


@pytest.mark.parametrize("name", ["a.xml", "a.onnx", "A.ONNX"])
def test_an_exported_file_is_no_damaged_checkpoint(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(b"<net/>")
    with pytest.raises(ValueError, match=f"{name}: an exported model, .* name the checkpoint"):
        read_checkpoint(path)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "official files of 2019"])
def test_files_cut_short(tmp_path: Path, zipped: bool) -> None:
    path = tmp_path / "yolact_base_1_2.pth"
    state = {"backbone.conv1.weight": torch.arange(1500.0), "backbone.bn1.bias": torch.ones(3)}
    torch.save(state, path, _use_new_zipfile_serialization=zipped)
    whole = path.read_bytes()
    assert len(read_checkpoint(path).model) == 2
    escaped = []
    for length in range(0, len(whole) - 4, 13):
        path.write_bytes(whole[:length])
        try:
            read_checkpoint(path)
            escaped.append((length, "no error"))
        except ValueError as error:
            assert str(path) in str(error)
        except Exception as error:
            escaped.append((length, repr(error)))
    assert escaped == []


def test_wrong_shapes_are_listed(model: Yolact) -> None:
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    del state["network.semantic.bias"]
    state["network.semantic.weight"] = torch.zeros(5, 8, 1, 1)
    state["network.head.classes.bias"] = torch.zeros(9)
    state["network.extra"] = torch.zeros(1)
    state["network.fpn.output.0.bias"] = torch.full((8,), 5.0)
    other = build_model(SMALL)
    before = other.state_dict()["network.semantic.bias"].clone()
    skipped = load_matching_weights(other, Checkpoint(Path("x.pth"), state, official=False))
    assert sorted(skipped) == [
        "network.head.classes.bias: (9,) in the checkpoint, (12,) here",
        "network.semantic.bias: not in the checkpoint",
        "network.semantic.weight: (5, 8, 1, 1) in the checkpoint, (3, 8, 1, 1) here",
    ]
    assert torch.equal(other.network.semantic.bias, before)
    assert other.network.fpn.output[0].bias.tolist() == [5.0] * 8  # what fits is loaded


def test_other_classes(model: Yolact) -> None:
    other = build_model(SMALL.with_classes(("dog",)))
    checkpoint = Checkpoint(Path("x.pth"), to_official(model.state_dict()), official=True)
    skipped = load_matching_weights(other, checkpoint)
    assert {line.split(":")[0].rpartition(".")[0] for line in skipped} == {
        "network.head.classes",
        "network.semantic",
    }
    with pytest.raises(
        ValueError, match=r"does not fit this model in 4 tensors: .*; \.\.\."
    ) as caught:
        load_weights(build_model(SMALL.with_classes(("dog",))), checkpoint)
    assert "x.pth" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("existing", [True, False])
def test_a_failing_save_leaves_the_old_file(
    tmp_path: Path, existing: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "model.pth"
    if existing:
        write_atomically(path, {"weight": torch.ones(3)})

    def disk_full(content: object, file: BinaryIO) -> None:
        file.write(b"half of it")
        raise OSError(errno.ENOSPC, "no space left on device")

    monkeypatch.setattr(torch, "save", disk_full)
    with pytest.raises(OSError, match="model.pth: disk full"):
        write_atomically(path, {"weight": torch.zeros(3)})
    monkeypatch.undo()
    assert [p.name for p in tmp_path.iterdir()] == ["model.pth"] * existing
    if existing:
        assert read_checkpoint(path).model["weight"].tolist() == [1, 1, 1]


def test_no_checkpoints(tmp_path: Path) -> None:
    assert find_checkpoints(tmp_path, "yolact_base") == []
    assert find_checkpoints(tmp_path / "absent", "yolact_base") == []


@pytest.mark.parametrize(
    ("interrupted", "name", "found"),
    [
        (None, "yolact_base", ["base_0_900", "base_2_1000_interrupt", "base_10_10000"]),
        (True, "yolact_base", ["base_2_1000_interrupt"]),
        (False, "yolact_base", ["base_0_900", "base_10_10000"]),
        (None, "yolact_base_2", ["base_2_1_2000"]),
        (False, None, ["base_2_1_2000", "plus_base_1_2000", "base_0_900", "base_10_10000"]),
    ],
)
def test_the_last_iteration_of_the_last_run_is_the_last(
    tmp_path: Path, interrupted: bool | None, name: str | None, found: list[str]
) -> None:
    """Within a run time stamps say nothing: files are copied and restored."""
    for seconds, file_name in enumerate(
        (
            "yolact_base_54_800000.pth",
            "yolact_base_10_10000.pth",
            "yolact_base_2_1000_interrupt.pth",
            "yolact_base_best.pth",
            "yolact_base_54_800001.pth.123.part",
            "yolact_base_2_1_2000.pth",
            "yolact_plus_base_1_2000.pth",
            "yolact_base_0_900.pth",
        )
    ):
        (tmp_path / file_name).touch()
        os.utime(tmp_path / file_name, (seconds, seconds))
    paths = find_checkpoints(tmp_path, name, interrupted)
    assert [path.stem.removeprefix("yolact_") for path in paths] == found


@pytest.mark.parametrize("interrupted", [True, False])
def test_checkpoint_path_is_found_again(tmp_path: Path, interrupted: bool) -> None:
    path = checkpoint_path(tmp_path, "yolact_base", 3, 400, interrupted)
    path.touch()
    assert find_checkpoints(tmp_path, "yolact_base", interrupted) == [path]
    assert find_checkpoints(tmp_path, "yolact_base", not interrupted) == []
    assert config_from_name(path) == get_config("yolact_base")


def test_config_given_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Config] = []

    def stop(config: Config) -> Yolact:
        asked.append(config)
        raise RuntimeError("enough")

    monkeypatch.setattr(module, "build_model", stop)
    torch.save({"x": torch.zeros(1)}, tmp_path / "model.pth")
    with pytest.raises(RuntimeError, match="enough"):
        load_model(tmp_path / "model.pth", config="yolact_im700_config")
    assert asked == [get_config("yolact_im700")]
