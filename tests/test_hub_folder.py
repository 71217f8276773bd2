"""Models as folders of safetensors, JSON and a card, and their way to the hub and back."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from support.fake_hub import FakeHub, serving, use
from support.tiny_mask_rcnn import small_config

from scripts import convert_checkpoint
from yolact import Config, Predictor, build_model, get_config, load_model
from yolact.checkpoint import (
    load_matching_weights,
    read_checkpoint,
    resolve_weights,
    save_checkpoint,
)
from yolact.cli import eval_flags, train_flags
from yolact.cli.common import run_command
from yolact.cli.from_flags import choose_model
from yolact.hub.card import model_card
from yolact.hub.folder import loaded_state, stored_state
from yolact.models.segmenter import AnySegmenter

TINY = replace(
    get_config("yolact_resnet18").override(
        "model.backbone=mobilenet_v3_small",
        "model.image_size=64",
        "model.fpn_channels=8",
        "model.prototype_channels=8",
        "model.head_channels=8",
        "model.class_names=ant,two words,Ünïcode",
        "model.pixel_mean=(0.1, 1e-17, 123.456789012345678)",
        "model.pixel_std=(0.3333333333333333, 57.1, 2)",
    ),
    score_threshold=0.1 + 0.2,
    dataset="of mine",
)
CONFIGS = {
    "YOLACT": TINY,
    "YOLACT++": TINY.override(
        "model.backbone=resnet50",
        "model.image_size=256",
        "model.deformable_interval=3",
        "model.mask_rescoring=True",
    ),
    "Mask R-CNN": small_config(),
}


def make(config: Config = TINY) -> AnySegmenter:
    torch.manual_seed(0)
    return build_model(config).eval()


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    monkeypatch.setenv("HF_TOKEN", "of nobody")
    with serving() as server:
        use(server, tmp_path / "cache", monkeypatch)
        yield server


def assert_same(first: AnySegmenter, second: AnySegmenter, atol: float = 0) -> None:
    a, b = first.state_dict(), second.state_dict()
    assert list(a) == list(b)
    for name, tensor in a.items():
        torch.testing.assert_close(b[name], tensor, rtol=0, atol=atol)
    for name in ("pixel_mean", "pixel_std"):
        assert torch.equal(getattr(first, name), getattr(second, name))
    assert first.config == second.config
    assert first.class_names == second.class_names
    assert first.score_threshold == second.score_threshold


@pytest.mark.parametrize("kind", CONFIGS)
def test_everything_survives(tmp_path: Path, kind: str) -> None:
    model = make(CONFIGS[kind])
    folder = model.save_pretrained(tmp_path / "of" / "mine")
    assert sorted(path.name for path in folder.iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
    ]
    assert_same(load_model(folder), model)
    for path in (str(folder), folder / "model.safetensors"):
        assert resolve_weights(path) == folder / "model.safetensors"
    save_checkpoint(tmp_path / "mine.pth", model, CONFIGS[kind])
    saved, stored = read_checkpoint(tmp_path / "mine.pth"), read_checkpoint(resolve_weights(folder))
    assert saved.config == stored.config == CONFIGS[kind]
    assert repr(saved.config) == repr(stored.config)  # the same numbers to the last digit


def test_half_the_size(tmp_path: Path) -> None:
    model = make()
    folder = model.save_pretrained(tmp_path, half=True)
    types = {tensor.dtype for tensor in load_file(folder / "model.safetensors").values()}
    assert types == {torch.float16, torch.int64}  # counters stay
    read = read_checkpoint(resolve_weights(folder)).model
    assert {tensor.dtype for tensor in read.values()} == {torch.float32, torch.int64}
    assert_same(load_model(folder), model, atol=1e-3)


def test_a_predictor_of_a_folder(tmp_path: Path) -> None:
    folder = make().save_pretrained(tmp_path)
    predictor = Predictor.from_checkpoint(folder, device="cpu", engine="eager")
    assert predictor.model.class_names == TINY.model.names
    assert predictor(np.zeros((50, 60, 3), np.uint8)).masks.shape[1:] == (50, 60)


@pytest.mark.parametrize("text", ['{"model_type": "bert"}', "[]", "# not ours"])
def test_a_configuration_of_something_else_stays(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ValueError, match=r"config\.json"):
        make().save_pretrained(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]
    assert (tmp_path / "config.json").read_text() == text
    (tmp_path / "config.json").unlink()
    for _ in range(2):
        make().save_pretrained(tmp_path)


def test_weights_in_another_layout(tmp_path: Path) -> None:
    """A network whose tensors share or skip memory, as engines leave it."""
    model = make().to(memory_format=torch.channels_last)
    assert_same(load_model(model.save_pretrained(tmp_path)), model)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "not valid JSON"),
        ("[1", "not valid JSON"),
        ("[" * 100_000, "not valid JSON"),
        ("[]", "not written by save_pretrained"),
        ('{"model_type": "bert"}', "not written by save_pretrained"),
        ('{"format": "yolact-folder-1"}', "config: .*missing"),
        ('{"format": "yolact-folder-1", "config": 3}', "expected settings by name"),
        ('{"format": "yolact-folder-1", "config": {"name": 3}}', "config.name=3: expected str"),
        ('{"format": "yolact-folder-1", "config": {"evil": 3}}', "unknown settings evil"),
    ],
)
def test_configurations_that_are_none(tmp_path: Path, text: str, said: str) -> None:
    folder = make().save_pretrained(tmp_path)
    (folder / "config.json").write_text(text)
    with pytest.raises(ValueError, match=rf"config\.json.*{said}") as caught:
        load_model(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("model.class_names", ["one"]),
        ("model.image_size", "64"),
        ("model.backbone", "os.system"),
        ("train.batch_size", 1.5),
        ("score_threshold", None),
    ],
)
def test_settings_are_checked(tmp_path: Path, path: str, value: object) -> None:
    folder = make().save_pretrained(tmp_path)
    content: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    part = content["config"]
    *parts, last = path.split(".")
    for name in parts:
        part = part[name]
    assert last in part
    part[last] = value
    (folder / "config.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=rf"config\.json: .*{last}"):
        load_model(folder)


@pytest.mark.parametrize("content", [b"", b"\x08" + b"\0" * 7 + b"notjson!", b"PK\3\4", b"x" * 999])
def test_damaged_weights(tmp_path: Path, content: bytes) -> None:
    folder = make().save_pretrained(tmp_path)
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(ValueError, match=r"model\.safetensors: not a readable safetensors file"):
        load_model(folder)


def test_weights_that_do_not_fit(tmp_path: Path) -> None:
    folder = make().save_pretrained(tmp_path)
    save_file({"network.x": torch.zeros(2)}, folder / "model.safetensors")
    with pytest.raises(ValueError, match=r"does not fit this model in \d+ tensors"):
        load_model(folder)
    (folder / "config.json").unlink()
    with pytest.raises(ValueError, match=r"cannot read .*config\.json"):
        load_model(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="a folder without model.safetensors; models by"):
        load_model(folder)


def test_a_folder_called_like_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as a run's, with its report."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "yolact_lite2_person").mkdir()
    assert resolve_weights("yolact_lite2_person").suffix == ".pth"


def test_no_disk(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        make().save_pretrained(tmp_path / "file")


def card_of(folder: Path) -> tuple[dict[str, Any], str]:
    _, facts, text = (folder / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    return yaml.safe_load(facts), text


def test_the_card(tmp_path: Path) -> None:
    model = make()
    facts, text = card_of(model.save_pretrained(tmp_path / "a"))
    assert facts == {
        "library_name": "yolact",
        "pipeline_tag": "image-segmentation",
        "tags": ["instance-segmentation", "yolact"],
    }
    assert "64 x 64 pixels" in text and "Classes (3): ant, two words, Ünïcode." in text
    assert "measured" not in text
    named = {"license": "cc-by-4.0", "figures": {"mask AP": 28.1}, "name": "hf:me/mine"}
    facts, text = card_of(model.save_pretrained(tmp_path / "b", **named))
    assert facts["license"] == "cc-by-4.0"
    assert "# me/mine\n" in text and "| mask AP | 28.1 |" in text
    assert 'Predictor.from_checkpoint("hf:me/mine")' in text
    (tmp_path / "b" / "README.md").write_text("written by hand")
    model.save_pretrained(tmp_path / "b")
    assert (tmp_path / "b" / "README.md").read_text() == "written by hand"


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("<script>alert(1)</script>", r"\<script\>alert(1)\</script\>"),
        ("![a](http://b.c/d.png)", r"\!\[a\](http\://b.c/d.png)"),
        ("a\n# *b* | `c` www.d.e f@g.h", r"a \# \*b\* \| \`c\` www\.d.e f\@g.h"),
        ("&lt;", r"\&lt\;"),
        ("hair drier", "hair drier"),
    ],
)
def test_names_that_mean_harm_in_the_card(tmp_path: Path, name: str, shown: str) -> None:
    """Shown as text by what renders Markdown: no HTML, picture or link."""
    config = make().config.with_classes((name, "b"))
    text = model_card(config, name, figures={name: name})
    assert f"Classes (2): {shown}, b.\n" in text
    assert f"# {shown}\n" in text and f"| {shown} | {shown} |\n" in text


def is_private(created: dict[str, object]) -> bool:
    """In the words of one version of the client or another."""
    return created.get("private") is True or created.get("visibility") == "private"


def test_to_the_hub_and_back(hub: FakeHub) -> None:
    model = make()
    said = {"private": True, "commit_message": "The first one", "license": "mit"}
    assert model.push_to_hub("me/mine", **said) == f"{hub.url}/me/mine"
    created, commit = hub.sent
    assert is_private(created) and commit["summary"] == "The first one"
    files = hub.repositories["me/mine"]
    assert set(files) == {"README.md", "config.json", "model.safetensors"}
    assert b"license: mit" in files["README.md"] and b'"hf:me/mine"' in files["README.md"]
    assert_same(load_model("hf:me/mine"), model)
    of_one_commit = f"GET /me/mine/resolve/{hub.commit('me/mine')}/model.safetensors"
    assert of_one_commit in hub.requests  # whatever is pushed between configuration and weights
    files["README.md"] = b"written by hand"
    with torch.no_grad():
        model.network.semantic.bias += 1
    model.push_to_hub("me/mine")
    assert files["README.md"] == b"written by hand"
    assert_same(load_model("hf:me/mine"), model)


def test_half_keeps_what_float16_cannot_hold() -> None:
    state = {"a": torch.tensor([1e5, 1.0]), "b": torch.tensor([0.5]), "c": torch.tensor([7])}
    stored = stored_state(state, half=True)
    kinds = [tensor.dtype for tensor in stored.values()]
    assert kinds == [torch.float32, torch.float16, torch.int64]
    assert all(torch.equal(loaded_state(stored)[name], state[name]) for name in state)


def test_a_public_repository_gets_no_private_model(hub: FakeHub) -> None:
    hub.repositories["me/mine"] = {}
    with pytest.raises(OSError, match="cannot upload to me/mine: it is there already, and public"):
        make().push_to_hub("me/mine", private=True)
    assert hub.repositories["me/mine"] == {}
    hub.private.add("me/mine")
    make().push_to_hub("me/mine", private=True)
    assert hub.repositories["me/mine"]


@pytest.mark.parametrize("name", ["mine", "me/mine/more", "me/mine@main", ""])
def test_no_repository_is_made_by_what_is_no_name(hub: FakeHub, name: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        make().push_to_hub(name)
    assert not hub.requests


def test_a_folder_of_another_project_beside_a_checkpoint(hub: FakeHub) -> None:
    files = {"config.json": b'{"model_type": "x"}', "model.safetensors": b"x", "mine.pth": b"x"}
    hub.repositories["me/both"] = files
    with pytest.raises(OSError, match=r"not written by.*; name one as hf:me/both/FILE$"):
        load_model("hf:me/both")


def test_a_card_tells_the_input_that_keeps_proportions() -> None:
    assert "for images of\n800 pixels on the shorter side." in model_card(
        get_config("maskrcnn_resnet50_fpn"), "mine"
    )


def test_training_and_evaluation_start_from_the_hub(hub: FakeHub, tmp_path: Path) -> None:
    model = make()
    model.push_to_hub("me/mine")
    flags = ["--weights=hf:me/mine", f"--save_folder={tmp_path}"]
    config, _, start = train_flags.parse_arguments(None, flags)
    assert start is not None and config.model.class_names == TINY.model.class_names
    other = make()
    assert load_matching_weights(other, start) == []
    assert_same(other, model)
    args = eval_flags.parse_arguments(None, ["--trained_model=hf:me/mine"])
    assert choose_model(args)[1].model == TINY.model


@pytest.mark.parametrize(
    ("refusal", "said"), [((401, ""), "401"), ((403, ""), "403 Forbidden"), (None, "refused")]
)
def test_uploads_that_fail(
    hub: FakeHub, monkeypatch: pytest.MonkeyPatch, refusal: tuple[int, str] | None, said: str
) -> None:
    hub.refusal = refusal
    if refusal is None:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:1")
    expected = rf"^cannot upload to me/mine: .*{said}.*; save_pretrained\(folder\) keeps it"
    with pytest.raises(OSError, match=expected) as caught:
        make().push_to_hub("me/mine")
    assert "\n" not in str(caught.value)


def test_convert(hub: FakeHub, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = make()
    file, folder, back = (str(tmp_path / name) for name in ("mine.pth", "mine", "back.pth"))
    save_checkpoint(Path(file), model, TINY)
    for arguments, printed in (
        ([file, folder, "--to=folder"], folder),
        ([folder, "hf:me/mine", "--private"], f"{hub.url}/me/mine"),
        (["hf:me/mine", back], back),
    ):
        assert run_command(convert_checkpoint.main, arguments) == 0
        assert capsys.readouterr().out.splitlines()[-1] == printed
    assert_same(load_model(back), model)
    assert is_private(hub.sent[0])
    assert run_command(convert_checkpoint.main, [file, "hf:a/b", "--to=official"]) == 2
    assert "only models of ours are uploaded" in capsys.readouterr().err
