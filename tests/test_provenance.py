"""What made a file is said in it, and nothing of the machine."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
import torch
from support.tiny import SETTINGS, make_dataset, train_flags

import train
from yolact import build_model, get_config
from yolact.checkpoint import FORMAT, read_checkpoint, save_checkpoint
from yolact.cli.common import run_command
from yolact.runs import provenance as module
from yolact.runs.provenance import as_text, provenance, read_provenance, revision_of
from yolact.training.log import read_log

COMMIT, OTHER = "0123456789abcdef" * 2 + "01234567", "f" * 40
SMALL = get_config("yolact_resnet18").override(*SETTINGS)


def test_versions_revision_and_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "revision_of", lambda checkout: None)
    stamp = provenance()
    assert list(stamp) == ["python", "yolact", "torch", "torchvision", "numpy"]
    assert torch.__version__.startswith(str(stamp["torch"]))
    monkeypatch.setattr(module, "revision_of", lambda checkout: COMMIT)
    assert provenance(0) == {**stamp, "revision": COMMIT, "seed": 0}
    monkeypatch.setattr(module, "_PACKAGES", ("no_such_package",))
    assert as_text(provenance(7)).endswith(f", revision {COMMIT}, seed 7")
    assert "no_such_package" not in provenance()


def write(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


@pytest.mark.parametrize(
    ("files", "revision"),
    [
        ({}, None),
        ({"HEAD": COMMIT}, COMMIT),  # no branch
        ({"HEAD": "ref: refs/heads/main\n", "refs__heads__main": f"{COMMIT}\n"}, COMMIT),
        ({"HEAD": "ref: refs/heads/new\n"}, None),  # nothing committed
        (
            {
                "HEAD": "ref: refs/heads/main\n",
                "packed-refs": f"# packed\n{OTHER} refs/heads/x/main\n{COMMIT} refs/heads/main\n",
            },
            COMMIT,
        ),
        ({"HEAD": "ref: refs/heads/main\n", "packed-refs": f"{OTHER} refs/heads/other\n"}, None),
        ({"HEAD": "somebody's secret"}, None),
        ({"HEAD": "ref: ../../secret\n", "refs": ""}, None),
        ({"HEAD": "ref: " + "x" * 5000}, None),
    ],
)
def test_revision_of_a_checkout(tmp_path: Path, files: dict[str, str], revision: str) -> None:
    write(tmp_path, secret="hunter2")
    write(tmp_path / "repository" / ".git", **files)
    assert revision_of(tmp_path / "repository") == revision
    (tmp_path / "tree").mkdir()
    write(tmp_path / "tree", **{".git": "gitdir: ../repository/.git\n"})
    assert revision_of(tmp_path / "tree") == revision


def test_revision_of_a_further_work_tree(tmp_path: Path) -> None:
    git = [*("git", "-c", "user.name=x", "-c", "user.email=x@x.org", "-C", str(tmp_path / "a"))]
    try:
        subprocess.run(["git", "init", "--quiet", str(tmp_path / "a")], check=True)
    except OSError:
        pytest.skip("git is not here")
    assert revision_of(tmp_path / "a") is None
    for command in ("commit -q --allow-empty -m x", "worktree add -q ../b", "pack-refs --all"):
        subprocess.run([*git, *command.split()], check=True, capture_output=True)
    told = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True).stdout
    assert revision_of(tmp_path / "b") == revision_of(tmp_path / "a") == told.strip()
    assert revision_of(tmp_path) is None  # no checkout of ours around it


@pytest.mark.parametrize(
    ("content", "stamp"),
    [
        (None, {}),
        ([1], {}),
        ({"yolact": "9.9", "newer": 3}, {"yolact": "9.9", "newer": 3}),
        ({1: "a", "b": [2], "c": "x" * 10**6, "d": True, "seed": 5}, {"seed": 5}),
        ({str(n): n for n in range(1000)}, {}),
    ],
)
def test_stamps_of_strangers(tmp_path: Path, content: object, stamp: dict[str, object]) -> None:
    assert read_provenance(content) == stamp
    file = {"format": FORMAT, "config": SMALL.to_dict(), "model": {"weight": torch.ones(1)}}
    torch.save(file | ({"made_by": content} if content else {}), tmp_path / "strange.pth")
    assert read_checkpoint(tmp_path / "strange.pth").made_by == stamp


def test_a_copy_says_what_made_the_weights(tmp_path: Path) -> None:
    model, made_by = build_model(SMALL), {"yolact": "0.0.1", "seed": 3}
    save_checkpoint(tmp_path / "new.pth", model, SMALL)
    assert read_checkpoint(tmp_path / "new.pth").made_by == provenance(SMALL.train.seed)
    for made in ({}, made_by):
        save_checkpoint(tmp_path / "copy.pth", model, SMALL, made_by=made)
        assert read_checkpoint(tmp_path / "copy.pth").made_by == made
    model.save_pretrained(tmp_path / "folder")
    config = json.loads((tmp_path / "folder" / "config.json").read_text())
    assert config["made_by"]["torch"] in torch.__version__


def test_a_run_says_what_made_it(tmp_path: Path) -> None:
    data = make_dataset(tmp_path / "data")
    flags = train_flags(data, tmp_path, 1, "--set=train.seed=11")
    assert run_command(train.main, flags) == 0
    (checkpoint,) = tmp_path.glob("*_1.pth")
    assert read_checkpoint(checkpoint).made_by == provenance(11)
    assert read_log(tmp_path / "yolact_resnet18.log")[0]["data"]["made_by"] == provenance(11)
