"""train.py, run as a user would, with a tiny network."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from support.tiny import make_dataset
from support.tiny import train_flags as flags

import train
from yolact.checkpoint import read_checkpoint
from yolact.cli.common import run_command
from yolact.cli.train_flags import parse_arguments
from yolact.training.log import read_log
from yolact.training.record import read_results

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_dataset(tmp_path_factory.mktemp("scenes"))


def weights(path: Path) -> dict[str, torch.Tensor]:
    return read_checkpoint(path).model


@pytest.mark.slow
def test_losses_fall(dataset: Path, tmp_path: Path) -> None:
    calm = [f"--set=augment.{name}=False" for name in ("photometric", "expand", "crop", "mirror")]
    more = ["--lr=4e-3", "--set=train.warmup_iterations=10", *calm]
    assert run_command(train.main, flags(dataset, tmp_path, 100, *more)) == 0
    losses = [r["data"]["loss"] for r in read_log(tmp_path / "yolact_resnet18.log")[1:]]
    assert len(losses) == 10
    assert losses[-1]["T"] < 0.8 * losses[0]["T"]


def test_resumed_run_equals_uninterrupted_run(dataset: Path, tmp_path: Path) -> None:
    # Few masks to train, so that the random choice among them has to be resumed as well.
    schedule = ["--set=train.learning_rate_steps=()", "--set=train.warmup_iterations=500"]
    more = ["--set=loss.masks_to_train=5", "--save_interval=3", *schedule]
    assert run_command(train.main, flags(dataset, tmp_path / "a", 6, *more)) == 0
    assert run_command(train.main, flags(dataset, tmp_path / "b", 3, *more)) == 0
    resume = ["--resume=latest", "--set=train.max_iterations=6"]
    assert run_command(train.main, flags(dataset, tmp_path / "b", 6, *more, *resume)) == 0
    whole, resumed = (weights(next((tmp_path / x).glob("*_6.pth"))) for x in "ab")
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


@pytest.mark.slow
def test_killed_run_ends_as_one_never_killed(dataset: Path, tmp_path: Path) -> None:
    more = ["--save_interval=1", "--keep_latest", "--set=train.ema_decay=0.9"]
    more += ["--set=train.multi_scale=0.3", "--set=augment.copy_paste=0.5", "--num_workers=1"]
    whole, killed = (flags(dataset, tmp_path / name, 8, *more) for name in "ab")
    command = [sys.executable, "train.py"]  # all in processes of their own, so under equal terms
    alone: Any = {"cwd": ROOT, "env": {**os.environ, "OMP_NUM_THREADS": "1"}}
    never_killed = subprocess.Popen([*command, *whole], stdout=subprocess.DEVNULL, **alone)
    process = subprocess.Popen([*command, *killed], stderr=subprocess.PIPE, text=True, **alone)
    assert process.stderr is not None
    for line in process.stderr:
        if re.search(r"saved .*_[3-6]\.pth", line):
            process.kill()  # in the middle of the next step, or of the next checkpoint
            break
    assert process.wait(60) == -signal.SIGKILL
    kept = [read_checkpoint(path) for path in (tmp_path / "b").glob("*.pth")]  # whole, all of them
    assert max(checkpoint.training["iteration"] for checkpoint in kept) >= 3
    resume = [*command, *killed, "--resume=latest"]
    assert subprocess.run(resume, capture_output=True, **alone).returncode == 0
    assert never_killed.wait(60) == 0
    a, b = (read_checkpoint(next((tmp_path / x).glob("*_8.pth"))) for x in "ab")
    assert all(torch.equal(a.model[name], b.model[name]) for name in a.model)
    weights_a, weights_b = a.training["weights"], b.training["weights"]
    assert all(torch.equal(weights_a[name], weights_b[name]) for name in weights_a)


def test_ctrl_c_saves_and_is_resumed(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = train.train_step

    def interrupted_step(*args: object) -> object:
        os.kill(os.getpid(), signal.SIGINT)
        return step(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(train, "train_step", interrupted_step)
    assert run_command(train.main, flags(dataset, tmp_path, 4)) == 130
    (saved,) = tmp_path.glob("*_interrupt.pth")
    assert read_checkpoint(saved).training["iteration"] == 1

    monkeypatch.setattr(train, "train_step", step)
    assert run_command(train.main, flags(dataset, tmp_path, 4, "--resume=interrupt")) == 0
    assert list(tmp_path.glob("yolact_resnet18_*_4.pth"))


def test_no_interrupt_saves_nothing(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted_step(*args: object) -> object:
        os.kill(os.getpid(), signal.SIGINT)
        return {"box": 1.0}, True

    monkeypatch.setattr(train, "train_step", interrupted_step)
    assert run_command(train.main, flags(dataset, tmp_path, 4, "--no_interrupt")) == 130
    assert not list(tmp_path.glob("*.pth"))


def test_divergence_ends_with_a_diagnosis(
    dataset: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(train, "MAX_BAD_STEPS", 4)
    wild = ["--lr=1e12", "--set=train.warmup_iterations=0"]
    assert run_command(train.main, flags(dataset, tmp_path, 100, *wild)) == 1
    error = capsys.readouterr().err
    assert "training diverged" in error
    assert "--lr" in error
    log = read_log(tmp_path / "yolact_resnet18.log")
    assert len(log) < 100 / 10


def test_gradient_clip_bounds_the_step(dataset: Path, tmp_path: Path) -> None:
    """One step without momentum or decay moves the weights by rate x clipped norm, no further."""
    step = ["--lr=1", "--set=train.warmup_iterations=0", "--momentum=0", "--decay=0"]
    step += ["--set=train.learning_rate_steps=()"]
    moved = []
    for clip in (0, 0.5):
        folder = tmp_path / str(clip)
        more = [*step, f"--set=train.gradient_clip={clip}"]
        made = train.set_up(*parse_arguments(None, flags(dataset, folder, 1, *more)))
        before = [p.detach().clone() for p in made.learner.model.parameters()]
        train.train(made)
        after = [p.detach() for p in made.learner.model.parameters()]
        moved.append(sum(float((a - b).square().sum()) for a, b in zip(after, before, strict=True)))
    assert moved[0] > 1
    assert moved[1] ** 0.5 == pytest.approx(0.5, rel=1e-3)


@pytest.mark.parametrize(
    ("more", "saved"),
    [
        ([], ["1_2", "3_4"]),
        (["--keep_latest"], ["3_4"]),
        (["--keep_latest", "--keep_latest_interval=2"], ["1_2", "3_4"]),
        (["--save_interval=9", "--no_log", "--log_gpu", "--cuda=False"], ["3_4"]),
        (["--batch_size=6", "--batch_alloc=2,4", "--precision=bfloat16"], ["3_2", "6_4"]),
    ],
)
def test_what_is_kept(dataset: Path, tmp_path: Path, more: list[str], saved: list[str]) -> None:
    # 3 images of 4 an epoch: dataset smaller than the batch, so epochs end inside batches
    args = flags(dataset, tmp_path, 4, "--batch_size=3", "--save_interval=2", *more)
    assert run_command(train.main, args) == 0
    names = sorted(path.name for path in tmp_path.glob("*.pth"))
    assert names == [f"yolact_resnet18_{numbers}.pth" for numbers in saved]
    assert (tmp_path / "yolact_resnet18.log").exists() == ("--no_log" not in more)


def test_runs_of_one_preset_in_one_folder(
    dataset: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    more = ["--validation_size=1", "--batch_size=4"]
    assert run_command(train.main, [*flags(dataset, tmp_path, 2), *more, "--name=cats"]) == 0
    assert run_command(train.main, [*flags(dataset, tmp_path, 1), *more, "--name=dogs"]) == 0
    assert "of an earlier run" not in caplog.text
    resume = ["--resume=latest", "--name=cats", "--set=train.max_iterations=3"]
    assert run_command(train.main, [*flags(dataset, tmp_path, 3), *more, *resume]) == 0
    assert "of an earlier run" not in caplog.text
    cats, dogs = (read_checkpoint(tmp_path / f"{name}_best.pth") for name in ("cats", "dogs"))
    assert cats.training["iteration"] in (2, 3)
    assert dogs.training["iteration"] == 1
    for name, iterations in (("cats", [2, 3]), ("dogs", [1])):
        rows = read_results(tmp_path / name / "results.csv")
        assert [row["iteration"] for row in rows] == iterations
    train.set_up(*parse_arguments(None, [*flags(dataset, tmp_path, 1), *more, "--name=dogs"]))
    assert "dogs_best.pth, of an earlier run" in caplog.text


def test_validation_keeps_the_best_and_prints_a_table(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ["--validation_size=2", "--validation_epoch=1", "--batch_size=4"]
    assert run_command(train.main, flags(dataset, tmp_path, 2, *more)) == 0
    assert capsys.readouterr().out.count("mask |") == 2  # after each epoch; the last is the end
    best = read_checkpoint(tmp_path / "yolact_resnet18_best.pth")
    assert best.training["best_ap"] >= 0
    assert [r["type"] for r in read_log(tmp_path / "yolact_resnet18.log")].count("val") == 2


@pytest.mark.parametrize("prefix", ["", "other "])
def test_fine_tuning_on_other_classes_lists_what_is_not_loaded(
    dataset: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, prefix: str
) -> None:
    assert run_command(train.main, flags(dataset, tmp_path, 1)) == 0
    (source,) = tmp_path.glob("*_1.pth")
    other = tmp_path / "other"
    text = (dataset / "annotations" / "instances_train.json").read_text()
    (other / "annotations").mkdir(parents=True)
    (other / "annotations" / "instances_train.json").write_text(
        text.replace(
            '{"id": 8, "name": "crescent"}', '{"id": 8, "name": "moon"}, {"id": 9, "name": "x"}'
        ).replace('"name": "', f'"name": "{prefix}')
    )
    (other / "train").symlink_to(dataset / "train")
    caplog.set_level("INFO")
    more = [f"--weights={source}", f"--dataset={other}", "--validation_size=2"]
    assert run_command(train.main, flags(dataset, tmp_path / "new", 1, *more)) == 0
    skipped = [r.message for r in caplog.records if r.message.startswith("not loaded")]
    if prefix:
        assert len(skipped) == 4  # weight and bias of the classes, and of the semantic branch
    else:
        assert not skipped
        assert f"class layers start from those of {source} for circle, " in caplog.text
        assert ", and anew for moon, x" in caplog.text
    assert "no validation" in caplog.text


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (["--config=yolact_bas"], "did you mean 'yolact_base'"),
        (["--config=yolact_base_config.copy({'max_size': 400})"], "--set model.image_size=400"),
        (["--set=train.lerning_rate=1"], "did you mean 'train.learning_rate'"),
        (["--set=train.learning_rate=fast"], "expected float"),
        (["--batch_size=0"], "expected at least 1"),
        (["--num_workers=-1"], "expected at least 0"),
        (["--epochs=0"], "expected more than 0"),
        (["--epochs=nan"], "expected more than 0"),
        (["--patience=0"], "expected at least 1"),
        (["--name=../mine"], "expected letters"),
        (["--name=.."], "expected letters"),
        (["--patience=2", "--validation_size=-1"], "needs validations: this run has none"),
        (["--patience=2", "--validation_epoch=-1"], "there is only the last"),
        (["--tensorboard", "--no_log"], "beside the log"),
        (["--epochs=2", "--set=train.max_iterations=9"], "give one of them"),
        (["--backbone_weights=a.safetensors"], "a timm/... backbone"),
        (["--resume=latest", "--recipe=modern"], "keeps the recipe of its run"),
        (["--accumulate=0"], "expected at least 1"),
        (["--accumulate=2", "--batch_alloc=3,3"], "give one of them"),
        (["--set=train.ema_decay=1"], "expected 0 to 0.999999999"),
        (["--set=augment.scale_jitter=2,1"], "expected two sizes"),
        (["--set=augment.copy_paste=50"], "expected 0 to 8"),
        (["--set=loss.box_loss=iou"], "expected one of smooth_l1, giou"),
        (["--batch_alloc=2,2"], "must add up"),
        (["--batch_alloc=two"], "expected numbers"),
        (["--precision=float16"], "use bfloat16"),
        (["--resume=nothing.pth"], "no such file"),
        (["--resume=latest"], "no checkpoint of yolact_resnet18"),
        (["--resume=latest", "--weights=yolact_base"], "give one of them"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(
    dataset: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    more: list[str],
    expected: str,
) -> None:
    assert run_command(train.main, flags(dataset, tmp_path, 1, *more)) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: ")
    assert expected in error


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (["--dataset=nowhere"], "no dataset 'nowhere'"),
        (["--weights=nothing.pth"], "no such checkpoint file"),
        (["--device=cuda:77"], "not on this machine"),
    ],
)
def test_failure_is_one_line_and_exit_code_1(
    dataset: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    more: list[str],
    expected: str,
) -> None:
    assert run_command(train.main, flags(dataset, tmp_path, 1, *more)) == 1
    assert expected in capsys.readouterr().err.splitlines()[-1]


def test_help_tells_by_example(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_code:
        train.main(["--help"])
    assert exit_code.value.code == 0
    assert "python train.py --config=yolact_base" in capsys.readouterr().out


@pytest.mark.parametrize("part", ["", "annotations/instances_train.json"])
def test_validation_on_training_images_is_told(
    dataset: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, part: str
) -> None:
    more = [f"--dataset={dataset / part}", "--validation_size=1"]
    train.set_up(*parse_arguments(None, [*flags(dataset, tmp_path, 1), *more]))
    assert ("AP will be of training images" in caplog.text) == bool(part)


def test_early_stopping(dataset: Path, tmp_path: Path) -> None:
    more = ["--validation_size=1", "--validation_epoch=1", "--patience=2", "--lr=1e-9", "--no_log"]
    assert run_command(train.main, [*flags(dataset, tmp_path, 30), *more]) == 0
    progress = read_checkpoint(max(tmp_path.glob("yolact_resnet18_*_*.pth"))).training
    assert progress["stale"] == 2
    assert progress["iteration"] < 30


def test_what_a_run_leaves_behind(dataset: Path, tmp_path: Path) -> None:
    more = ["--validation_size=3", "--validation_epoch=1"]
    first = [*flags(dataset, tmp_path, 2), *more, "--recipe=modern"]
    first.remove("--no_report")
    assert run_command(train.main, first) == 0
    folder = tmp_path / "yolact_resnet18"
    for name in ("train_pictures.jpg", "results.png", "val_pictures.jpg", "report/index.html"):
        assert (folder / name).stat().st_size > 1000, name
    assert [row["iteration"] for row in read_results(folder / "results.csv")] == [1, 2]
    again = [*flags(dataset, tmp_path, 3), *more, "--resume=latest"]
    again += ["--set=train.max_iterations=3"]
    assert run_command(train.main, again) == 0
    assert [row["iteration"] for row in read_results(folder / "results.csv")] == [1, 2, 3]
