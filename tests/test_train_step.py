"""Single steps of gradient descent, real ones, on a tiny network."""

from __future__ import annotations

import copy
import math
import os
import platform
from itertools import islice
from pathlib import Path

import pytest
import torch
from support.tiny import make_dataset, train_flags
from torch import Tensor

import train
from data.loader import Batch
from yolact.cli.train_flags import parse_arguments
from yolact.training.setup import Session, disable_malloc_trim, set_up
from yolact.training.state import Progress

State = dict[str, Tensor]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_dataset(tmp_path_factory.mktemp("scenes"))


def session_of(dataset: Path, folder: Path, *more: str) -> Session:
    kept = ["--no_log", "--lr=1e-2", "--set=train.warmup_iterations=0", *more]
    return set_up(*parse_arguments(None, train_flags(dataset, folder, 9, *kept)))


def batches_of(session: Session, count: int) -> list[Batch]:
    return list(islice(session.loader(), count))  # type: ignore[arg-type]


def state_of(session: Session) -> State:
    return copy.deepcopy(session.learner.model.state_dict())


def differing(one: State, other: State) -> set[str]:
    return {name for name in one if not torch.equal(one[name], other[name])}


def test_the_average_follows_every_step(dataset: Path, tmp_path: Path) -> None:
    session = session_of(dataset, tmp_path, "--set=train.ema_decay=0.9")
    states = []
    for batch in batches_of(session, 3):
        train.train_step(session, batch)
        states.append(state_of(session))
    expected = states[0]
    for updates, state in enumerate(states[1:], start=1):
        decay = (1 + updates) / (10 + updates)  # below 0.9 as yet
        for name, value in state.items():
            if value.is_floating_point():
                expected[name] = decay * expected[name] + (1 - decay) * value
    averaged = session.learner.evaluated_model.state_dict()
    assert session.learner.evaluated_model is not session.learner.model
    for name, value in expected.items():
        if value.is_floating_point():
            torch.testing.assert_close(averaged[name], value, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("where", ["gradients", "optimizer"])
def test_a_step_that_an_error_ends_leaves_everything_as_it_was(
    dataset: Path, tmp_path: Path, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = session_of(dataset, tmp_path)
    model = session.learner.model

    def fail(*_: object) -> Tensor:
        torch.rand(1)  # as what draws masks to learn from does
        raise RuntimeError("no memory")

    if where == "gradients":
        model.get_parameter("network.head.boxes.bias").register_hook(fail)
    else:
        monkeypatch.setattr(session.learner.optimizer, "step", fail)
    before, random = state_of(session), torch.get_rng_state()
    (batch,) = batches_of(session, 1)
    with pytest.raises(RuntimeError, match="no memory"):
        train.train_step(session, batch)
    assert differing(before, state_of(session)) == set()
    assert torch.equal(torch.get_rng_state(), random)


@pytest.mark.parametrize("broken", ["losses", "gradients"])
def test_a_step_that_is_not_finite_leaves_everything_as_it_was(
    dataset: Path, tmp_path: Path, broken: str
) -> None:
    session = session_of(dataset, tmp_path, "--set=train.ema_decay=0.9")
    bias = session.learner.model.get_parameter("network.head.boxes.bias")
    if broken == "losses":
        bias.data.fill_(float("inf"))
    else:
        bias.register_hook(lambda gradient: gradient * float("inf"))
    learner = session.learner
    before, average = state_of(session), copy.deepcopy(learner.evaluated_model.state_dict())
    assert not learner.model.batch_norm_frozen
    (batch,) = batches_of(session, 1)
    losses, finite = train.train_step(session, batch)
    assert not finite
    assert math.isfinite(sum(losses.values())) == (broken == "gradients")
    assert not differing(before, learner.model.state_dict())
    assert not differing(average, learner.evaluated_model.state_dict())
    assert not learner.optimizer.state


def test_a_step_moves_weights_and_statistics(dataset: Path, tmp_path: Path) -> None:
    session = session_of(dataset, tmp_path)
    before = state_of(session)
    (batch,) = batches_of(session, 1)
    losses, finite = train.train_step(session, batch)
    assert finite
    assert list(losses) == ["box", "confidence", "mask", "semantic"]
    assert set(losses) < set(session.learner.model.loss_letters)
    moved = differing(before, session.learner.model.state_dict())
    assert "network.head.classes.bias" in moved
    backbone = [name for name in moved if name.startswith("network.backbone.")]
    assert {"weight", "running_mean"} <= {name.rpartition(".")[2] for name in backbone}


def test_a_backbone_of_rate_0_stays_as_it_was(dataset: Path, tmp_path: Path) -> None:
    session = session_of(dataset, tmp_path, "--set=train.backbone_rate=0")
    before = state_of(session)
    (batch,) = batches_of(session, 1)
    assert train.train_step(session, batch)[1]
    moved = differing(before, session.learner.model.state_dict())
    assert moved
    assert not [name for name in moved if name.startswith("network.backbone.")]
    parameters = session.learner.model.network.get_submodule("backbone").parameters()
    assert all(parameter.grad is None for parameter in parameters)


@pytest.mark.parametrize("more", [["--accumulate=2"], ["--batch_alloc=2,4"], ["--accumulate=6"]])
def test_parts_of_a_batch_learn_as_the_whole(
    dataset: Path, tmp_path: Path, more: list[str]
) -> None:
    """Losses are means over a part, so parts agree with the whole where all images are alike."""
    found = []
    for split in ([], more):
        session = session_of(dataset, tmp_path, "--momentum=0", "--decay=0", *split)
        session.learner.model.freeze_batch_norm()
        ((images, targets),) = batches_of(session, 1)
        batch = [images[0]] * 6, [targets[0]] * 6
        before = state_of(session)
        losses, _ = train.train_step(session, batch)
        moved = session.learner.model.state_dict()
        found.append((losses, {name: moved[name] - before[name] for name in moved}))
    (losses, moves), (split_losses, split_moves) = found
    assert split_losses == pytest.approx(losses, rel=1e-3)
    for name, move in moves.items():
        torch.testing.assert_close(split_moves[name], move, atol=1e-5, rtol=1e-2)


def test_bad_steps_in_a_row_end_a_run() -> None:
    progress = Progress()
    nan = float("nan")
    for _ in range(3):
        for _ in range(train.MAX_BAD_STEPS - 1):
            train.count_bad_steps(progress, {"box": nan}, False, 1e-3)
        train.count_bad_steps(progress, {"box": 1.0}, True, 1e-3)
    assert progress.bad_steps == 0
    assert progress.skipped == 3 * (train.MAX_BAD_STEPS - 1)
    for _ in range(train.MAX_BAD_STEPS - 1):
        train.count_bad_steps(progress, {"box": 1.0, "mask": nan}, False, 1e-3)
    with pytest.raises(FloatingPointError, match=r"in mask; .* below 0\.001 \(--lr\)"):
        train.count_bad_steps(progress, {"box": 1.0, "mask": nan}, False, 1e-3)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="of GNU's C library")
def test_freed_memory_is_kept() -> None:
    import resource

    def new_pages() -> int:
        """Count the pages that the system gives for 10 tensors of 40 MB, one after the other."""
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(10):
            torch.ones(10_000_000)
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    disable_malloc_trim()
    torch.ones(10_000_000)
    assert new_pages() < 30_000  # of 97,660


@pytest.mark.parametrize(
    ("precision", "before", "after"),
    [
        ("float32", None, None),
        ("bfloat16", None, "AVX512_CORE_AMX"),
        ("bfloat16", "DEFAULT", "DEFAULT"),
    ],
)
def test_training_in_bfloat16_leaves_out_kernels_that_are_not_sound(
    dataset: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    precision: str,
    before: str | None,
    after: str | None,
) -> None:
    limit = "ONEDNN_MAX_CPU_ISA"
    monkeypatch.setenv(limit, "")  # so that it is put back
    monkeypatch.delenv(limit)
    if before:
        monkeypatch.setenv(limit, before)
    session_of(dataset, tmp_path, f"--precision={precision}").close()
    assert os.environ.get(limit) == after
