"""The classes of a run that starts from a checkpoint of other, or otherwise ordered, classes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from support.tiny import make_dataset, train_flags

import train
from data.catalog import open_dataset
from data.classes import SHAPE_CLASSES, Categories
from yolact import get_config
from yolact.checkpoint import Checkpoint, read_checkpoint
from yolact.cli.common import run_command
from yolact.cli.train_flags import parse_arguments
from yolact.errors import UsageError
from yolact.training.pretrained import categories_to_train, class_difference
from yolact.training.setup import set_up

NAMES = SHAPE_CLASSES.names


@pytest.mark.parametrize(
    ("before", "now", "said"),
    [
        ((), (), ""),
        ((), ("a",), "which has 1 classes, not 0"),
        (("a", "b"), ("a", "b"), ""),
        (("a", "b"), ("A", "b"), ""),
        (("a", "b"), ("b", "a"), "the same classes in another order: class 0 is 'b', not 'a'"),
        (("a", "b", "c"), ("a", "C", "B"), "in another order: class 1 is 'C', not 'b'"),
        (("a", "b"), ("a", "c"), "other classes: class 1 is 'c', not 'b'"),
        (("a", "a", "b"), ("a", "b", "b"), "other classes: class 1 is 'b', not 'a'"),
        (("a", "b"), ("a", "b", "c"), "which has 3 classes, not 2"),
        (("A", "a", "b"), ("A", "a", "b"), ""),
        (("A", "a", "b"), ("a", "A", "b"), "in another order: class 0 is 'a', not 'A'"),
        (("A", "a"), ("a", "b"), "other classes: class 0 is 'a', not 'A'"),
    ],
)
def test_difference(before: tuple[str, ...], now: tuple[str, ...], said: str) -> None:
    difference = class_difference(before, now)
    assert said in difference
    assert bool(said) == bool(difference)


def checkpoint_of(names: tuple[str, ...], path: str = "cats_1_2.pth") -> Checkpoint:
    config = get_config("yolact_resnet18").with_classes(names)
    return Checkpoint(Path(path), {}, False, config)


@pytest.mark.parametrize(
    ("learned", "own", "resume", "expected"),
    [
        (("a", "b"), ("a", "b"), True, ("a", "b")),
        (("a", "b"), ("A", "b"), True, ("A", "b")),
        (("a", "b"), ("b", "a"), True, ("a", "b")),
        (("a", "b"), ("B", "A"), True, ("a", "b")),
        (("a", "b"), ("b", "c"), True, "class 0 is 'b', not 'a'"),
        (("a", "b"), ("a", "c"), True, "class 1 is 'c', not 'b'"),
        (("a", "b"), ("a",), True, "1 classes, not 2"),
        (("a", "b"), ("c", "b", "a"), True, "3 classes, not 2"),
        (("A", "a"), ("a", "A"), True, ("A", "a")),
        (("a", "b"), ("b", "a"), False, ("a", "b")),
        (("a", "b"), ("a", "c"), False, ("a", "c")),
        (("a", "b"), ("a",), False, ("a",)),
    ],
)
def test_classes_to_train(
    learned: tuple[str, ...], own: tuple[str, ...], resume: bool, expected: tuple[str, ...] | str
) -> None:
    categories, checkpoint = Categories.from_names(own), checkpoint_of(learned)
    if isinstance(expected, str):
        with pytest.raises(UsageError, match=expected) as refused:
            categories_to_train(categories, "mine", checkpoint, resume)
        assert "--weights=cats_1_2.pth starts a new run" in str(refused.value)
    else:
        assert categories_to_train(categories, "mine", checkpoint, resume).names == expected


@pytest.mark.parametrize("resume", [True, False])
def test_a_file_that_does_not_tell_its_classes_is_believed(resume: bool) -> None:
    own = Categories.from_names(("a", "b"))
    nameless = Checkpoint(Path("renamed.pth"), {}, True)
    assert categories_to_train(own, "mine", nameless, resume) is own
    unnamed = get_config("yolact_resnet18").override("model.num_classes=2")
    checkpoint = Checkpoint(Path("x_1_2.pth"), {}, False, unnamed)
    assert categories_to_train(own, "mine", checkpoint, resume) is own


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_dataset(tmp_path_factory.mktemp("scenes"))


def edited(dataset: Path, folder: Path, edit: Callable[[str], str]) -> Path:
    """Copy a dataset with other annotations of the same images."""
    for split in ("train", "val"):
        name = Path("annotations", f"instances_{split}.json")
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(edit((dataset / name).read_text()))
        (folder / split).symlink_to(dataset / split)
    return folder


def swapped(text: str) -> str:
    """Number the first two classes the other way round; the objects stay what they are."""
    content = json.loads(text)
    numbers = {1: 2, 2: 1}
    for category in content["categories"]:
        category["id"] = numbers.get(category["id"], category["id"])
    for annotation in content["annotations"]:
        number = annotation["category_id"]
        annotation["category_id"] = numbers.get(number, number)
    return json.dumps(content)


def saved(dataset: Path, folder: Path) -> Path:
    """Save a model of a dataset's classes, untrained."""
    session = set_up(*parse_arguments(None, train_flags(dataset, folder, 1)))
    session.learner.progress.iteration = 1
    return session.saver.save()


def test_a_resumed_run_keeps_the_order_that_was_learned(
    dataset: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = edited(dataset, tmp_path / "other", swapped)
    flags = train_flags(other, tmp_path / "new", 1, f"--weights={saved(dataset, tmp_path)}")
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "mine")
    first = set_up(*parse_arguments(None, flags))
    first.learner.progress.iteration = 1
    path = first.saver.save()
    before = open_dataset(str(dataset), "train")
    for restarts, how in (("0", ["--resume=latest"]), ("1", flags[-1:])):
        monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", restarts)
        caplog.clear()
        again = [*train_flags(other, tmp_path / "new", 2), *how, "--validation_size=2"]
        session = set_up(*parse_arguments(None, again))
        assert session.learner.progress.iteration == 1
        assert f"class 0 is '{NAMES[1]}', not '{NAMES[0]}'; the order of {path}" in caplog.text
        assert session.learner.config.model.names == NAMES
        assert session.val_data is not None
        assert session.val_data.categories.names == session.train_data.categories.names == NAMES
        for index in range(len(before)):
            labels = [data.sample(index).labels.tolist() for data in (before, session.train_data)]
            assert labels[0] == labels[1]


def test_a_run_is_not_resumed_with_other_classes(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = saved(dataset, tmp_path)
    other = edited(dataset, tmp_path / "other", lambda text: text.replace('"ring"', '"o"'))
    for start in ([], ["--start_iter=0"]):
        args = train_flags(other, tmp_path, 2, "--resume=latest", *start)
        assert run_command(train.main, args) == 2
        error = capsys.readouterr().err.splitlines()[-1]
        assert f"error: {path}: cannot go on with dataset '{other}'" in error
        assert "which has other classes: class 4 is 'o', not 'ring'" in error
        assert f"--weights={path}" in error
    assert list(tmp_path.glob("*.pth")) == [path]


def test_a_run_is_not_resumed_with_another_network(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = saved(dataset, tmp_path)
    args = train_flags(dataset, tmp_path, 2, "--resume=latest", "--set=model.fpn_channels=8")
    assert run_command(train.main, args) == 1
    assert f"error: {path}: does not fit this model" in capsys.readouterr().err


def test_a_restarted_run_does_not_go_on_with_other_classes(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "mine")
    saved(dataset, tmp_path)
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    other = edited(dataset, tmp_path / "other", lambda text: text.replace('"ring"', '"o"'))
    with pytest.raises(UsageError, match="other classes: class 4 is 'o', not 'ring'"):
        set_up(*parse_arguments(None, train_flags(other, tmp_path, 2)))


def test_fine_tuning_keeps_the_order_that_was_learned(
    dataset: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = saved(dataset, tmp_path)
    other = edited(dataset, tmp_path / "other", swapped)
    more = [f"--weights={path}", "--validation_size=2"]
    session = set_up(*parse_arguments(None, train_flags(other, tmp_path / "new", 1, *more)))
    assert "another order" in caplog.text
    assert session.learner.config.model.names == NAMES
    assert session.learner.model.class_names == NAMES
    assert session.train_data.categories.names == NAMES
    assert session.val_data is not None
    assert session.val_data.categories.category_ids[:2] == (2, 1)  # those of the file
    before = open_dataset(str(dataset), "train")
    for index in range(len(before)):
        labels = [data.sample(index).labels.tolist() for data in (before, session.train_data)]
        assert labels[0] == labels[1]
    checkpoint = read_checkpoint(path)
    state = session.learner.model.state_dict()
    assert all(torch.equal(state[name], value) for name, value in checkpoint.model.items())


def test_fine_tuning_on_as_many_other_classes_is_told(
    dataset: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = saved(dataset, tmp_path)
    other = edited(dataset, tmp_path / "other", lambda text: text.replace('"ring"', '"o"'))
    flags = train_flags(other, tmp_path / "new", 1, f"--weights={path}")
    session = set_up(*parse_arguments(None, flags))
    assert "other classes: class 4 is 'o', not 'ring'" in caplog.text
    assert session.learner.config.model.names[4] == "o"
