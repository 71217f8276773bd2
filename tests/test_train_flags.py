"""What the command line of train.py makes of a preset or a checkpoint."""

from __future__ import annotations

import logging
import os
import re
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from support.tiny import FLAGS
from test_run import make_saver

import train
from yolact import distributed, get_config
from yolact.checkpoint import Checkpoint, save_checkpoint
from yolact.cli import train_flags
from yolact.cli.train_flags import parse_arguments
from yolact.errors import UsageError
from yolact.runs.names import checkpoint_path
from yolact.training.options import check_settings
from yolact.training.saver import make_saver as make_run_saver
from yolact.training.setup import fit_schedule, freeze_parts


@pytest.mark.parametrize(
    ("more", "iterations", "steps"),
    [
        ([], 1000, (350, 750, 875, 937)),  # 55 epochs of 4 images are too few
        (["--epochs=30"], 20, (7, 15, 17, 18)),
        (["--epochs=0.1"], 1, (0, 0, 0, 0)),
        (["--set=train.max_iterations=77"], 77, (26, 57, 67, 72)),
    ],
)
def test_schedule_of_a_small_dataset(
    more: list[str], iterations: int, steps: tuple[int, ...]
) -> None:
    given = ["--config=yolact_resnet18", "--dataset=mine", "--batch_size=6", "--no_autoscale"]
    config, options, _ = parse_arguments(None, [*given, *FLAGS, *more])
    schedule = fit_schedule(config.train, options, 4)
    assert (schedule.max_iterations, schedule.learning_rate_steps) == (iterations, steps)


@pytest.mark.parametrize(
    ("more", "sizes"),
    [
        ([], [12]),
        (["--batch_alloc=8,4"], [8, 4]),
        (["--accumulate=1"], [12]),
        (["--accumulate=3"], [4, 4, 4]),
        (["--accumulate=5"], [2, 2, 2, 3, 3]),  # as equal as can be
        (["--accumulate=99"], [1] * 12),
    ],
)
def test_parts_of_a_batch(more: list[str], sizes: list[int]) -> None:
    _, options, _ = parse_arguments(None, more)
    parts = options.batch_parts(12)
    assert [part.stop - part.start for part in parts] == sizes
    assert [part.start for part in parts] == [sum(sizes[:i]) for i in range(len(sizes))]


@pytest.mark.parametrize("sizes", ["12,0", "13,-1", "4,4", "4,4,8"])
def test_parts_that_are_no_batch(sizes: str) -> None:
    _, options, _ = parse_arguments(None, [f"--batch_alloc={sizes}"])
    with pytest.raises(UsageError, match=f"--batch_alloc={sizes}: must add up to .* 12"):
        options.batch_parts(12)


class Freezable:
    batch_norm_frozen = False

    def freeze_batch_norm(self) -> None:
        self.batch_norm_frozen = True


@pytest.mark.parametrize(
    ("flags", "processes", "frozen"),
    [
        (["--batch_size=6"], 1, False),
        (["--batch_size=5"], 1, True),
        (["--batch_size=12", "--accumulate=2"], 1, False),
        (["--batch_size=12", "--accumulate=3"], 1, True),
        (["--batch_size=12", "--batch_alloc=8,4"], 1, True),
        (["--batch_size=12", "--accumulate=2"], 2, False),  # three images each, seen together
        (["--batch_size=4"], 4, True),
    ],
)
def test_batch_norm_is_frozen_where_it_sees_few_images(
    monkeypatch: pytest.MonkeyPatch, flags: list[str], processes: int, frozen: bool
) -> None:
    monkeypatch.setattr(distributed, "world_size", lambda: processes)
    config, options, _ = parse_arguments(None, flags)
    model = Freezable()
    freeze_parts(model, options, config.train)  # type: ignore[arg-type]
    assert model.batch_norm_frozen == frozen


def test_a_batch_is_shared_equally(monkeypatch: pytest.MonkeyPatch) -> None:
    config, options, _ = parse_arguments(None, ["--batch_size=6"])
    for processes in (1, 2, 3, 6):
        monkeypatch.setattr(distributed, "world_size", lambda n=processes: n)
        assert fit_schedule(config.train, options, 100) == config.train
    monkeypatch.setattr(distributed, "world_size", lambda: 4)
    with pytest.raises(UsageError, match="--batch_size=6: cannot be shared by 4 processes"):
        fit_schedule(config.train, options, 100)


@pytest.mark.parametrize(
    ("run_id", "restarts", "found"),
    [
        ("mine", "0", None),
        ("mine", "1", 20),
        ("other", "1", 30),
        ("third", "1", None),
        ("none", "1", None),  # as torchrun says without --rdzv-id: whose it was, nobody knows
    ],
)
def test_a_restarted_run_finds_its_own_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run_id: str, restarts: str, found: int | None
) -> None:
    config = get_config("yolact_resnet18")
    for iteration, name in ((10, "mine"), (20, "mine"), (30, "other"), (40, ""), (50, "none")):
        path = checkpoint_path(tmp_path, config.name, 0, iteration)
        training = {"iteration": iteration, "run": name}
        save_checkpoint(path, torch.nn.Linear(1, 1), config, training)
        os.utime(path, (iteration, iteration))
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", run_id)
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", restarts)
    flags = [f"--save_folder={tmp_path}", "--start_iter=0"]
    _, options, checkpoint = parse_arguments(None, flags)
    assert (checkpoint and checkpoint.training["iteration"]) == found
    assert options.resume == (found is not None)
    assert options.start_iteration == (-1 if found else 0)


@pytest.mark.parametrize(("rank", "said"), [("0", True), ("1", False)])
def test_the_first_process_alone_tells_what_it_reads(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    rank: str,
    said: bool,
) -> None:
    caplog.set_level("INFO")  # given back after the test, whatever the run sets
    monkeypatch.setenv("RANK", rank)

    def read(path: Path) -> Checkpoint:
        logging.getLogger("yolact.predictor").warning("read %s", path)
        return Checkpoint(path, {}, False, get_config("yolact_resnet18"))

    def set_up(*parts: object) -> None:
        raise UsageError("far enough")

    (tmp_path / "cats_1_2.pth").touch()
    monkeypatch.setattr(train_flags, "read_checkpoint", read)
    monkeypatch.setattr(train, "set_up", set_up)
    with pytest.raises(UsageError, match="far enough"):
        train.main([f"--weights={tmp_path / 'cats_1_2.pth'}"])
    assert bool(caplog.messages) == said


@pytest.mark.parametrize(
    ("given", "resumed", "name"),
    [
        ([], None, "yolact_base"),
        (["--config=yolact_base_config"], None, "yolact_base"),
        (["--config=yolact_base", "--name=cats"], None, "cats"),
        ([], "cats_9_5000.pth", "cats"),
        ([], "cats_2_9_5000_interrupt.pth", "cats_2"),
        ([], "cats_best.pth", "cats"),
        ([], "renamed.pth", "yolact_resnet18"),  # its preset's
        (["--name=dogs"], "cats_9_5000.pth", "dogs"),
    ],
)
def test_name_of_a_run(tmp_path: Path, given: list[str], resumed: str | None, name: str) -> None:
    if resumed:
        save_checkpoint(tmp_path / resumed, torch.nn.Linear(1, 1), get_config("yolact_resnet18"))
        given = [*given, f"--resume={tmp_path / resumed}"]
    _, options, _ = parse_arguments(None, given)
    assert options.name == name


def test_modern_recipe() -> None:
    config, _, _ = parse_arguments(None, ["--recipe=modern", "--set=augment.copy_paste=0.25"])
    assert config.train.schedule == "cosine"
    assert config.train.ema_decay > 0
    assert config.augment.copy_paste == 0.25  # what is said in detail wins
    plain, _, _ = parse_arguments(None, [])
    assert plain.train.schedule == "steps"


def test_weights_bring_their_model_and_not_their_recipe(tmp_path: Path) -> None:
    trained = get_config("yolact_resnet18").override(
        "model.image_size=192", "train.max_iterations=7", "augment.copy_paste=0.5"
    )
    save_checkpoint(tmp_path / "trained.pth", torch.nn.Linear(1, 1), trained)
    config, _, _ = parse_arguments(None, [f"--weights={tmp_path / 'trained.pth'}"])
    preset = get_config("yolact_resnet18")
    assert config.model.image_size == 192
    assert (config.train, config.augment, config.loss) == (
        preset.train,
        preset.augment,
        preset.loss,
    )


@pytest.mark.parametrize(
    ("settings", "steps", "warmup"),
    [
        (["train.max_iterations=8000"], (2800, 6000, 7000, 7500), 500),
        (["train.max_iterations=800"], (280, 600, 700, 750), 80),
        (["train.max_iterations=800", "train.learning_rate_steps=(9,)"], (9,), 80),
        (["train.max_iterations=800", "train.warmup_iterations=5"], (280, 600, 700, 750), 5),
    ],
)
def test_a_shorter_run_has_its_steps_scaled(
    settings: list[str], steps: tuple[int, ...], warmup: int
) -> None:
    config, _, _ = parse_arguments(None, [f"--set={setting}" for setting in settings])
    schedule = config.train
    assert (schedule.learning_rate_steps, schedule.warmup_iterations) == (steps, warmup)


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ([], {"learning_rate": 1e-3, "momentum": 0.9, "weight_decay": 5e-4, "gamma": 0.1}),
        (
            ["--lr=2e-3", "--momentum=0.8", "--decay=1e-4", "--gamma=0.5"],
            {"learning_rate": 2e-3, "momentum": 0.8, "weight_decay": 1e-4, "gamma": 0.5},
        ),
        (
            ["--learning_rate=2e-3", "--weight_decay=0"],
            {"learning_rate": 2e-3, "weight_decay": 0.0},
        ),
        (["--batch_size=16"], {"batch_size": 16, "learning_rate": 2e-3, "max_iterations": 400_000}),
        (
            ["--batch_size=16", "--no_autoscale"],
            {"batch_size": 16, "learning_rate": 1e-3, "max_iterations": 800_000},
        ),
        (["--batch_size=16", "--lr=5e-4"], {"learning_rate": 5e-4}),
    ],
)
def test_how_it_is_trained(flags: list[str], expected: dict[str, float]) -> None:
    config, _, _ = parse_arguments(None, flags)
    assert {name: getattr(config.train, name) for name in expected} == expected


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ([], {"save_folder": Path("weights"), "log_folder": Path("logs"), "device": "auto"}),
        ([], {"save_interval": None, "keep_latest": False, "keep_latest_interval": 100_000}),
        ([], {"validation_size": 5000, "validation_epoch": None, "patience": None}),
        ([], {"interrupt": True, "log": True, "log_gpu": False, "report": True, "resume": False}),
        (["--cuda=False", "--num_workers=3"], {"device": "cpu", "num_workers": 3}),
        (["--no_interrupt", "--no_log", "--no_report"], {"interrupt": False, "log": False}),
        (["--no_report", "--tensorboard"], {"report": False, "tensorboard": True}),
        (["--batch_alloc=4,2,2"], {"batch_alloc": (4, 2, 2), "accumulate": None}),
        (["--log_folder=x", "--name=cats"], {"folder": Path("x/cats"), "name": "cats"}),
        (["--start_iter=7"], {"start_iteration": 7}),
    ],
)
def test_options(flags: list[str], expected: dict[str, object]) -> None:
    _, options, _ = parse_arguments(None, flags)
    assert {name: getattr(options, name) for name in expected} == expected


def test_a_restarted_run_takes_the_flags_that_it_began_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = ["--config=yolact_lite2", "--backbone_weights=a.safetensors", "--start_iter=0"]
    flags += [f"--save_folder={tmp_path}"]
    assert parse_arguments(None, flags)[1].backbone_weights == Path("a.safetensors")
    for name, value in (("RUN_ID", "abc"), ("RESTART_COUNT", "1")):
        monkeypatch.setenv(f"TORCHELASTIC_{name}", value)
    path = tmp_path / "yolact_lite2_1_2.pth"
    save_checkpoint(path, torch.nn.Linear(1, 1), get_config("yolact_lite2"), {"run": "abc"})
    _, options, checkpoint = parse_arguments(None, flags)
    assert options.resume and checkpoint is not None and checkpoint.path == path


def test_the_batch_size_of_a_file_of_2019_is_not_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "yolact_base_10_32100.pth"
    path.touch()
    monkeypatch.setattr(train_flags, "read_checkpoint", lambda _: Checkpoint(path, {}, True))
    flags = [f"--resume={path}", "--config=yolact_base", "--batch_size=16"]
    assert parse_arguments(None, flags)[0].train.batch_size == 16


@pytest.mark.parametrize(
    ("flags", "refused"),
    [
        ([], None),
        (["--batch_size=8"], None),
        (["--batch_size=4", "--start_iter=0"], None),
        (["--batch_size=4"], "--batch_size=4: --resume counts on in steps of 8 images"),
        (["--batch_size=4", "--no_autoscale"], "--batch_size=4"),
        (["--set=train.batch_size=16"], "--batch_size=16"),
    ],
)
def test_a_resumed_run_keeps_its_batch_size(
    tmp_path: Path, flags: list[str], refused: str | None
) -> None:
    path = tmp_path / "cats_1_2.pth"
    save_checkpoint(path, torch.nn.Linear(1, 1), get_config("yolact_resnet18"))
    expected = pytest.raises(UsageError, match=refused) if refused else nullcontext()
    with expected:
        parse_arguments(None, [f"--resume={path}", *flags])


KEPT = ["--accumulate=2", "--precision=bfloat16", "--patience=3", "--validation_size=7"]
KEPT += ["--validation_epoch=2", "--save_interval=5", "--keep_latest", "--keep_latest_interval=4"]


@pytest.mark.parametrize(
    ("begun", "more", "changed"),
    [
        ([], [], {}),
        (KEPT, [], {}),
        (KEPT, ["--precision=float32", "--patience=9"], {"precision": "float32", "patience": 9}),
        (KEPT, ["--batch_alloc=5,3"], {"batch_alloc": (5, 3), "accumulate": None}),
        (["--batch_alloc=5,3"], [], {}),
        (["--batch_alloc=5,3"], ["--accumulate=4"], {"batch_alloc": (), "accumulate": 4}),
        (["--tensorboard", "--save_interval=5"], ["--save_interval=6"], {"save_interval": 6}),
        (
            ["--tensorboard", "--keep_latest"],
            ["--tensorboard=False", "--keep_latest=False"],
            {"tensorboard": False, "keep_latest": False},
        ),
    ],
)
def test_a_resumed_run_keeps_its_flags(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    begun: list[str],
    more: list[str],
    changed: dict[str, object],
) -> None:
    """In its second resumption, too."""
    caplog.set_level("INFO")
    _, first, _ = parse_arguments(None, [f"--save_folder={tmp_path}", *begun])
    learner = make_saver(tmp_path).learner
    for iteration, given in ((10, more), (20, [])):
        saver = make_run_saver(replace(first, name="toy", save_folder=tmp_path), learner)
        learner.progress.iteration = iteration
        _, second, _ = parse_arguments(None, [f"--resume={saver.save()}", *given])
        expected = replace(first, **changed)  # type: ignore[arg-type]
        names = [*train_flags.KEPT]
        assert [getattr(second, n) for n in names] == [getattr(expected, n) for n in names]
        assert not any(flag.partition("=")[0] in caplog.text for flag in given)
        first = second


@pytest.mark.parametrize("flags", [3, {}, {"name": "x"}, {"accumulate": None}, {1: 2}])
def test_flags_in_a_strangers_checkpoint(tmp_path: Path, flags: object) -> None:
    path = tmp_path / "cats_1_2.pth"
    config = get_config("yolact_resnet18")
    save_checkpoint(path, torch.nn.Linear(1, 1), config, {"flags": flags})
    _, options, _ = parse_arguments(None, [f"--resume={path}"])
    assert (options.name, options.accumulate) == ("cats", None)


@pytest.mark.parametrize(
    ("settings", "iterations", "steps"), [([], 80, (9,)), (["train.max_iterations=40"], 40, (9,))]
)
def test_a_resumed_run_keeps_its_schedule(
    tmp_path: Path, settings: list[str], iterations: int, steps: tuple[int, ...]
) -> None:
    trained = get_config("yolact_resnet18").override(
        "train.max_iterations=80", "train.learning_rate_steps=(9,)"
    )
    save_checkpoint(tmp_path / "cats_1_2.pth", torch.nn.Linear(1, 1), trained)
    flags = [f"--resume={tmp_path / 'cats_1_2.pth'}", "--dataset=mine"]
    flags += [f"--set={setting}" for setting in settings]
    config, options, _ = parse_arguments(None, flags)
    schedule = fit_schedule(config.train, options, 1_000_000)
    assert (schedule.max_iterations, schedule.learning_rate_steps) == (iterations, steps)
    assert not options.shorten


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (["model.keep_aspect=True"], "model.keep_aspect=True: training squeezes"),
        (["loss.positive_iou=0.3"], "loss.positive_iou=0.3: expected loss.negative_iou (0.4)"),
        (["loss.positive_iou=0.3", "loss.negative_iou=0.3"], ""),
        (["data.boxes_only=ignore"], ""),
        (
            ["data.boxes_only=ignore", "model.architecture=mask_rcnn"],
            "--boxes_only=ignore: Mask R-CNN would learn",
        ),
    ],
)
def test_settings_that_cannot_be_trained(settings: list[str], told: str) -> None:
    config = get_config("yolact_resnet18").override(*settings)
    with pytest.raises(UsageError, match=re.escape(told)) if told else nullcontext():
        check_settings(config)


@pytest.mark.parametrize("flag", ["--save_folder", "--log_folder"])
@pytest.mark.parametrize("below", ["", "deeper"])
def test_a_file_is_no_folder_to_write_to(tmp_path: Path, flag: str, below: str) -> None:
    (tmp_path / "file").touch()
    folder = tmp_path / "file" / below
    with pytest.raises(UsageError, match=f"{flag}=.*: expected a folder, and .*file is a file"):
        parse_arguments(None, [f"{flag}={folder}"])
